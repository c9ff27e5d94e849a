"""Images in files: read when needed, kept when decoded, streamed where they are many."""

import gc
import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split, decode, encoded

COUNT = 90


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def top(tmp_path, picture) -> Path:
    for name in ("ant", "bee"):
        folder = tmp_path / "set" / "test" / name
        folder.mkdir(parents=True)
        for i in range(COUNT // 2):
            (folder / f"{i}.png").write_bytes(picture(i + 100 * (name == "bee")))
    return tmp_path / "set"


@pytest.fixture
def opened(monkeypatch) -> list[int]:
    """The number of images of each call of the decoder."""
    calls = list[int]()

    def spy(name, images, wanted):
        calls.append(len(images))
        return decode.decode(name, images, wanted)

    monkeypatch.setattr(encoded, "decode", spy)
    return calls


def load(top: Path) -> Split:
    return DATASETS.build(Spec.parse(f"folder:{top}")).load("test", Path())


def test_only_what_is_asked_for_is_decoded_and_only_once(top, cache, opened, monkeypatch):
    four = load(top).only(slice(4)).to("cpu")
    assert opened == [4]
    assert torch.equal(load(top).only(slice(4)).to("cpu").x, four.x)
    assert opened == [4]
    ten = load(top).only(slice(10)).to("cpu")
    assert opened == [4, 6]
    last = load(top).only(torch.tensor([89, 3, 50])).to("cpu")
    assert opened == [4, 6, 2]
    monkeypatch.setenv("ADVBENCH_CACHE", str(cache / "other"))
    fresh = load(top).to("cpu")
    assert torch.equal(fresh.x[:10], ten.x)
    assert torch.equal(fresh.x[[89, 3, 50]], last.x)


def test_fingerprints_need_no_decoding_and_tell_subsets_apart(top, cache, opened):
    whole = load(top).fingerprint()
    first = load(top).only(slice(4)).fingerprint()
    assert (len(opened), whole != first) == (0, True)
    assert load(top).to("cpu").fingerprint() == whole
    assert load(top).only(slice(4)).to("cpu").fingerprint() == first
    moved = top.with_name("moved")
    top.rename(moved)
    assert load(moved).fingerprint() == whole


def test_a_changed_file_is_noticed(top, cache, picture):
    before = load(top).to("cpu")
    place = before.names.index("test/ant/0.png")
    file = top / "test/ant/0.png"
    file.write_bytes(picture(999))
    after = load(top).to("cpu")
    assert after.fingerprint() != before.fingerprint()
    assert (after.x != before.x).flatten(1).any(1).nonzero().flatten().tolist() == [place]


@pytest.mark.parametrize("harm", ["cut", "bit", "text", "other"])
def test_a_damaged_cache_is_made_again_with_a_word(top, cache, opened, harm):
    before = load(top).to("cpu")
    (file,) = (cache / "decoded").iterdir()
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    if harm == "other":
        rows = {"rows": torch.arange(3), "images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}
        safetensors.torch.save_file(rows, file)
    else:
        kinds = {"cut": file.read_bytes()[:-9], "bit": bytes(content), "text": b"nothing"}
        file.write_bytes(kinds[harm])
    for fact in (cache / "facts").iterdir():
        fact.write_text("{")
    again = load(top).to("cpu")
    assert torch.equal(again.x, before.x)
    assert again.fingerprint() == before.fingerprint()
    assert (len(opened), len(again.notes)) == (2, 1)
    assert f"the cached images in {file} were damaged" in again.notes[0]
    assert load(top).to("cpu").notes == ()


def test_a_cache_that_cannot_be_written_is_no_error(top, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ADVBENCH_CACHE", str(tmp_path / "file" / "cache"))
    found = load(top).to("cpu")
    assert len(found.x) == COUNT
    assert "decoded images are not kept: " in found.notes[0]


@pytest.fixture
def streamed(top, cache, monkeypatch) -> Split:
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "0")
    return load(top).to("cpu")


def test_streamed_images_are_the_same_in_any_order(streamed, monkeypatch, top):
    assert not isinstance(streamed.stored, torch.Tensor)
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "99")
    whole = load(top).to("cpu")
    assert isinstance(whole.stored, torch.Tensor)
    assert streamed.fingerprint() == whole.fingerprint()
    order = torch.randperm(COUNT)
    drawn = torch.get_rng_state()
    streamed.expect(order)
    assert torch.equal(torch.get_rng_state(), drawn)  # what a net draws next stays the same
    taken = 0
    for size in (7, 1, 30, 40, 12):
        rows = order[taken : taken + size]
        assert torch.equal(streamed.images(rows), whole.images(rows))
        other = torch.tensor([5, 2])  # not the next ones: read without them
        assert torch.equal(streamed.images(other), whole.images(other))
        taken += size
    assert streamed.stored._ahead[0]._loader is None  # all were taken: the workers are gone
    streamed.expect(order)
    streamed.expect(order.flip(0))  # a new order replaces the old one
    assert torch.equal(streamed.images(order.flip(0)[:20]), whole.images(order.flip(0)[:20]))
    mask = torch.arange(COUNT) % 7 == 0
    few, of_whole = streamed.only(mask), whole.only(mask)
    assert torch.equal(few.images(slice(2, 5)), of_whole.images(slice(2, 5)))


def test_few_of_many_images_are_kept_in_memory(top, cache, monkeypatch):
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "1")
    monkeypatch.setattr("robustbench_cli.data.stored.memory_limit", lambda: 10 * 3 * 8 * 8)
    assert not isinstance(load(top).to("cpu").stored, torch.Tensor)
    assert isinstance(load(top).only(slice(10)).to("cpu").stored, torch.Tensor)


def test_reading_ahead_leaves_the_garbage_collector_of_the_caller_as_it_is(streamed):
    gc.unfreeze()
    gc.freeze()  # as a caller may have done for reasons of its own
    try:
        before = gc.get_freeze_count(), gc.isenabled(), gc.get_threshold()
        streamed.expect(torch.arange(COUNT))
        during = gc.get_freeze_count(), gc.isenabled(), gc.get_threshold()
        streamed.images(torch.arange(COUNT))
        after = gc.get_freeze_count(), gc.isenabled(), gc.get_threshold()
    finally:
        gc.unfreeze()
    assert before == during == after
    assert before[0] > 0


def test_a_damaged_image_is_named_by_the_process_that_asked(streamed, top):
    place = streamed.names.index("test/bee/3.png")
    (top / "test/bee/3.png").write_bytes(b"no image")
    order = torch.arange(COUNT)
    streamed.expect(order)
    with pytest.raises(UserError, match=r"bee/3.png: not a readable image$"):
        streamed.images(order[: place + 1])


def test_a_reading_process_that_dies_is_one_line(streamed):
    streamed.expect(torch.arange(COUNT))
    for worker in streamed.stored._ahead[0]._loader._workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    with pytest.raises(RunError, match="a process that reads images died") as caught:
        streamed.images(torch.arange(COUNT))
    assert "\n" not in str(caught.value)


def test_large_tables_are_unpacked_once(tmp_path, picture, cache, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = pa.array([picture(i) for i in range(9)], pa.binary())
    table = pa.table({"image": cells, "label": [i % 3 for i in range(9)]})
    pq.write_table(table, tmp_path / "test.parquet")
    dataset = DATASETS.build(Spec.parse(f"hf:{tmp_path}"))
    small = dataset.load("test", Path())
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "0")
    for _ in range(2):
        large = dataset.load("test", Path()).to("cpu")
        assert torch.equal(large.images(torch.tensor([7, 0])), small.images(torch.tensor([7, 0])))
    kinds = sorted(file.suffix for file in (cache / "encoded").iterdir())
    assert kinds == [".bin", ".npy"]
    assert large.fingerprint() == small.fingerprint()
    for file in (cache / "encoded").glob("*.npy"):
        file.write_bytes(b"damaged")
    again = dataset.load("test", Path()).to("cpu")
    assert torch.equal(again.images(torch.tensor([7, 0])), small.images(torch.tensor([7, 0])))


@pytest.fixture
def mixed(tmp_path, picture):
    """A table of images, of which the last lies in a file beside it."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "own.png").write_bytes(picture(7))
    cells = [{"bytes": picture(i), "path": None} for i in range(3)]
    cells.append({"bytes": None, "path": "own.png"})
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    content = {"image": pa.array(cells, kind), "label": [1, 0, 1, 0]}
    pq.write_table(pa.table(content), folder / "test.parquet")
    return folder


@pytest.mark.parametrize("limit", ["99", "0"])
def test_a_changed_image_beside_a_table_is_never_that_of_the_cache(
    mixed, picture, cache, monkeypatch, limit
):
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", limit)
    dataset = DATASETS.build(Spec.parse(f"hf:{mixed}"))
    file = mixed / "own.png"
    old, about = file.read_bytes(), file.stat()
    new = picture(8)
    size = max(len(old), len(new))
    found = []
    for content in (old, new):  # as large, and said to be as old
        file.write_bytes(content.ljust(size, b"\0"))
        os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
        split = dataset.load("test", Path()).to("cpu")
        assert torch.equal(split.images(torch.tensor([3]))[0], pixels_of(content))
        found.append((split.fingerprint(), split.images(slice(0, 3))))
    assert found[0][0] != found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def pixels_of(content: bytes) -> torch.Tensor:
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def test_a_changed_image_beside_the_other_split_is_noticed(tmp_path, picture, cache):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for split in ("train", "test"):
        (tmp_path / f"{split}.png").write_bytes(picture(1, mode="L"))
        cells = [{"bytes": None, "path": f"{split}.png"}, {"bytes": picture(2, mode="L")}]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        content = {"image": pa.array(cells, kind), "label": [1, 0]}
        pq.write_table(pa.table(content), tmp_path / f"{split}.parquet")
    dataset = DATASETS.build(Spec.parse(f"hf:{tmp_path}"))
    assert dataset.load("test", Path()).image_shape == (1, 8, 8)
    (tmp_path / "train.png").write_bytes(picture(1))  # in colour: then all images are
    assert dataset.load("train", Path()).image_shape == (3, 8, 8)
    assert dataset.load("test", Path()).image_shape == (3, 8, 8)


def test_images_are_decoded_again_by_another_version_of_the_decoder(
    top, cache, opened, monkeypatch
):
    before = load(top).to("cpu")
    monkeypatch.setattr("PIL.__version__", "0.0.1")
    after = load(top).to("cpu")
    assert opened == [COUNT, COUNT]
    assert after.fingerprint() == before.fingerprint()  # the files are the same
    load(top).to("cpu")
    monkeypatch.setattr("PIL.features.version", lambda name: f"another {name}")
    load(top).to("cpu")
    assert opened == [COUNT, COUNT, COUNT]


def test_a_limit_that_is_no_number_is_refused(top, monkeypatch):
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "2GB")
    with pytest.raises(UserError, match="ADVBENCH_DATA_MEMORY=2GB: give a whole number of MiB"):
        load(top).to("cpu")
