"""``advbench show``: one name explained."""

import re
from dataclasses import replace

import pytest

from robustbench_cli.config import catalogue, presets
from robustbench_cli.runs import records
from robustbench_cli.runs.trust import Finding


def facts(text):
    """The two-column part of an explanation."""
    return dict(re.findall(r"^(\w+(?: \w+)?) {2,}(\S.*)$", text, re.MULTILINE))


def test_a_short_form_is_resolved(said):
    out = said("show", "pgd100")
    assert out.startswith("pgd100  attack\nIterated steepest ascent")
    assert facts(out)["means"] == "pgd:steps=100"
    assert facts(out)["also"] == "pgd<steps>"
    assert facts(out)["paper"] == "Projected gradient descent (Madry et al., 2018)"
    assert facts(out)["link"] == "https://arxiv.org/abs/1706.06083"
    assert facts(out)["example"] == "advbench eval --attack pgd100"
    assert re.search(r"^steps +int >= 1 +20 +100 +Gradient steps$", out, re.MULTILINE)


def test_parameters_are_resolved(said):
    out = said("show", "trades:beta=1")
    assert re.search(r"^beta +number >= 0 +6 +1 +Weight of the boundary term", out, re.MULTILINE)
    assert "means" not in facts(out)
    assert facts(said("show", "at"))["means"] == "pgd-at"


def test_without_parameters_only_the_defaults_are_shown(said):
    out = said("show", "trades")
    assert re.search(r"^parameter +type +default +meaning$", out, re.MULTILINE)
    assert facts(out)["example"] == "advbench train trades"


def test_every_part_of_a_defense_is_explained(said):
    out = said("show", "trades+awp")
    assert re.findall(r"^(\w+)  (objective|modifier)$", out, re.MULTILINE) == [
        ("trades", "objective"),
        ("awp", "modifier"),
    ]
    assert "advbench train trades+awp" in out


def test_what_a_dataset_brings_along_is_shown(said):
    out = said("show", "cifar10")
    assert "Linf=8/255" in facts(out)["usual"]
    assert "preact-resnet-18" in facts(out)["usual"]
    assert facts(said("show", "folder"))["example"].endswith("--dataset folder:PATH")
    assert facts(said("show", "apgd-t"))["usual"] == "at least 4 classes"


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_is_shown_as_it_is_written(said, name):
    out = said("show", name)
    path = presets.preset_file(name)
    assert facts(out)["file"] == str(path)
    assert path.read_text() in out
    above = " ".join(out.partition("\n\n# ")[0].split())
    said_of_it = presets.preset_source(name)
    assert [*said_of_it] == ["official", "departs", "unknown"]
    for line, text in said_of_it.items():
        assert f" {line} {text} " in above
    needed = presets.as_typed(presets.needs(name))
    assert facts(out).get("needs", "") == ", ".join(needed)
    assert facts(out)["example"] == " ".join([f"advbench train --preset {name}", *needed])


@pytest.mark.parametrize(
    ("folder", "kind", "example"),
    [("suites", "suite", "advbench eval --suite "), ("studies", "study", "advbench study ")],
)
def test_suites_and_studies_are_shown_as_they_are_written(said, folder, kind, example):
    for name in presets.preset_names(folder):
        out = said("show", name)
        assert out.startswith(f"{name}  {kind}\n")
        assert presets.preset_file(name, folder).read_text() in out
        assert facts(out)["example"] == example + name


@pytest.mark.parametrize("folder", ["suites", "studies"])
def test_the_base_of_a_suite_or_study_is_no_preset(said, tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "first.toml").write_text("[attack.pgd]\n")
    text = 'base = "first"\n[attack.fgsm]\n'
    (tmp_path / folder / "second.toml").write_text(text)
    monkeypatch.setattr(presets, "folder", lambda *_: tmp_path)
    out = said("show", "second")
    assert text in out
    assert "needs" not in facts(out)


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize(
    "name", [item.name for kind in catalogue.REGISTRIES for item in catalogue.scan(kind)]
)
def test_everything_listed_is_explained(said, name):
    out = said("show", name)
    assert out.startswith(f"{name}  ")
    assert facts(out)["example"].startswith("advbench ")


@pytest.mark.parametrize("name", ["trades-digits-s3-20260101-1200-4f1a", "4f1a", "trades-dig"])
def test_a_run_is_summed_up(said, results, name):
    out = said("show", name)
    assert out.startswith("trades-digits-s3-20260101-1200-4f1a  train run, ok")
    told = facts(out)
    assert told["folder"] == str(results / "trades-digits-s3-20260101-1200-4f1a")
    assert told["command"] == "advbench train trades --set 'train.limit=200 '"
    assert told["weights"] == "model.safetensors, epoch 2 (last)"
    assert told["defense"] == "trades: name=trades, beta=6; awp: name=awp"
    assert told["threat"] == "norm=Linf, eps=8/255"
    assert told["accuracy"].startswith("epoch 2/2  train: clean 75.0%")
    assert "preset" not in told


def test_an_evaluation_names_the_run_it_is_of(said):
    told = facts(said("show", "77aa"))
    assert told["trained by"] == "trades-digits-s3-20260101-1200-4f1a, seed 3"
    assert told["accuracy"] == "clean 90.00%  pgd20 52.00%"
    assert told["examples"] == "100"


def test_a_run_is_found_by_its_path_and_its_name_is_no_markup(said, results):
    assert said("show", str(results / "[bold]x")).startswith("[bold]x  train run, failed")
    assert said("show", "[bold]x").startswith("[bold]x  train run, failed")


def test_a_name_of_several_kinds_shows_each(said, results):
    run = records.read(results / "[bold]x")
    (results / "trades").mkdir()
    records.write(run, results / "trades")
    out = said("show", "trades")
    assert "trades  objective\n" in out
    assert "[bold]x  train run, failed\n" in out


def test_mistakes_cost_one_line(refused):
    assert refused("show", "tradse") == "unknown name 'tradse'; did you mean 'trades'?"
    assert refused("show", "wnr") == "unknown name 'wnr'; did you mean 'wrn'?"
    assert refused("show", "?") == "unknown name '?'; see advbench list"
    assert refused("show", "trades+awpp").startswith("unknown name 'trades+awpp'")
    assert refused("show", "20260101").startswith("run '20260101' is ambiguous: eval-trades")
    assert "no parameter 'btea'; did you mean 'beta'?" in refused("show", "trades:btea=1")
    assert "greater than or equal to 1" in refused("show", "pgd0")


def test_a_check_tells_what_it_needs_costs_and_says(said):
    out = said("show", "secant")
    for line in (
        "severity  warning: the robust accuracy is an upper bound",
        "concerns  robust accuracy",
        "needs     gradients",
        "example   advbench eval --attack pgd20",
    ):
        assert line in out.splitlines()
    assert "passes for each image" in out
    assert "{" not in out
    assert "example   advbench audit" in said("show", "unbounded").splitlines()
    assert "concerns  robust and clean accuracy" in said("show", "neighbours")


def test_what_was_found_is_told_of_a_run(results, said):
    (file,) = results.glob("eval-*/run.json")
    run = records.read(file.parent)
    lies = Finding(check="secant", severity="warning", message="gradients lie", accuracy=0.13)
    bound = replace(run.attacks["pgd20"], trust="upper bound")
    records.write(replace(run, attacks={"pgd20": bound}, findings=[lies]), file.parent)
    out = said("show", run.id)
    assert "clean 90.00%  pgd20 ≤52.00% (13.00% found)" in out
    assert "warning: secant: gradients lie (all attacks)" in out
    assert "≤52.00% (13.00% found)" in said("list", "runs")
    assert "advbench show RUN says why" in said("list", "runs")


@pytest.mark.parametrize(("asked", "text"), [(0, "all (100)"), (64, "64")])
def test_the_number_of_images_is_told_where_all_were_asked_for(results, said, asked, text):
    (file,) = results.glob("eval-*/run.json")
    run = records.read(file.parent)
    records.write(replace(run, config={**run.config, "n": asked}), file.parent)
    assert facts(said("show", run.id))["n"] == text
    assert "n" not in facts(said("show", "trades-dig"))
