"""`python -m maskrcnn`, the same as the command `maskrcnn`."""

import sys

from maskrcnn.cli import main

sys.exit(main())
