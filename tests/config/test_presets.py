"""Every shipped preset resolves, is described, and builds."""

from functools import cache

import pytest
import torch

from robustbench_cli.commands import components, metric_config, train_config
from robustbench_cli.commands.training_task import training_task
from robustbench_cli.config import presets
from robustbench_cli.config.schema import spec_of, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import Recipe
from robustbench_cli.metric_learning import METRIC_DEFENSES
from robustbench_cli.metric_learning._embedder import build_embedder
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES

NAMES = presets.preset_names()
METRIC = [name for name in NAMES if presets.load_preset(name).get("task") == "metric"]
SHAPES = {"mnist": (1, 28, 10), "cifar100": (3, 32, 100), "folder": (3, 32, 1000)}


@cache
def running(config, shape):
    """A net that gives logits for such images; on the meta device one takes half a second."""
    with torch.device("meta"):
        model = MODELS.build(spec_of(dict(config))).build(shape)
        images = torch.empty(2, shape.channels, shape.height, shape.width)
        assert model(images).shape == (2, shape.classes)
    return model


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", sorted({*NAMES} - {*METRIC}))
def test_a_preset_resolves_and_builds(name, asking):
    config = train_config.resolve_train_config(asking(name), [])
    assert config.preset == name
    channels, side, classes = SHAPES.get(config.dataset["name"], (3, 32, 10))
    shape = Shape(channels, side, side, classes, (0.5,) * channels, (0.5,) * channels)
    model = running(tuple(config.model.items()), shape)
    recipe = Recipe.build(specs_of(config.defense))
    small = recipe.network(MODELS.build(spec_of({"name": "strided-cnn"})).build, shape)
    assert small(torch.rand(2, channels, side, side)).shape == (2, classes)
    assert list(config.defense) == list(
        components.defense_tables(components.recipe_label(config.defense))
    )
    optimizer = OPTIMIZERS.build(spec_of(config.optimizer)).build(model, config.train.lr)
    schedule = SCHEDULES.build(spec_of(config.schedule))
    rates = [schedule(i / config.train.epochs) for i in range(config.train.epochs)]
    assert max(rates) <= 1.0
    assert min(rates) >= 0.0
    assert optimizer.param_groups
    assert recipe.objective is not None


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", METRIC)
def test_a_preset_of_metric_learning_resolves_and_builds(name, asking):
    config = training_task(asking(name)).configure(asking(name), [])
    assert (config.preset, config.task) == (name, "metric")
    defense = metric_config.built(config.defense)
    assert METRIC_DEFENSES.describe(defense) == next(iter(config.defense.values()))
    channels, side, _ = SHAPES.get(config.dataset["name"], (1, 28, 10))
    shape = Shape(channels, side, side, 10, (0.5,) * channels, (0.5,) * channels)
    unit, dim = config.embedding.unit, config.embedding.dim
    with torch.device("meta"):
        net = build_embedder(MODELS.build(spec_of(config.model)), shape, dim, unit)
        assert net(torch.empty(2, channels, side, side)).shape == (2, dim)
    assert defense.margin_for(unit) == (0.2 if unit else 1.0)
    assert OPTIMIZERS.build(spec_of(config.optimizer)).build(net, config.train.lr).param_groups


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_and_where_from(name):
    lines = presets.preset_file(name).read_text().splitlines()
    comment = " ".join(line for line in lines if line.startswith("#"))
    assert lines[0].startswith("# ")
    assert "https://" in comment or name == "standard-mnist"
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", NAMES)
def test_smoke_scale_changes_sizes_and_nothing_else(name, asking):
    configure = training_task(asking(name)).configure
    full, small = (configure(asking(name), [], smoke=smoke) for smoke in (False, True))
    assert small.dataset == DATASETS.describe(DATASETS.build(spec_of({"name": "digits"})))
    if length := full.defense.get("cutout", {}).get("length"):  # of the images' own size
        full.defense["cutout"]["length"] = min(length, 4)
    for table in full.defense.values():  # what begins within the epochs that there are
        table |= {"begin": min(table["begin"], 6)} if "begin" in table else {}
    assert small.defense == full.defense
    assert small.optimizer == full.optimizer
    assert small.schedule == full.schedule
    assert small.threat == full.threat
    assert small.train.epochs <= 12
    assert small.train.limit <= 96
    assert small.train.lr <= 0.01
    assert small.train.select == full.train.select


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        ("trades-table5-cifar10", 0.031),
        ("awp-table2-trades-awp", 8 / 255),
        ("mmc-cifar10-at-resnet-110", 8 / 256),
    ],
)
def test_papers_that_use_another_radius_keep_it(name, eps):
    assert train_config.resolve_train_config({"preset": name}, []).threat.eps == eps


def test_lbgat_s_rate_begins_low_and_falls_twice():
    config = train_config.resolve_train_config({"preset": "lbgat-readme-lbgat0-cifar100"}, [])
    schedule = SCHEDULES.build(spec_of(config.schedule))
    rates = [config.train.lr * schedule(i / config.train.epochs) for i in range(100)]
    assert rates == pytest.approx([0.02] + 74 * [0.1] + 15 * [0.01] + 10 * [0.001])


@pytest.mark.parametrize("name", ["rslad-table-iad-cifar10", "rslad-table-iad-cifar100"])
def test_iad_trusts_its_teacher_wholly_at_first_in_a_smoke_run_too(name, asking):
    full, small = (
        train_config.resolve_train_config(asking(name), [], smoke=smoke) for smoke in (False, True)
    )
    assert (full.defense["iad"]["begin"], full.train.epochs) == (60, 200)
    assert 0 < small.defense["iad"]["begin"] < small.train.epochs


def test_a_base_is_refined_not_replaced(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'base = "awp-table2-trades-awp"\n[defense.trades]\nbeta = 1.0\n[train]\nlr = 0.05\n'
    )
    mine = train_config.resolve_train_config({"preset": str(tmp_path / "mine.toml")}, [])
    base = train_config.resolve_train_config({"preset": "awp-table2-trades-awp"}, [])
    assert mine.preset == "mine"
    assert list(mine.defense) == ["trades"]
    assert mine.defense["trades"] == base.defense["trades"] | {"beta": 1.0}
    assert (mine.train.lr, mine.train.epochs) == (0.05, 200)


def test_a_circle_of_bases_is_one_line(tmp_path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(f'base = "{two}"\n')
    two.write_text(f'base = "{one}"\n')
    with pytest.raises(UserError, match="its own base"):
        presets.load_preset(str(one))
