"""Layouts of data as people have it: folders, tables of paths, archives, arrays in files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split

pa = pytest.importorskip("pyarrow")


def load(text: str, split: str = "test") -> Split:
    return DATASETS.build(Spec.parse(text)).load(split, Path("/nonexistent")).to("cpu")


def by_name(split: Split) -> dict[str, str]:
    """Return the class of every image by the name of its file."""
    pairs = zip(split.names, split.y.tolist(), strict=True)
    return {name: split.classes[label] for name, label in pairs}


@pytest.fixture
def draw(picture):
    """Write small pictures: ``draw(folder, 3)`` puts 0.png, 1.png and 2.png there."""

    def write(folder: Path, count: int = 2, kind: str = "png") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / f"{i}.{kind}").write_bytes(picture(len(str(folder)) + i))

    return write


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "Val"])
def test_a_folder_without_train_can_be_evaluated(tmp_path, draw, name):
    for each in ("cat", "dog"):
        draw(tmp_path / name / each)
    found = load(f"folder:{tmp_path}")
    assert by_name(found) == {f"{name}/{c}/{i}.png": c for c in ("cat", "dog") for i in (0, 1)}
    said = () if name == "test" else (f"the test images are those in {name!r}",)
    assert found.notes == said
    with pytest.raises(UserError, match="no folder 'train' in it"):
        load(f"folder:{tmp_path}", "train")


def test_test_images_without_classes_give_way_to_val(tmp_path, draw):
    """As in archives whose test labels nobody has."""
    for each in ("train/cat", "train/dog", "val/cat", "val/dog", "test"):
        draw(tmp_path / each)
    assert {name.split("/")[0] for name in load(f"folder:{tmp_path}").names} == {"val"}
    assert len(load(f"folder:{tmp_path}", "train")) == 4


def test_class_folders_alone_can_be_evaluated_and_not_trained_on(tmp_path, draw):
    for each in ("cat", "dog"):
        draw(tmp_path / each)
    assert by_name(load(f"folder:{tmp_path}")) == {
        f"{c}/{i}.png": c for c in ("cat", "dog") for i in (0, 1)
    }
    with pytest.raises(UserError, match="can be evaluated or be --extra-data; to train, move them"):
        load(f"folder:{tmp_path}", "train")
    dataset = DATASETS.build(Spec.parse(f"folder:{tmp_path}"))
    assert len(dataset.pool(Path())) == 4


def test_images_may_lie_one_folder_deeper_and_wordnet_ids_have_names(tmp_path, draw):
    for wnid in ("n01440764", "n02012849", "n03126707"):
        draw(tmp_path / "train" / wnid / "images")
        draw(tmp_path / "val" / wnid)
    lines = ["n01440764\ttench, Tinca tinca", "n02012849\tcrane", "n03126707\tcrane, machine"]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    found = load(f"folder:{tmp_path}", "train")
    assert found.classes == ("tench", "crane (n02012849)", "crane (n03126707)")
    assert found.names[0].split("/")[2] == "images"


@pytest.mark.parametrize("headed", [True, False])
def test_a_table_of_paths(tmp_path, draw, headed):
    draw(tmp_path / "pictures", 6)
    lines = [f"pictures/{i}.png,{'cat' if i % 2 else 'ant'}" for i in range(6)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label"] * headed + lines))
    found = load(f"csv:{tmp_path / 'set.csv'}")
    assert by_name(found)["pictures/1.png"] == "cat"
    assert (found.classes, len(found)) == (("ant", "cat"), 6)
    with pytest.raises(UserError, match="can be evaluated or be --extra-data"):
        load(f"csv:{tmp_path / 'set.csv'}", "train")


def test_a_table_of_splits_and_numbers(tmp_path, draw):
    draw(tmp_path, 6)
    rows = [f"{i + 8},{'train' if i < 4 else 'val'},{i}.png" for i in range(6)]
    rows[4:] = ["8,val,4.png", "11,val,5.png"]
    (tmp_path / "set.csv").write_text("\n".join(["Label,Split,Image", *rows]))
    train, test = (load(f"csv:{tmp_path / 'set.csv'}", each) for each in ("train", "test"))
    assert train.classes == ("8", "9", "10", "11")  # by size, not as texts
    assert by_name(train)["3.png"] == "11"
    assert test.classes == train.classes  # though some of them have no test image
    assert by_name(test) == {"4.png": "8", "5.png": "11"}


def test_a_table_without_a_heading_has_its_splits_in_the_third_column(tmp_path, draw):
    draw(tmp_path, 4)
    rows = [f"{i}.png,{i % 2},{('Training', 'test')[i // 2]}" for i in range(4)]
    (tmp_path / "set.csv").write_text("\n".join(rows))
    train, test = (load(f"csv:{tmp_path / 'set.csv'}", each) for each in ("train", "test"))
    assert (sorted(train.names), sorted(test.names)) == (["0.png", "1.png"], ["2.png", "3.png"])


def test_labels_that_were_corrected_move_no_image_of_the_cache(tmp_path, draw):
    draw(tmp_path, 2)
    table = tmp_path / "set.csv"
    for labels in (("ant", "bee"), ("bee", "ant")):
        table.write_text("\n".join(f"{i}.png,{label}" for i, label in enumerate(labels)))
        found = load(f"csv:{table}")
        assert by_name(found) == {f"{i}.png": label for i, label in enumerate(labels)}
        shown = dict(zip(found.names, found.x, strict=True))
        for i in range(2):
            alone = tmp_path / f"alone-{i}.csv"
            alone.write_text(f"{i}.png,ant\n{i}.png,bee")
            assert torch.equal(shown[f"{i}.png"], load(f"csv:{alone}").x[0])


def test_lines_of_val_are_no_test_images_where_there_are_others(tmp_path, draw):
    draw(tmp_path, 6)
    kinds = ("train", "train", "val", "val", "Test", "test")
    rows = [f"{i}.png,{i % 2},{kind}" for i, kind in enumerate(kinds)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,split", *rows]))
    found = load(f"csv:{tmp_path / 'set.csv'}")
    assert sorted(found.names) == ["4.png", "5.png"]
    assert found.notes == ("lines of split 'val' are left out: there are others of 'test'",)
    assert len(load(f"csv:{tmp_path / 'set.csv'}", "train")) == 2
    with pytest.raises(UserError, match="lines of one only"):
        load(f"csv:{tmp_path / 'set.csv'},test={tmp_path / 'set.csv'}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "a heading and no lines"),
        ("path,colour\n0.png,1", "no column of labels"),
        ("0.png,1\n9.png,2", "line 2 of .*: no file '.*9.png'"),
        ("0.png,1\n1.png", "line 2 of .* no path, or no label"),
        (b"\xff\xfe\x00", "no table of text"),
        (
            "path,label,split\n0.png,1,train\n1.png,1,trian",
            r"line 3 of .*set.csv: unknown split 'trian'; expected one of train, training, test, "
            r"val, valid, validation$",
        ),
        ("path,label,split\n0.png,1,test\n1.png,1,", "line 3 of .*: unknown split ''"),
        ("0.png,1,0.93\n1.png,2,0.7", "line 1 of .* split '0.93'.*third column.*add a heading"),
        ("\npath,label\n\n0.png,1\n , \n\n1.png", "line 7 of .* no path, or no label"),
        ('path,label,note\n0.png,1,"two\nlines"\n1.png,1,\n9.png,2,', "line 5 of .*: no file"),
        ('path,label\n0.png,1\n"9\n.png",2', "line 3 of .*: no file"),
    ],
)
def test_mistakes_in_a_table_are_one_line(tmp_path, draw, text, message):
    draw(tmp_path)
    (tmp_path / "set.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        load(f"csv:{tmp_path / 'set.csv'}")
    assert "\n" not in str(caught.value)


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 5, 3), dtype=np.uint8)


def test_pairs_of_arrays(tmp_path):
    np.save(tmp_path / "noise.npy", PIXELS)
    np.save(tmp_path / "labels.npy", np.array([1, 0, 2, 1, 0, 2]))
    one = load(f"npy:{tmp_path / 'noise.npy'}")
    assert torch.equal(one.x, torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy()))
    named = load(f"npy:{tmp_path / 'noise.npy'},y={tmp_path / 'labels.npy'}")
    assert named.y.tolist() == one.y.tolist() == [1, 0, 2, 1, 0, 2]
    with pytest.raises(UserError, match=r"no 'x_test.npy' in it"):
        load(f"npy:{tmp_path / 'noise.npy'}", "train")
    for name, file in (("x", "noise"), ("y", "labels")):
        for ending in ("", "_test"):
            shutil.copy(tmp_path / f"{file}.npy", tmp_path / f"{name}{ending}.npy")
    assert len(load(f"npy:{tmp_path}", "train")) == len(load(f"npy:{tmp_path}")) == 6
    with pytest.raises(UserError, match="goes with a file of images"):
        load(f"npy:{tmp_path},y={tmp_path / 'labels.npy'}")
    np.save(tmp_path / "y.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"/y\.npy: damaged, no \.npy file, or an array of obj"):
        load(f"npy:{tmp_path / 'noise.npy'}")


@pytest.mark.parametrize("kind", ["bytes", "levels", "floats", "a float among levels"])
def test_the_same_arrays_have_one_fingerprint_however_they_are_read(tmp_path, monkeypatch, kind):
    images = PIXELS if kind == "bytes" else (PIXELS / 255).astype(np.float32)
    if kind == "floats":
        images *= np.float32(0.999)
    elif kind == "a float among levels":
        images[5, 0, 0, 0] = 0.123
    labels = np.array([0, 1, 2, 0, 1, 2])
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    np.savez(tmp_path / "set.npz", x=images, y=labels)
    rows = torch.tensor([4, 1, 5])
    kinds, found = set(), set()
    for limit, least in (("99", 0), ("0", 0), ("0", 10**6)):
        monkeypatch.setenv("ADVBENCH_DATA_MEMORY", limit)
        for name in (f"npy:{tmp_path}", f"npz:{tmp_path / 'set.npz'}"):
            split = load(name)
            # Few images of a large file are read into memory, where the limit lets them.
            monkeypatch.setattr("robustbench_cli.data.stored.memory_limit", lambda n=least: n)
            part = split.only(rows)
            for each in (part, part.to("cpu")):
                kinds.add(type(each.stored))
                found.add((each.fingerprint(), each.stored[slice(0, 1)].dtype))
            monkeypatch.undo()
            monkeypatch.setenv("ADVBENCH_DATA_MEMORY", limit)
    assert len(kinds) == 2  # tensors, and images that stay in their file
    assert len(found) == 1
    whole = load(f"npy:{tmp_path}").fingerprint()
    np.save(tmp_path / "x.npy", np.roll(images, 1, 3))
    assert load(f"npy:{tmp_path}").fingerprint() != whole


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_large_arrays_are_read_as_they_are_needed(tmp_path, monkeypatch, kind):
    images = PIXELS if kind == "bytes" else (PIXELS / 255 * 0.999).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.array([0, 1, 2, 0, 1, 2]))
    small = load(f"npy:{tmp_path}")
    monkeypatch.setenv("ADVBENCH_DATA_MEMORY", "0")
    large = load(f"npy:{tmp_path}")
    assert not isinstance(large.stored, torch.Tensor)
    rows = torch.tensor([4, 0, 5])
    assert torch.equal(large.images(rows), small.images(rows))


@pytest.fixture
def imagenet(tmp_path, draw):
    """A very small ImageNet with its development kit, which numbers the classes another way."""
    wnids = ["n01440764", "n01443537", "n01484850"]
    for wnid in wnids:
        draw(tmp_path / "train" / wnid, 2, "JPEG")
    draw(tmp_path / "val", 3, "JPEG")
    for i in range(3):
        file = tmp_path / "val" / f"ILSVRC2012_val_0000000{i + 1}.JPEG"
        (tmp_path / "val" / f"{i}.JPEG").rename(file)
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O"), ("num_children", "i4")]
    rows = [(1, wnids[2], "great white shark, shark", 0), (2, wnids[0], "tench, Tinca tinca", 0)]
    rows += [(3, wnids[1], "goldfish", 0), (4, "n00001740", "entity", 3)]
    savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n1\n2\n")
    return tmp_path


def test_imagenet_labels_are_those_that_published_networks_use(imagenet):
    found = load(f"imagenet:{imagenet}")
    assert found.classes == ("tench", "goldfish", "great white shark")
    assert by_name(found) == {
        f"val/ILSVRC2012_val_0000000{i}.JPEG": name
        for i, name in ((1, "goldfish"), (2, "great white shark"), (3, "tench"))
    }
    assert found.x.shape == (3, 3, 224, 224)
    assert len(load(f"imagenet:{imagenet},size=8,scale=9", "train")) == 6


def test_imagenet_labels_from_kaggles_table(imagenet):
    shutil.rmtree(imagenet / "ILSVRC2012_devkit_t12")
    with pytest.raises(UserError, match=r"unpack ILSVRC2012_devkit_t12.tar.gz in .*, or put LOC_v"):
        load(f"imagenet:{imagenet}")
    lines = ["ImageId,PredictionString", "ILSVRC2012_val_00000001,n01443537 1 2 3 4 "]
    lines.append("ILSVRC2012_val_00000002,n01484850 1 2 3 4 n01484850 5 6 7 8 ")
    (imagenet / "LOC_val_solution.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match="says nothing of ILSVRC2012_val_00000003"):
        load(f"imagenet:{imagenet}")
    lines.append("ILSVRC2012_val_00000003,n01440764 9 9 9 9")
    (imagenet / "LOC_val_solution.csv").write_text("\n".join(lines))
    (imagenet / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\n")
    assert load(f"imagenet:{imagenet}").classes == ("tench", "n01443537", "n01484850")
    (imagenet / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()  # the only goldfish
    found = load(f"imagenet:{imagenet}")
    assert (len(found.classes), sorted(found.y.tolist())) == (3, [0, 2])


def test_imagenet_is_cut_as_usual(imagenet):
    """As torchvision's Resize(256) and CenterCrop(224) on Pillow images."""
    from PIL import Image
    from torchvision import transforms

    wide = np.random.default_rng(0).integers(0, 256, (300, 411, 3), dtype=np.uint8)
    file = imagenet / "val" / "ILSVRC2012_val_00000001.JPEG"
    Image.fromarray(wide).save(file, "PNG")
    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    found = load(f"imagenet:{imagenet}")
    place = found.names.index("val/ILSVRC2012_val_00000001.JPEG")
    expected = torch.from_numpy(np.array(usual(Image.open(file)))).permute(2, 0, 1)
    assert torch.equal(found.x[place], expected)


def test_tiny_imagenet(tmp_path, draw):
    top = tmp_path / "tiny-imagenet-200"
    wnids = ("n01443537", "n01629819")
    for wnid in wnids:
        draw(top / "train" / wnid / "images", 3, "JPEG")
    draw(top / "val" / "images", 2, "JPEG")
    draw(top / "test" / "images", 2, "JPEG")
    lines = [f"{i}.JPEG\t{wnid}\t0\t0\t62\t62" for i, wnid in enumerate(reversed(wnids))]
    (top / "val" / "val_annotations.txt").write_text("\n".join(lines))
    (top / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    for path in (top, tmp_path):
        found = load(f"tiny-imagenet:{path}")
        assert by_name(found) == {"val/images/0.JPEG": "n01629819", "val/images/1.JPEG": "goldfish"}
    assert len(load(f"tiny-imagenet:{top}", "train")) == 6


def test_what_save_to_disk_writes(tmp_path, picture):
    """Arrow streams with a file of state, as the package ``datasets`` lays them out."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def write(folder: Path, seeds: list[int]) -> None:
        folder.mkdir(parents=True)
        cells = [{"bytes": picture(seed), "path": f"{seed}.png"} for seed in seeds]
        labels = ["dog" if seed % 2 else "cat" for seed in seeds]
        table = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels)})
        file = folder / "data-00000-of-00001.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        state = {"_data_files": [{"filename": file.name}], "_split": folder.name}
        (folder / "state.json").write_text(json.dumps(state))

    write(tmp_path / "train", [1, 2, 3, 4])
    write(tmp_path / "test", [5, 6])
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert by_name(load(f"hf:{tmp_path}", "train"))["3.png"] == "dog"
    assert by_name(load(f"hf:{tmp_path}")) == {"5.png": "dog", "6.png": "cat"}
    # One split by itself can be evaluated.
    assert len(load(f"hf:{tmp_path / 'train'}")) == 4
    with pytest.raises(UserError, match="one split only, which can be evaluated"):
        load(f"hf:{tmp_path / 'train'}", "train")
    away = {"_data_files": [{"filename": "../../x.arrow"}]}
    (tmp_path / "test" / "state.json").write_text(json.dumps(away))
    with pytest.raises(UserError, match="lies outside"):
        load(f"hf:{tmp_path}")
