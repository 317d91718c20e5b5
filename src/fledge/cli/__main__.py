"""`python -m fledge.cli`: the same as the command `fledge`."""

import sys

from fledge.cli.main import main

sys.exit(main())
