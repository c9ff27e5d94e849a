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
    advbench eval --attack pgd20 --fail-under 40         exit code 4 below 40 %
    advbench eval --attack autoattack --budget 10m       bounds; again with more to go on
    advbench eval --certify smoothing --sigma 0.25 --n 500
    advbench eval --certify crown --attack pgd20 --n 100
    advbench eval --model net.py:make --weights net.pt --dataset cifar10 --attack aa
    """
    from robustbench_cli.cli.eval_summary import print_evaluation, refuse_unsound
    from robustbench_cli.cli.gates import chosen_gates, gate_verdicts, refuse_below, say_verdicts
    from robustbench_cli.cli.json_output import print_outcome
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.evaluate import run_evaluation
    from robustbench_cli.runs import records

    with progress_display(flags.quiet) as display, options.interruptible(options.AGAIN):
        request = eval_request(flags, "eval")
        sweep = "" if flags.sweep is None else flags.sweep
        # What has a target has no accuracy that could be gated.
        attacks = {k: each for k, each in request.config.attack.items() if "target" not in each}
        gates = chosen_gates(flags.fail_under or [], attacks, sweep=sweep)
        folder = run_evaluation(request, display)
    if is_main_process():
        verdicts = gate_verdicts(records.read(folder), gates)
        if flags.json_:
            more = {"gates": [each.data for each in verdicts]} if verdicts else {}
            print_outcome(folder, **more)
        else:
            print_evaluation(folder)
        say_verdicts(verdicts)
        if flags.strict:
            refuse_unsound(folder)
        refuse_below(verdicts)
