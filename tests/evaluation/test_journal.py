"""Verdicts survive on disk, and a damaged file is named."""

import numpy as np
import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation import journal as module
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.journal import Journal, read_arrays, write_arrays
from robustbench_cli.evaluation.stages import AttackVerdicts


def found(rows, broken=(), cost=5):
    """What a stage says of some examples; those in ``broken`` fell."""
    rows = torch.tensor(rows)
    fell = torch.isin(rows, torch.tensor(broken, dtype=torch.long))
    none = torch.zeros_like(rows)
    return StageResult(
        rows=rows,
        broken=fell,
        x=torch.zeros(len(rows), 1, 2, 2),
        prediction=torch.where(fell, 100 + rows, rows),
        share=(~fell).float(),
        margin=torch.where(fell, 1.0, -1.0),
        norm=torch.rand(len(rows)),
        step=torch.where(fell, 3, -1),
        forwards=none + cost,
        backwards=none + cost - 1,
        zero_gradient_at_start=rows % 2 == 1,
        diagnostics=torch.zeros(len(rows), 0),
    )


def put(journal, name, column, stage, *args, **more):
    seen = found(*args, **more)
    column.put(stage, seen, minimal=False)
    journal.moved(name, column, seen.rows.numpy())


def same(a, b):
    return all(np.array_equal(a.arrays[key], b.arrays[key]) for key in a.arrays)


def test_what_was_flushed_is_read_back(tmp_path):
    journal, column = Journal(tmp_path, 10), AttackVerdicts.empty(10)
    put(journal, "1", column, 0, [0, 1, 2, 3], broken=[2])
    journal.flush("1", column)
    put(journal, "1", column, 0, [9, 8])
    journal.flush("1", column)
    again, seconds = Journal(tmp_path, 10).column("1")
    assert same(again, column)
    assert again.arrays["prediction"].tolist() == [0, 1, 102, 3, -1, -1, -1, -1, 8, 9]
    assert again.broken.tolist() == [False, False, True, *[False] * 7]
    assert again.arrays["forwards"].sum() == 30
    assert seconds == pytest.approx(journal.spent)
    assert seconds > 0
    empty, seconds = Journal(tmp_path, 10).column("2")
    assert same(empty, AttackVerdicts.empty(10))
    assert not seconds


def test_a_journal_from_before_a_column_came_is_read(tmp_path):
    journal, column = Journal(tmp_path, 4), AttackVerdicts.empty(4)
    put(journal, "1", column, 0, [0, 1, 2, 3], broken=[2])
    journal.flush("1", column)
    (file,) = (tmp_path / "journal").iterdir()
    write_arrays(file, {key: held for key, held in read_arrays(file).items() if key != "flat"})
    again, _ = Journal(tmp_path, 4).column("1")
    assert again.arrays["by"].tolist() == [-1, -1, 0, -1]
    assert not again.arrays["flat"].any()
    assert column.arrays["flat"].any()


def test_what_was_not_flushed_is_lost_and_no_more(tmp_path, monkeypatch):
    journal, column = Journal(tmp_path, 10), AttackVerdicts.empty(10)
    put(journal, "1", column, 0, [0, 1])
    journal.flush("1", column)
    kept = AttackVerdicts({key: values.copy() for key, values in column.arrays.items()})
    put(journal, "1", column, 0, [2, 3])
    assert same(Journal(tmp_path, 10).column("1")[0], kept)
    monkeypatch.setattr(module, "FLUSH", -1.0)  # now it is time to, at every move
    put(journal, "1", column, 0, [4])
    assert same(Journal(tmp_path, 10).column("1")[0], column)


def test_the_later_of_two_states_holds(tmp_path):
    """Whatever the order of the files' names: rows of a later stage may begin anywhere."""
    journal, column = Journal(tmp_path, 4), AttackVerdicts.empty(4)
    put(journal, "1", column, 0, [2, 3], broken=[3])
    journal.flush("1", column)
    put(journal, "1", column, 0, [0, 1])
    put(journal, "1", column, 1, [2], broken=[2])
    journal.flush("1", column)
    put(journal, "1", column, 1, [0, 1], broken=[1])
    journal.flush("1", column)
    again, _ = Journal(tmp_path, 4).column("1")
    assert same(again, column)
    assert again.arrays["by"].tolist() == [-1, 1, 1, 0]
    assert again.arrays["stages"].tolist() == [2, 2, 2, 1]
    assert again.arrays["forwards"].tolist() == [10, 10, 10, 5]


def test_two_processes_keep_one_journal(tmp_path):
    whole = AttackVerdicts.empty(6)
    for first in (0, 1):
        journal, column = Journal(tmp_path, 6), AttackVerdicts.empty(6)
        put(journal, "1", column, 0, [first, first + 2, first + 4], broken=[first])
        journal.flush("1", column)
        for key in whole.arrays:
            whole.arrays[key][first::2] = column.arrays[key][first::2]
    assert same(Journal(tmp_path, 6).column("1")[0], whole)


def test_one_attack_s_verdicts_are_not_another_s(tmp_path):
    journal, column = Journal(tmp_path, 3), AttackVerdicts.empty(3)
    put(journal, "11", column, 0, [0, 1])
    journal.flush("11", column)
    assert same(Journal(tmp_path, 3).column("1")[0], AttackVerdicts.empty(3))


def test_a_damaged_file_is_named(tmp_path):
    journal, column = Journal(tmp_path, 10), AttackVerdicts.empty(10)
    put(journal, "1", column, 0, [0, 1, 2, 3])
    journal.flush("1", column)
    (path,) = (tmp_path / "journal").iterdir()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=path.name):
        journal.column("1")


def test_closing_leaves_one_file_and_its_hash(tmp_path):
    journal, column = Journal(tmp_path, 4), AttackVerdicts.empty(4)
    put(journal, "0", column, 0, [0, 1, 2, 3])
    journal.flush("0", column)
    said = journal.close({"pgd40:step=1/30/prediction": np.arange(4)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["examples.npz", "journal"]
    journal.drop()
    assert [p.name for p in tmp_path.iterdir()] == ["examples.npz"]
    assert len(said["sha256"]) == 64
    loaded = read_arrays(tmp_path / "examples.npz")
    assert loaded["pgd40:step=1/30/prediction"].tolist() == [0, 1, 2, 3]


def test_arrays_never_unpickle(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(UserError, match=r"x\.npz"):
        read_arrays(tmp_path / "x.npz")
    assert write_arrays(tmp_path / "y.npz", {"a": np.zeros(3)}).name == "y.npz"
