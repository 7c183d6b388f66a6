"""`python -m iga.testing.search`, which has moved: it says where to, and runs what is there."""

import sys

from iga.testing.overlap.worst_rounding import main

if __name__ == "__main__":
    sys.stderr.write("iga.testing.search has moved: python -m iga.testing.overlap.worst_rounding\n")
    sys.exit(main())
