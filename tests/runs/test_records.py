"""Records while they are written: one process at a time, nothing older over anything newer."""

import json

import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.runs import recorder, records


def test_what_another_process_has_finished_meanwhile_is_not_begun_again(trained, tmp_path):
    with recorder.recording(trained(id="one"), tmp_path):
        read_by_the_second = records.read(tmp_path)
        with (
            pytest.raises(UserError, match="being written"),
            recorder.recording(read_by_the_second, tmp_path),
        ):
            pass
    finished = (tmp_path / "run.json").read_bytes()
    with (
        pytest.raises(UserError, match="'one' was changed by another process: try again"),
        recorder.recording(read_by_the_second, tmp_path),
    ):
        pass
    assert (tmp_path / "run.json").read_bytes() == finished


def test_what_was_interrupted_is_taken_up(trained, tmp_path):
    with pytest.raises(KeyboardInterrupt), recorder.recording(trained(id="one"), tmp_path):
        raise KeyboardInterrupt
    with recorder.recording(records.read(tmp_path), tmp_path):
        pass
    assert records.read(tmp_path).status == "ok"


def test_a_record_without_what_later_ones_have_is_read_as_it_is(trained, evaluated, tmp_path):
    """Fields are only ever added; an outcome had no stages before."""
    record = evaluated(trained(), {"aa": ({"name": "autoattack"}, 40, {"stages": ["apgd-ce"]})})
    file = records.write(record, tmp_path)
    values = json.loads(file.read_text())
    assert values["attacks"]["aa"].pop("stages") == ["apgd-ce"]
    file.write_text(json.dumps(values))
    assert records.read(tmp_path).attacks["aa"].stages == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("attacks", "aa", "params", "name"), ["autoattack"], "attacks.aa.name"),
        (("config", "dataset", "name"), {"a": 1}, "dataset"),
        (("config", "model", "name"), {}, "model"),
        (("config", "optimizer"), {"name": {"a": 1}}, "config.optimizer.name"),
        (("config", "anything"), [{"deep": 1e400}], "config.anything.0.deep: inf"),
        (("environment", "seconds"), 1e400, "environment.seconds: inf"),
    ],
)
def test_a_free_field_with_an_impossible_value_is_named(
    trained, evaluated, tmp_path, path, value, message
):
    record = evaluated(trained(), {"aa": ({"name": "autoattack"}, 40)})
    file = records.write(record, tmp_path)
    values = json.loads(file.read_text())
    *parents, last = path
    inside = values
    for key in parents:
        inside = inside[key]
    inside[last] = value
    file.write_text(json.dumps(values).replace("Infinity", "1e400"))
    with pytest.raises(UserError, match=f"run.json is damaged.*{message}"):
        records.read(tmp_path)


def test_a_table_leaves_out_an_evaluation_whose_counts_contradict_each_other(
    trained, evaluated, tmp_path, capsys
):
    parent = trained()
    good = evaluated(parent, {"aa": ({"name": "autoattack"}, 40)}, n=100)
    for folder, n in (("good", 100), ("bad", 5)):
        file = records.write(good, new_folder(tmp_path / folder))
        values = json.loads(file.read_text()) | {"n": n, "id": folder}
        file.write_text(json.dumps(values))
    records.write(parent, new_folder(tmp_path / "parent"))
    assert main(["report", "--results", str(tmp_path), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert ",100,1,0.9,,sound,0.4,,sound" in out
    assert "attacks.aa: 100 examples in an evaluation of 5" in err


def new_folder(path):
    path.mkdir()
    return path
