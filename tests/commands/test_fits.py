"""Attacks fitted to training images, in evaluations: on disk, taken up again, once for all."""

import numpy as np
import pytest
from PIL import Image

from robustbench_cli.attacks.universal_sgd import UniversalSGD
from robustbench_cli.commands import fits as fits_module
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError
from robustbench_cli.models.weights import digest
from robustbench_cli.runs import records

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}
ATTACK = "universal-sgd:fit=60,epochs=4,batch=10"


class Interrupted(Display):
    """Ctrl-C after a round of fitting."""

    def __init__(self, after=None):
        self.after, self.rounds = after, []

    def fitting(self, member, done, of):
        self.rounds.append(done)
        assert (member, of) == ("universal-sgd", 4)
        if done == self.after:
            raise KeyboardInterrupt


@pytest.fixture
def evaluate(tmp_path, digits_model):
    net = digits_model[0]

    def run(attack=ATTACK, display=None, out="one", **more):
        typed = {"attack": chosen_attacks([attack], None, {}), "threat": {"eps": 0.3}, "n": 40}
        request = EvalRequest(
            subject=Subject(model=net, name="net", weights=digest(net)),
            config=resolve_eval_config(BASE, {**typed, "checks": False, **more}, []),
            workspace=Workspace(out=tmp_path / out, device="cpu"),
            command=["x"],
        )
        return run_evaluation(request, display or Display())

    return run


def arrays(path):
    with np.load(path) as found:
        return {key: found[key] for key in found.files}


def test_the_change_is_kept_with_its_picture_and_its_fooling_rate(evaluate):
    folder = evaluate()
    (outcome,) = records.read(folder).attacks.values()
    clean = records.read(folder).clean_accuracy
    assert outcome.fooling_rate == pytest.approx(1 - outcome.robust_accuracy / clean)
    assert 0 < outcome.fooling_rate < 1
    v = arrays(folder / "fitted-1-0.npz")["v"]
    assert v.shape == (1, 8, 8)
    assert 0.25 < np.abs(v).max() <= 0.3 + 1e-6
    pixels = np.asarray(Image.open(folder / "fitted-1-0.png"))
    assert pixels.shape == (128, 128, 3)
    assert pixels.min() == 0 or pixels.max() == 255
    # Fitting costs each of 60 images a pass forward and back per epoch, whatever comes after.
    assert outcome.backwards >= 4 * 60
    assert not (folder / "journal").exists()


def test_an_interrupted_fit_is_taken_up_again(evaluate, monkeypatch):
    whole = evaluate(out="whole")
    monkeypatch.setattr(fits_module, "FLUSH", 0.0)
    first, second = Interrupted(after=2), Interrupted()
    with pytest.raises(KeyboardInterrupt):
        evaluate(display=first)
    again = evaluate(display=second)
    # What round 2 made was not written before the interruption.
    assert (first.rounds, second.rounds) == ([1, 2], [2, 3, 4])
    alone, resumed = (arrays(each / "fitted-1-0.npz") for each in (whole, again))
    assert {*alone} == {*resumed}
    for name, values in alone.items():
        assert np.array_equal(resumed[name], values), name
    one, other = (records.read(each).attacks[ATTACK] for each in (whole, again))
    for name in ("correct", "forwards", "backwards", "fooling_rate"):
        assert getattr(one, name) == getattr(other, name), name


def test_a_larger_radius_has_a_change_of_its_own(evaluate):
    """What the smaller one broke is no success of the larger one: it is another change."""
    folder = evaluate(sweep="eps=0.15,0.3")
    small, large = (arrays(folder / f"fitted-{k}-0.npz")["v"] for k in (1, 2))
    assert np.abs(small).max() <= 0.15 + 1e-6 < np.abs(large).max()
    alone = records.read(evaluate(out="alone")).attacks[ATTACK]
    swept = records.read(folder).attacks[f"{ATTACK}@eps=0.3"]
    assert swept.correct == alone.correct


def test_fitted_changes_do_not_depend_on_the_batch_size_or_on_how_many_are_evaluated(evaluate):
    folders = [evaluate(out=out, batch_size=size) for out, size in (("a", 7), ("b", 256))]
    one, other = (arrays(each / "fitted-1-0.npz")["v"] for each in folders)
    assert np.array_equal(one, other)


def test_numbers_that_are_not_finite_are_refused(evaluate, monkeypatch):
    plain = UniversalSGD.fit_round

    def broken(self, subject, state, index):
        return {"v": plain(self, subject, state, index)["v"] * float("nan")}

    monkeypatch.setattr(UniversalSGD, "fit_round", broken)
    with pytest.raises(Exception, match="not finite"):
        evaluate()


def test_masks_are_refused(evaluate):
    with pytest.raises(UserError, match="mask"):
        evaluate(threat={"eps": 0.3, "mask": "border:width=2"})


def test_it_is_fitted_to_the_training_split(tmp_path):
    class Request:
        data = None
        config = resolve_eval_config(BASE, {"attack": chosen_attacks([ATTACK], None, {})}, [])
        workspace = Workspace(out=tmp_path, device="cpu")

    made = fits_module.Fits.of(Request(), tmp_path, None, Display())
    assert len(made.training()) == 1297
    Request.data = made.training()
    assert fits_module.Fits.of(Request(), tmp_path, None, Display()) is None
