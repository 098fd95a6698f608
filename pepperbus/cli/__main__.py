"""`python -m pepperbus.cli` is the same as `pepperbus`."""

import sys

from pepperbus.cli import main

sys.exit(main())
