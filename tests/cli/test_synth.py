"""``advbench synth`` from training images to a run that learns from what was made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from robustbench_cli.cli import main
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.runs import records

SMALL = ["train.limit=100", "train.probe=0", "train.batch_size=50", "model.width=4"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Generators fitted on the first 100 digits, and 400 images of each."""
    out = tmp_path_factory.mktemp("synth") / "results"
    for name in ("gaussian", "kde:bandwidth=0.2", "pixels"):
        short = name.partition(":")[0]
        fit = ["synth", "fit", name, "--limit", "100", "--name", short]
        assert main([*fit, "--out", str(out), "--quiet"]) == 0
        sample = ["synth", "sample", short, "--n", "400", "--name", f"{short}-400"]
        assert main([*sample, "--out", str(out), "--quiet"]) == 0
    return out


def train(out, name, *more, changes=(), defense="pgd-at:steps=2"):
    """The exit status of a short run."""
    words = [word for pair in (*SMALL, *changes) for word in ("--set", pair)]
    usual = ["train", defense, "--epochs", "2", "--name", name, "--quiet"]
    return main([*usual, *words, *more, "--out", str(out)])


def weights(out, name):
    return load_file(out / name / "model.safetensors")


def test_a_fit_leaves_tensors_and_a_record(results):
    digits = DATASETS.build(Spec("digits"))
    first = digits.load("train", results).only(slice(100))
    run = records.read(results / "gaussian")
    assert (run.kind, run.status, run.subject, run.n) == ("synth", "ok", "gaussian", 100)
    assert run.dataset["train_sha256"] == first.fingerprint()
    assert run.dataset["test_sha256"] == digits.load("test", results).fingerprint()
    path = results / "gaussian" / run.fitted["file"]
    assert records.sha256(path) == run.fitted["sha256"]
    assert sorted(each.name for each in path.parent.glob("[!.]*")) == [path.name, "run.json"]
    tensors = load_file(path)
    assert set(tensors) == {"means", "axes", "counts"}
    assert tensors["counts"].tolist() == first.y.bincount().tolist()


def test_what_was_learned_is_of_training_images_only(results):
    """A kernel density keeps its images: each is one of the first 100, none is a test image."""
    kept = load_file(results / "kde" / "generator.safetensors")["images"]
    digits = DATASETS.build(Spec("digits"))
    assert torch.equal(kept, digits.load("train", results).x[:100])
    test = {image.numpy().tobytes() for image in digits.load("test", results).x}
    assert not any(image.numpy().tobytes() in test for image in kept)


def test_samples_say_what_they_were_drawn_from(results, capsys):
    run = records.read(results / "kde-400")
    assert (run.parent, run.subject, run.n, run.seed) == ("kde", "kde:bandwidth=0.2", 400, 0)
    assert run.weights == records.read(results / "kde").fitted["sha256"]
    assert records.sha256(results / "kde-400" / run.samples["file"]) == run.samples["sha256"]
    with np.load(results / "kde-400" / "samples.npz", allow_pickle=False) as file:
        assert (file["image"].dtype, file["image"].shape) == (np.uint8, (400, 1, 8, 8))
        assert sorted(set(file["label"].tolist())) == list(range(10))
    capsys.readouterr()
    again = ["synth", "sample", "kde", "--n", "70", "--name", "again", "--quiet"]
    assert main([*again, "--out", str(results)]) == 0
    said = capsys.readouterr().out.strip()
    assert said == str(results / "again" / "samples.npz")
    with np.load(said) as few, np.load(results / "kde-400" / "samples.npz") as many:
        assert (few["image"] == many["image"][:70]).all()
        assert (few["label"] == many["label"][:70]).all()


def test_a_run_learns_from_them(results):
    """Half of each batch is the generator's, with its labels."""
    proxy = f"npz:{results / 'gaussian-400' / 'samples.npz'}"
    assert train(results, "proxy", "--extra-data", proxy) == 0
    run = records.read(results / "proxy")
    assert (run.status, run.dataset["train"], run.dataset["extra"]) == ("ok", 100, 400)
    assert run.config["extra"] == DATASETS.describe(DATASETS.build(Spec.parse(proxy)))
    assert train(results, "alone") == 0
    left, right = (weights(results, name)["head.weight"] for name in ("proxy", "alone"))
    assert not torch.equal(left, right)


def test_a_training_run_knows_the_images_by_the_fingerprint_in_their_record(results):
    path = results / "pixels-400" / "samples.npz"
    assert train(results, "known", "--extra-data", f"npz:{path}") == 0
    seen = records.read(results / "known").dataset
    assert seen["extra_sha256"] == records.read(results / "pixels-400").dataset["extra_sha256"]


def test_what_was_interrupted_goes_on_with_the_same_command(results, tmp_path):
    out = tmp_path / "results"
    fit = ["synth", "fit", "pixels", "--limit", "100", "--name", "pixels", "--quiet"]
    assert main([*fit, "--out", str(out)]) == 0
    record = records.read(out / "pixels")
    records.write(replace(record, status="interrupted"), out / "pixels")
    assert main([*fit, "--out", str(out)]) == 0
    assert records.read(out / "pixels").status == "ok"
    assert main([*fit, "--out", str(out)]) == 2


def test_a_share_of_nothing_is_plain_training_bit_for_bit(results):
    proxy = f"npz:{results / 'gaussian-400' / 'samples.npz'}"
    assert train(results, "none", "--extra-data", proxy, changes=["train.extra_share=0"]) == 0
    assert train(results, "plain") == 0
    left, right = (weights(results, name) for name in ("none", "plain"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert "extra" not in records.read(results / "none").dataset


def test_a_share_of_one_trains_on_them_alone(results, tmp_path):
    """Channel statistics and what selects remain those of the data set."""
    digits = DATASETS.build(Spec("digits"))
    first, test = digits.load("train", results).only(slice(100)), digits.load("test", results)
    arrays = {"image": first.x, "label": first.y, "image_test": test.x, "label_test": test.y}
    np.savez(tmp_path / "digits.npz", **{name: each.numpy() for name, each in arrays.items()})
    data = ["--dataset", f"npz:{tmp_path / 'digits.npz'}", "--model", "digits-cnn"]
    proxy = ["--extra-data", f"npz:{results / 'pixels-400' / 'samples.npz'}"]
    alone = ["train.extra_share=1", "train.validation=20", "train.select=best"]
    assert train(results, "all", *data, *proxy, changes=alone) == 0
    run = records.read(results / "all")
    assert (run.status, run.dataset["train"], run.dataset["extra"]) == ("ok", 100, 400)
    assert run.dataset["train_sha256"] == first.fingerprint()
    assert run.dataset["shape"]["mean"] == [round(first.images(slice(None)).mean().item(), 4)]
    assert run.checkpoint.rule == "best"
    assert all(0 <= row["val_clean"] <= 1 for row in run.history)


def test_images_without_labels_cannot_stand_alone(results, capsys):
    proxy = f"npz:{results / 'gaussian-400' / 'samples.npz'}"
    bare = ["train.extra_share=1", "train.extra_labels=none"]
    usual = [capsys, results, train, results, "x", "--extra-data", proxy]
    assert "leaves no label to learn from" in fails(*usual, changes=bare, defense="rst:steps=2")


def fails(capsys, folder, command, *args, **options):
    """The one line on standard error of a command that leaves nothing in ``folder``."""
    before = sorted(folder.iterdir())
    capsys.readouterr()
    assert command(*args, **options) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before
    return said.err


@pytest.mark.parametrize(
    ("share", "counts"),
    [
        ("0.005", "0 extra and 50 labelled"),
        ("0.995", "50 extra and 0 labelled"),
    ],
)
def test_a_share_that_leaves_one_of_the_two_out_is_refused(share, counts, results, capsys):
    proxy = f"npz:{results / 'gaussian-400' / 'samples.npz'}"
    usual = [capsys, results, train, results, "x", "--extra-data", proxy]
    assert counts in fails(*usual, changes=[f"train.extra_share={share}"])


def test_images_in_folders_are_labelled_by_the_names_of_their_classes(results, tmp_path, capsys):
    """Two classes of ten: the first folder is not class 0."""
    with np.load(results / "kde-400" / "samples.npz") as file:
        for label in (3, 7):
            (tmp_path / "train" / str(label)).mkdir(parents=True)
            for i, image in enumerate(file["image"][file["label"] == label][:9]):
                Image.fromarray(image[0]).save(tmp_path / "train" / str(label) / f"{i}.png")
    folder = ["--extra-data", f"folder:{tmp_path}"]
    assert train(results, "folders", *folder) == 0
    run = records.read(results / "folders")
    assert (run.status, run.dataset["extra"]) == ("ok", 18)
    (tmp_path / "train" / "7").rename(tmp_path / "train" / "seven")
    said = fails(capsys, results, train, results, "x", *folder)
    assert "a class 'seven', which the data set has not: it has 10, from '0' to '9'" in said


def test_it_is_listed_and_explained(capsys):
    assert main(["list", "generators"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("gaussian", "kde", "parzen", "pixels"))
    assert main(["show", "kde"]) == 0
    out = capsys.readouterr().out
    assert "advbench synth fit kde" in out
    assert "https://doi.org/10.1214/aoms/1177704472" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "gausian"], "did you mean 'gaussian'"),
        (["fit", "gaussian:components=0"], "'components'"),
        (["fit", "gaussian", "--limit", "0"], "Invalid value for '--limit'"),
        (["fit", "gaussian", "--dataset", "digitz"], "did you mean 'digits'"),
        (["fit", "kde", "--name", "a/b"], "--name 'a/b'"),
        (["fit", "kde", "--name", "gaussian"], "exists"),
        (["sample", "nothing"], "no synth run 'nothing'"),
        (["sample", "gaussian-400"], "has no generator; fit one: advbench synth fit"),
        (["sample", "gaussian", "--n", "0"], "Invalid value for '--n'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(args, message, results, capsys):
    command = ["synth", *args, "--out", str(results), "--quiet"]
    assert message in fails(capsys, results, main, command)


def test_a_generator_that_was_replaced_is_named(results, tmp_path, capsys):
    fit = ["synth", "fit", "pixels", "--name", "mine", "--out", str(tmp_path), "--quiet"]
    assert main(fit) == 0
    (tmp_path / "mine" / "generator.safetensors").write_bytes(b"nothing")
    sample = ["synth", "sample", "mine", "--out", str(tmp_path), "--quiet"]
    assert "is missing, damaged or was replaced" in fails(capsys, tmp_path, main, sample)
