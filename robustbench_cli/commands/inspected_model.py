"""A model that is to be inspected rather than attacked: fitted to the data, on its device."""

from dataclasses import dataclass

import torch

from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.given_model import subject_for
from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import spec_of
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.evaluation.model_check import check_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.runs import folders, records


@dataclass(frozen=True, kw_only=True)
class InspectedModel:
    """A model, the configuration that goes with it, and the test images."""

    subject: Subject
    base: ConfigTable
    """The sections ``dataset``, ``model`` and ``defense``, and of a run its threat."""
    test: Split
    """The test images, on the device."""
    limit: int | None
    """The number of first training images that it was trained on; 0: all; None: not known."""

    def images_used(self, train: int) -> int | None:
        """Return how many of the first of ``train`` training images the model may have seen.

        None: it is not known, as of a user's own model, or one that others had a part in.
        """
        return None if self.limit is None else min(self.limit or train, train)


def find_inspected_model(
    choice: Choice, workspace: Workspace, where: torch.device
) -> InspectedModel:
    """Return the model that ``--run`` or ``--model`` names, ready to be asked.

    Raises:
        UserError: there is no such model, or it does not fit the data.
    """
    subject, base = find_model(choice, workspace)
    test = DATASETS.build(spec_of(base["dataset"])).load("test", workspace.data_dir)
    subject, settings = subject_for(subject, test)
    base = {**base, "model": {**base["model"], **settings}}
    laid_out(subject.model, where)
    test = test.to(where)
    check_model(subject.model, test.images(slice(2)), len(test.classes))
    return InspectedModel(subject=subject, base=base, test=test, limit=_limit(choice, workspace))


def _limit(choice: Choice, workspace: Workspace) -> int | None:
    if choice.given is not None:
        return None
    run = records.read(folders.find_run(choice.run, workspace.out, "train"))
    if run.config.get("parents") or run.config.get("extra"):
        return None
    return run.settings.train.limit or 0
