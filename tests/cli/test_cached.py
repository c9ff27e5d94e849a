"""``advbench cache`` shows and deletes what is kept, and nothing else."""

import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.cache_folder import cache_folder, remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_is_shown_and_cleared(folder, tmp_path, capsys):
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"0 B in {folder}\n"
    (folder / "decoded").mkdir(parents=True)
    (folder / "decoded" / "a.safetensors").write_bytes(bytes(2_500_000))
    remembered("key", lambda: {"a": 1})
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "precious").write_text("mine, too")
    (folder / "decoded" / "link").symlink_to(tmp_path / "precious")
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert f"2.5 MB in {folder}" in out
    assert "decoded      2.5 MB  1 file" in out
    assert main(["cache", "--clear"]) == 0
    assert f"freed 2.5 MB in {folder}" in capsys.readouterr().out
    left = {each.name for each in tmp_path.rglob("*") if each.is_file()}
    assert left == {"notes.txt", "precious", "link"}


def test_the_cache_lies_where_others_lie(monkeypatch, tmp_path):
    monkeypatch.delenv("ADVBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "advbench"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "advbench"


def test_what_is_remembered_is_computed_once(folder):
    calls = []

    def compute():
        calls.append(1)
        return {"n": len(calls)}

    assert [remembered("k", compute)["n"] for _ in range(3)] == [1, 1, 1]
    assert remembered("k", compute, lambda found: found["n"] > 1) == {"n": 2}
    (folder / "facts" / "k.json").write_text("[]")
    assert remembered("k", compute) == {"n": 3}


def test_showing_the_cache_needs_no_torch(without_torch):
    done = without_torch("cache")
    assert done.returncode == 0, done.stderr
