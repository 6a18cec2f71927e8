"""The command line: ``lumefield``, or ``python -m lumefield.apps``."""

import sys

from lumefield.apps._cli import main as main

if __name__ == "__main__":
    sys.exit(main())
