"""`python -m manta.manager`."""

import sys

from manta.manager.daemon import main

sys.exit(main())
