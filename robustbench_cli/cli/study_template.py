"""The commented study that ``advbench study new`` writes."""

STUDY_TEMPLATE = """\
# What this study is to find out, in one line.
# Every defense is trained with every seed on all data, and every attack is run on each: run it with
#     advbench study {file}
# What is finished is never done again: add a defense, a seed or data and run it again for what is
# new. Runs that were made by other words than these now are named, and stay.

seeds = [0, 1, 2]

# As after `advbench train`; `advbench list defenses` has all, + joins modifiers.
defenses = [
  "standard",
  "pgd-at",
  "trades",
  "trades:beta=3+awp",
]

# As after `--attack`; the last one is the strongest.
attacks = ["fgsm", "pgd20", "autoattack"]

train = "--epochs 20"     # more words for every `advbench train`
eval = "--n 100"          # more words for every `advbench eval`

# The data sets: a table each, with words of their own; `on_request` leaves one out unless
# --dataset names it.
[data.digits]

# [data.mnist]
# train = "--model small-cnn --epochs 10"
# eval = "--n 1000"
# on_request = true

# Trainings that the lists above cannot say; a name in braces is the run of that name and seed.
# [runs]
# tuned = "trades --init {{pgd-at}} --lr 0.01"
# student = "rslad --teacher {{pgd-at}}"

# Any other command; its folder has the name of the step.
# [steps]
# transfer = "eval --run {{trades}} --source {{standard}} --attack pgd20"
"""
