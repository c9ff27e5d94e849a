"""No two rows of a table look alike: whatever they differ in is shown."""

from dataclasses import replace

import pytest

from robustbench_cli.cli import main
from robustbench_cli.report.robustness_table import rows

FGSM = {"name": "fgsm", "steps": 1, "step": 1.0}


@pytest.fixture
def shown(trained, evaluated):
    """Make two rows and return what each shows of a fact.

    The pairs of changes are of the records of the trainings, then of the evaluations.
    """

    def make(fact, *, training=({}, {}), evaluation=({}, {}), **same):
        runs = []
        for before, after in zip(training, evaluation, strict=True):
            config = before.get("config", {})
            parent = trained(**config)
            changes = {key: value for key, value in before.items() if key != "config"}
            parent = replace(parent, **changes) if changes else parent
            runs += [parent, evaluated(parent, {"fgsm": (FGSM, 50)}, **{**same, **after})]
        first, second = rows(runs)
        looks = [
            tuple(row.facts[key].text for key in row.facts if key != "seeds")
            for row in (first, second)
        ]
        assert looks[0] != looks[1]
        return [row.facts[fact].text for row in (first, second)]

    return make


@pytest.fixture
def data(trained, evaluated):
    """Two rows of one model on two data sets, each as (sha256, settings); their names."""

    def make(*found):
        parent = trained()
        runs = [parent]
        for sha, dataset in found:
            run = evaluated(parent, {"fgsm": (FGSM, 50)})
            recorded = {"name": dataset["name"], "test": 100, "test_sha256": sha}
            runs.append(replace(run, config={**run.config, "dataset": dataset}, dataset=recorded))
        return [row.facts["dataset"].text for row in rows(runs)]

    return make


def test_parameters_of_a_data_set(data):
    photos = {"name": "folder", "path": "/data/photos"}
    assert data(("a", photos | {"size": None}), ("b", photos | {"size": 32})) == [
        "folder:photos",
        "folder:photos,size=32",
    ]
    sizes = ("a", photos | {"size": 64}), ("b", photos | {"size": 32})
    assert data(*sizes) == ["folder:photos,size=64", "folder:photos,size=32"]


def test_paths_that_end_alike(data):
    paths = "/data/cats/photos", "/data/dogs/photos", "/other/dogs/photos"
    found = [(path, {"name": "folder", "path": path}) for path in paths]
    assert data(*found[:2]) == ["folder:cats/photos", "folder:dogs/photos"]
    assert data(*found) == [
        "folder:data/cats/photos",
        "folder:data/dogs/photos",
        "folder:other/dogs/photos",
    ]
    assert data(found[0]) == ["folder:photos"]


def test_images_that_changed_under_the_same_name(data):
    assert data(("0123456789", {"name": "mnist"}), ("abcdef0123", {"name": "mnist"})) == [
        "mnist:test=01234567",
        "mnist:test=abcdef01",
    ]


def test_one_model_evaluated_on_one_data_set_in_two_places_is_one_row(data):
    paths = "/data/cats/photos", "/copy/photos"
    assert data(*[("same", {"name": "folder", "path": path}) for path in paths]) == [
        "folder:photos"
    ]


def test_radii_that_are_written_alike(shown):
    assert shown("eps", evaluation=({"eps": 8 / 255}, {"eps": 0.031372549})) == [
        f"Linf {0.031372549!r}",
        f"Linf {8 / 255!r}",
    ]


def test_settings_of_the_training(shown):
    kinds = ({"config": {"precision": "float32"}}, {"config": {"precision": "bf16"}})
    assert shown("defense", training=kinds) == [
        "trades (precision=float32)",
        "trades (precision=bf16)",
    ]


def test_numbers_that_are_written_alike(shown):
    rates = ({"config": {"train": {"lr": 0.1}}}, {"config": {"train": {"lr": 0.1 + 1e-9}}})
    assert shown("defense", training=rates) == [
        "trades (train.lr=0.1)",
        "trades (train.lr=0.100000001)",
    ]


def test_options_of_a_model_such_as_its_batch_normalisation(shown):
    models = [
        {"config": {"model": {"name": "resnet-18", "norm": norm, "momentum": 0.1}}}
        for norm in ("batch", "batch-without-statistics")
    ]
    assert shown("model", training=models) == [
        "resnet-18:norm=batch",
        "resnet-18:norm=batch-without-statistics",
    ]


def test_the_data_of_the_training(shown):
    def of(**sha):
        return {"dataset": {"name": "mnist", "test_sha256": "f", "train_sha256": "t", **sha}}

    kinds = of(train_sha256="0123456789"), of(train_sha256="abcdef0123")
    assert shown("defense", training=kinds) == [
        "trades (trained on=01234567)",
        "trades (trained on=abcdef01)",
    ]
    kinds = of(extra_sha256="0123456789"), of(extra_sha256="abcdef0123")
    assert shown("defense", training=kinds) == [
        "trades (extra data=01234567)",
        "trades (extra data=abcdef01)",
    ]


def test_a_fourth_difference_is_shown_where_three_do_not_suffice(trained, evaluated):
    usual = {"epochs": 30, "lr": 0.1, "batch": 128, "decay": 0.0}
    changes = [{}, {"epochs": 5, "lr": 0.2, "batch": 64}]
    changes.append({**changes[1], "decay": 0.1})
    parents = [trained(train=usual | change) for change in changes]
    found = rows([*parents, *(evaluated(each, {"fgsm": (FGSM, 50)}) for each in parents)])
    names = [row.facts["defense"].text for row in found]
    assert names == [
        "trades (train.epochs=30, train.lr=0.1, train.batch=128, train.decay=0)",
        "trades (train.epochs=5, train.lr=0.2, train.batch=64, train.decay=0)",
        "trades (train.epochs=5, train.lr=0.2, train.batch=64, train.decay=0.1)",
    ]


def test_weights_of_models_of_the_user_s_own(trained, evaluated):
    made = trained("net.py:make")
    runs = [
        evaluated(made, {"fgsm": (FGSM, 50)}, parent=None, weights="abcdefgh" + tail)
        for tail in ("1", "2")
    ]
    names = [row.facts["defense"].text for row in rows(runs)]
    assert names == [f"net.py:make (run={run.id})" for run in runs]


def test_the_file_that_builds_a_model_of_the_user_s_own(trained, evaluated):
    made = trained("net.py:make")
    runs = [
        evaluated(made, {"fgsm": (FGSM, 50)}, parent=None, weights=f"abcdefgh1+{file}")
        for file in ("0123456789", "abcdef0123")
    ]
    assert [row.facts["defense"].text for row in rows(runs)] == [
        "net.py:make (file=01234567)",
        "net.py:make (file=abcdef01)",
    ]


def test_parameters_of_attacks_have_columns_that_differ(trained, evaluated):
    parent = trained()
    found = [evaluated(parent, {"fgsm": (FGSM | {"step": step}, 50)}) for step in (1.0, 1.0 + 1e-9)]
    (row,) = rows([parent, *found])
    assert list(row.cells) == [
        "clean",
        "fgsm:step=1.0",
        "fgsm:step=1.000000001",
        "worst",
        "minutes",
    ]


def test_a_data_set_is_found_by_its_own_name_and_by_the_one_that_is_shown(
    trained, evaluated, kept, tmp_path, capsys
):
    parent = trained()
    kept(tmp_path, parent)
    for sha, size in (("a", 32), ("b", 64)):
        run = evaluated(parent, {"fgsm": (FGSM, size)})
        config = {**run.config, "dataset": {"name": "folder", "path": "/x/photos", "size": size}}
        data = {"name": "folder", "test": 100, "test_sha256": sha}
        kept(tmp_path, replace(run, config=config, dataset=data))
    for name, lines in (("folder:photos", 2), ("folder:photos,size=64", 1)):
        command = ["report", "--results", str(tmp_path), "-f", "csv", "--dataset", name]
        assert main(command) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + lines
