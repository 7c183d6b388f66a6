"""`python -m iga`: the command line."""

from iga.cli.app import main

if __name__ == "__main__":
    main()
