"""When two training runs were made in the same way."""

from dataclasses import replace

import pytest

from robustbench_cli.report import seed_groups
from robustbench_cli.runs.records import Run


@pytest.fixture
def drawn(trained):
    """A maker of records of a generator's images, known by their fingerprint."""

    def make(fingerprint, seed=0, n=5000, generator="gaussian"):
        return Run(
            id=f"{generator}-{seed}",
            kind="synth",
            status="ok",
            created=trained().created,
            command=["synth"],
            config={"generator": {generator: {"name": generator}}, "n": n, "seed": seed},
            seed=seed,
            subject=generator,
            dataset={"name": "mnist", "extra": n, "extra_sha256": fingerprint},
            samples={"file": "samples.npz", "sha256": "f"},
        )

    return make


@pytest.fixture
def fed(trained):
    """A maker of training runs on extra images, each from a file of its own."""

    def make(fingerprint, seed=0):
        run = trained(seed=seed, extra={"name": "npz", "path": f"{fingerprint}.npz"})
        return replace(run, dataset={**run.dataset, "extra": 5000, "extra_sha256": fingerprint})

    return make


def keys(*runs):
    return [seed_groups.group_key(run) for run in seed_groups.trained(runs).values()]


def test_images_drawn_by_the_same_generator_under_another_seed_are_the_same_recipe(drawn, fed):
    one, two = keys(drawn("a", 0), drawn("b", 1), fed("a", 0), fed("b", 1))
    assert one == two


@pytest.mark.parametrize("changes", [{"n": 400}, {"generator": "pixels"}])
def test_other_images_are_another_recipe(drawn, fed, changes):
    one, two = keys(drawn("a"), drawn("b", 1, **changes), fed("a"), fed("b", 1))
    assert one != two


def test_images_that_nobody_knows_the_origin_of_are_told_apart_by_what_they_are(fed):
    one, two, three = fed("a", 0), fed("b", 1), fed("a", 2)
    same = replace(three, config={**three.config, "extra": one.config["extra"]})
    first, second, third = keys(one, two, same)
    assert first == third != second


def test_a_run_without_extra_images_has_nothing_to_do_with_a_generator(drawn, trained):
    """Samples of an earlier version have no fingerprint: they are no run's extra images."""
    old = drawn("a")
    del old.dataset["extra_sha256"]
    (found,) = seed_groups.trained([old, run := trained()]).values()
    assert found.config == run.config


@pytest.mark.parametrize(
    ("subject", "defense", "name"),
    [
        ("trades", {"trades": {"beta": 6}}, "trades"),
        ("gce", {"gce": {"variant": "paper"}}, "gce:variant=paper"),
        ("gce:variant=code", {"gce": {"variant": "code"}}, "gce:variant=code"),
        (
            "ard:steps=2+amp",
            {"ard": {"variant": "code"}, "amp": {"variant": "paper"}},
            "ard:steps=2,variant=code+amp:variant=paper",
        ),
    ],
)
def test_tables_tell_which_variant_it_is_whether_or_not_it_was_asked_for(
    trained, subject, defense, name
):
    run = trained(subject, defense=defense)
    assert seed_groups.display_name(run) == name
    assert seed_groups.trained([run])[run.id].subject == name
