"""`python -m shared`: the same as `kubelet-guard`."""

import sys

from shared.cli import main

sys.exit(main())
