"""`python -m pydeper` is the command `pydeper`."""

import sys

from pydeper.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
