"""The command line: `app` registers the commands, a file each, and turns what they raise into exit codes."""

from iga.cli.app import main

__all__ = ["main"]
