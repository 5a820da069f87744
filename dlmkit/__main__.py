"""``python -m dlmkit`` is the program ``dlmkit``."""

import sys

from dlmkit.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
