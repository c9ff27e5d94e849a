"""Verdicts survive on disk, and a damaged file is named."""

import numpy as np
import pytest
import torch

from robustbench_cli.engine.evaluate import Verdicts
from robustbench_cli.engine.journal import Journal, read_arrays, write_arrays
from robustbench_cli.errors import UserError


def batch(n, first):
    return Verdicts(
        prediction=torch.arange(first, first + n),
        norm=torch.rand(n),
        step=torch.full((n,), 3),
        forwards=5 * n,
        backwards=4 * n,
        seconds=0.5,
    )


def test_what_was_appended_is_read_back(tmp_path):
    journal = Journal(tmp_path, 10)
    journal.append("1", slice(0, 4), batch(4, 0))
    journal.append("1", slice(8, 10), batch(2, 8))
    column = Journal(tmp_path, 10).column("1")
    assert column.done == {0, 8}
    assert column.arrays["prediction"].tolist() == [0, 1, 2, 3, -1, -1, -1, -1, 8, 9]
    assert (column.forwards, column.backwards, column.seconds) == (30, 24, 1.0)
    assert not Journal(tmp_path, 10).column("2").done


def test_a_damaged_batch_is_named(tmp_path):
    journal = Journal(tmp_path, 10)
    journal.append("1", slice(0, 4), batch(4, 0))
    (path,) = (tmp_path / "journal").iterdir()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=path.name):
        journal.column("1")


def test_closing_leaves_one_file_and_its_hash(tmp_path):
    journal = Journal(tmp_path, 4)
    journal.append("0", slice(0, 4), batch(4, 0))
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
