import sys

from vgmr.cli import main

sys.exit(main())
