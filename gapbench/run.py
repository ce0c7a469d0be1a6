"""`python -m gapbench.run FILE`: the command `gapbench run` alone."""

import sys

from gapbench.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
