"""Records while they are written: one process at a time, nothing older over anything newer."""

import json

import pytest

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
