"""``advbench eval``: measure a model under attacks, or certify it."""

from robustbench_cli.cli import options
from robustbench_cli.cli.eval_options import EvalOptions, eval_request
from robustbench_cli.distributed.env import is_main_process


@options.takes_options()
def eval_command(flags: EvalOptions) -> None:
    """Measure a model under attacks or certify it; print the accuracies and the folder of verdicts.

    Checks look for signs that a robust accuracy is too high; what they find stands below the table.
    An interrupted evaluation goes on where it stopped when the same command is run again.

    \b
    advbench eval --attack pgd100 --attack cw20          the latest run
    advbench eval --suite paper --run trades --n 1000
    advbench eval --attack pgd20 --sweep eps=0,2/255,...,16/255
    advbench eval --attack pgd20 --mask threshold:above=0.1    the background only
    advbench eval --attack pgd20 --run trades --source standard
    advbench eval --certify smoothing --sigma 0.25 --n 500
    advbench eval --model net.py:make --weights net.pt --dataset cifar10 --attack aa
    """
    from robustbench_cli.cli.eval_summary import print_evaluation, refuse_unsound
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.evaluate import run_evaluation

    with progress_display(flags.quiet) as display, options.interruptible(options.AGAIN):
        folder = run_evaluation(eval_request(flags, "eval"), display)
    if is_main_process():
        print_evaluation(folder)
        if flags.strict:
            refuse_unsound(folder)
