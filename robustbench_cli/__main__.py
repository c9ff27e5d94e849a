"""``python -m robustbench_cli`` is ``advbench``."""

import sys

from robustbench_cli.cli import main

sys.exit(main())
