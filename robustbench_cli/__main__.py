"""``python -m robustbench_cli`` is ``advbench``."""

from robustbench_cli.cli import main
from robustbench_cli.distributed import env

env.end_process(main())
