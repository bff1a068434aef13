"""Images: every source from disk to batch, splits, augmentation and mixing; and data that are refused."""

import io
import itertools
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, FashionMNIST

from {{cookiecutter.package_name}} import cli
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.images import Images, pixels, stratified_split

DIGITS: dict[str, Any] = {
    "dataset": "digits",
    "img_size": 8,
    "in_chans": 1,
    "num_classes": 10,
    "batch_size": 128,
    "val_fraction": 0.15,
    "test_fraction": 0.15,
    "augment": {"scale": [0.5, 1.0], "ratio": [0.9, 1.1]},
}
SMALL: dict[str, Any] = {"img_size": 8, "in_chans": 3, "num_classes": 0, "batch_size": 2, "mean": [0.0], "std": [1.0]}
MIXUP = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


def digits(**options) -> Images:
    return Images(**{**DIGITS, **options})


def folder(root: Path, **options) -> Images:
    return Images(**{"dataset": "folder", **SMALL, "root": str(root), **options})


def batches(data: Images, epoch: int = 0, count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.start = epoch * loader.sampler.epoch_size
    return list(itertools.islice(loader, count))


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(itertools.chain(*a), itertools.chain(*b), strict=True))


def write_images(root: Path, classes: str = "cat dog owl", count: int = 10) -> Path:
    """PNG files in one folder for each class; the red value is the class, the blue value the number of the file."""
    for label, name in enumerate(classes.split()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (10, 8), (label, 0, number)).save(root / name / f"{number}.png")
    return root


def pack(tar: Path, root: Path) -> None:
    with tarfile.open(tar, "w") as file:
        file.add(root, ".")


def check_classes(data: Images, split: str = "test") -> None:
    """The red value of every image of `write_images` is its class."""
    images, targets = (torch.cat(part) for part in zip(*getattr(data, f"{split}_dataloader")(), strict=True))
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), targets)


def test_digits_are_split_into_parts_that_stay():
    data = digits(seed=1)
    assert data.sizes == {"train": 1257, "val": 270, "test": 270}
    parts = {name: split.indices for name, split in data.splits.items()}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1797))
    again, other = digits(seed=2, workers=2).splits, digits(split_seed=1).splits
    assert all(np.array_equal(parts[name], again[name].indices) for name in parts)
    assert not np.array_equal(parts["test"], other["test"].indices)
    assert digits(val_fraction=0.0).val_dataloader() == []


def test_stratified_split_of_uneven_classes():
    targets = np.repeat([0, 1, 2], [700, 290, 10])
    val, test, train = stratified_split(targets, [100, 200], seed=0)
    assert sorted(np.concatenate([val, test, train])) == list(range(1000))
    assert np.abs(np.bincount(targets[val]) - [70, 29, 1]).max() <= 1
    assert np.abs(np.bincount(targets[test]) - [140, 58, 2]).max() <= 1


@pytest.mark.parametrize(("mean", "std"), [([0.3], [0.4]), ([0.3, 0.4, 0.5], [0.5, 0.4, 0.3])])
def test_evaluated_digits_are_the_original_pixels(mean, std):
    data = digits(mean=mean, std=std, in_chans=len(mean))
    images, targets = (torch.cat(part) for part in zip(*data.test_dataloader(), strict=True))
    original, chosen = load_digits(), data.splits["test"].indices
    assert np.array_equal(targets, original.target[chosen])
    found = pixels({"mean": mean, "std": std})(images)
    assert found.shape == (270, len(mean), 8, 8)
    assert (found - torch.tensor(original.images[chosen, None] / 16)).abs().max() < 0.003  # 16 levels in 8 bits
    clamped = pixels({"mean": mean, "std": std})(torch.tensor([-9.0, 9.0], dtype=torch.bfloat16).view(2, 1, 1, 1))
    assert clamped.dtype == torch.float32
    assert clamped.unique().tolist() == [0, 1]


@pytest.mark.parametrize("mixup", [None, MIXUP], ids=["plain", "mixup"])
def test_augmentation_is_a_function_of_seed_epoch_and_index(mixup):
    here = batches(digits(mixup=mixup), epoch=3)
    assert same(here, batches(digits(mixup=mixup, workers=2), epoch=3))
    assert not same(here, batches(digits(mixup=mixup), epoch=4))
    assert not same(here, batches(digits(mixup=mixup, seed=1), epoch=3))
    plain = digits(augment=None).dataset("train")
    assert torch.equal(plain[0, 0][0], plain[1, 0][0])


def test_mixed_targets_are_probabilities():
    images, targets = next(iter(digits(mixup=MIXUP).train_dataloader()))
    plain_images, plain_targets = next(iter(digits().train_dataloader()))
    torch.testing.assert_close(targets.sum(1), torch.ones(128))
    share = targets.gather(1, plain_targets[:, None])
    partner = targets.gather(1, plain_targets.flip(0)[:, None])
    assert ((share + partner - 1).abs() < 1e-6)[plain_targets != plain_targets.flip(0)].all()
    assert not torch.equal(images, plain_images)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_every_operation_of_randaugment_runs(in_chans):
    """At magnitude 10 its posterize keeps 0 bits, which Pillow 13 refuses."""
    augment = {"auto_augment": "rand-m10-inc1", "re_prob": 0.25, "hflip": 0.5, "color_jitter": 0.4}
    assert all(images.isfinite().all() for images, _ in batches(digits(in_chans=in_chans, augment=augment)))


def test_data_set_and_mixup_can_be_sent_to_workers():
    """Linux forks workers up to Python 3.13; elsewhere and later they get a pickle."""
    loader = digits(augment={"auto_augment": "rand-m9-mstd0.5-inc1"}, mixup=MIXUP).train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    keys = [(2, index) for index in range(4)]
    assert same([collate([dataset[key] for key in keys])], [loader.collate_fn([loader.dataset[key] for key in keys])])


def test_fashion_mnist_reads_idx_files(tmp_path):
    """The format: big-endian magic number and sizes, then bytes."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    random, written = np.random.RandomState(0), {}
    for part, size in {"train": 100, "t10k": 20}.items():
        written[part] = random.randint(0, 256, (size, 28, 28)).astype(np.uint8)
        labels = np.arange(size, dtype=np.uint8) % 10
        header = struct.pack(">4i", 0x803, size, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + written[part].tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, size) + labels.tobytes())
    options = {**SMALL, "img_size": 28, "in_chans": 1, "batch_size": 20}
    data = Images("torch/fashion_mnist", **options, root=str(tmp_path), val_fraction=0.1)
    assert data.sizes == {"train": 90, "val": 10, "test": 20}
    assert data.class_names == FashionMNIST.classes
    images, targets = next(iter(data.test_dataloader()))
    assert np.array_equal((images[:, 0] * 255).round(), written["t10k"])
    assert targets.tolist() == [*range(10), *range(10)]


@pytest.mark.parametrize("set_name", ["fashion_mnist", "cifar10"])
def test_missing_torchvision_sets_and_failed_downloads_are_one_line(tmp_path, monkeypatch, set_name):
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{tmp_path.as_uri()}/gone/"])
    monkeypatch.setattr(CIFAR10, "url", f"{tmp_path.as_uri()}/gone/cifar.tar.gz")
    for download, words in ((False, "download=True"), (True, "No such file|Error downloading")):
        with pytest.raises((ValueError, OSError), match=words) as refusal:
            Images(f"torch/{set_name}", **SMALL, root=str(tmp_path), download=download)
        assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves tar files to be collected
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_undivided_images_are_split_the_same_way_every_time(tmp_path, monkeypatch, form):
    root = write_images(tmp_path / "images", "10 2 1x")
    Image.new("RGB", (10, 8), (1, 0, 99)).save(root / "2" / "99.TIFF")
    (root / "2" / "notes.txt").write_text("not an image")
    if form == "tar":
        pack(tmp_path / "images.tar", root)
        root = tmp_path / "images.tar"
    options: dict[str, Any] = {"val_fraction": 0.2, "test_fraction": 0.2}
    data = folder(root, **options)
    assert data.class_names == ["1x", "2", "10"], "in natural order"
    assert data.sizes == {"train": 19, "val": 6, "test": 6}
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *args, **kw: ((a, b, c[::-1]) for a, b, c in reversed(list(walk(*args, **kw))))
    )
    again = folder(root, **options, workers=1)
    assert same(again.test_dataloader(), data.test_dataloader())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves tar files to be collected
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_splits_of_its_own(tmp_path, form):
    write_images(tmp_path / "training")
    write_images(tmp_path / "valid", "cat dog", count=2)
    write_images(tmp_path / "test", "dog", count=3)
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "test" / "dog" / "9.webp", lossless=True)
    root = tmp_path
    if form == "tar":
        (root := tmp_path / "tars").mkdir()
        for split in ("training", "valid", "test"):
            pack(root / f"{split}.tar", tmp_path / split)
    data = folder(root, val_fraction=0.2, test_fraction=0.2)
    assert data.sizes == {"train": 30, "val": 4, "test": 4}
    check_classes(data, "val")
    assert [target for _, targets in data.test_dataloader() for target in targets.tolist()] == [1] * 4


def test_validation_images_are_the_test_where_that_has_no_labels(tmp_path):
    write_images(tmp_path / "train", count=6)
    write_images(tmp_path / "val", count=2)
    assert folder(tmp_path).sizes == {"train": 18, "val": 6, "test": 6}
    (tmp_path / "test").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "ILSVRC2012_test_00000001.png")
    data = folder(tmp_path)
    assert data.sizes == {"train": 18, "val": 6, "test": 6}
    check_classes(data)
    assert folder(tmp_path, test_fraction=0.5).sizes == {"train": 9, "val": 6, "test": 9}


def test_class_called_train_does_not_make_a_split(tmp_path):
    assert folder(write_images(tmp_path, "bus train")).class_names == ["bus", "train"]


def test_hugging_face_data_sets(tmp_path):
    pytest.importorskip("datasets")
    write_images(tmp_path / "images" / "train")
    write_images(tmp_path / "images" / "validation", count=2)
    options: dict[str, Any] = {"dataset": f"hfds/{tmp_path / 'images'}", "test_fraction": 0.1}
    data = folder(tmp_path / "cache", **options)
    assert data.class_names == ["cat", "dog", "owl"]
    assert data.sizes == {"train": 27, "val": 6, "test": 3}
    check_classes(data)
    assert same(batches(data), batches(folder(tmp_path / "cache", **options, workers=1)))


def test_webdataset_files_with_random_access(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "train-0.tar", "w") as tar:
        for number in range(12):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (number % 3, 0, 0)).save(picture, "PNG")
            for suffix, content in (("png", picture.getvalue()), ("cls", str(number % 3).encode())):
                entry = tarfile.TarInfo(f"{number:03}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    options: dict[str, Any] = {"dataset": f"hfds/{tmp_path / 'shards'}", "input_key": "png", "target_key": "cls"}
    data = folder(tmp_path / "cache", **options, val_fraction=0.25, test_fraction=0.25)
    assert data.class_names == ["0", "1", "2"]
    assert data.sizes == {"train": 6, "val": 3, "test": 3}
    check_classes(data)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_file_is_told_in_one_line(tmp_path, monkeypatch, capsys, workers):
    write_images(tmp_path)
    (broken := tmp_path / "owl" / "7.png").write_bytes(b"not a picture")
    data = folder(tmp_path, workers=workers)
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda argv: list(data.train_dataloader()))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {broken}: ")
    assert told.count("\n") == 1


def splits_without_classes(root: Path) -> Path:
    for split in ("train", "val"):
        (root / split).mkdir()
        Image.new("RGB", (8, 8)).save(root / split / "1.png")
    return root


LAYOUTS = {
    "missing": lambda root: root.rmdir(),
    "file": lambda root: (root.rmdir(), root.touch()),
    "empty": lambda root: None,
    "broken.tar": lambda root: (root.rmdir(), root.write_bytes(b"no tar file")),
    "one class": lambda root: write_images(root, "cat"),
    "strange class": lambda root: (write_images(root / "train"), write_images(root / "val", "cat fox")),
    "no classes": splits_without_classes,
    "flat val": lambda root: (splits_without_classes(root), write_images(root / "train", "cat dog")),
    "wrong number": lambda root: write_images(root, "cat dog"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_that_are_not_as_expected(tmp_path, layout):
    (root := tmp_path / layout).mkdir()
    LAYOUTS[layout](root)
    with pytest.raises((ValueError, FileNotFoundError), match=layout) as refusal:
        folder(root, num_classes=1000 if layout == "wrong number" else 0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "wds/photos"}, "stream"),
        ({"dataset": "torch/nothing"}, "nothing"),
        ({"dataset": "folder"}, "root is not set"),
        ({"num_classes": 7}, "10 classes"),
        ({"batch_size": 127, "mixup": MIXUP}, "even number"),
        ({"val_fraction": 0.5, "test_fraction": 0.6}, "to train on"),
        ({"augment": {"auto_augment": "best"}}, "augment"),
    ],
)
def test_values_that_do_not_fit_are_refused(options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words) as refusal:
        digits(**options)
    assert not isinstance(refusal.value, UsageError)
    assert "\n" not in str(refusal.value)


def test_classes_in_another_order_get_the_numbers_of_a_trained_model(tmp_path):
    data = folder(write_images(tmp_path))
    before = data.splits["test"].source.targets
    data.use_classes(["owl", "cat", "dog"])
    assert data.class_names == ["owl", "cat", "dog"]
    assert data.splits["test"].source.targets.tolist() == [[1, 2, 0][number] for number in before]
    with pytest.raises(ValueError, match="fox"):
        data.use_classes(["owl", "cat", "fox"])


def test_a_run_does_not_resume_on_data_that_have_changed(tmp_path):
    root = write_images(tmp_path)
    saved = folder(root).state_dict()
    folder(root).load_state_dict(saved)
    (root / "cat").rename(root / "zebra")
    with pytest.raises(UsageError, match="zebra"):
        folder(root).load_state_dict(saved)
    (root / "zebra").rename(root / "cat")
    next((root / "cat").iterdir()).unlink()
    with pytest.raises(UsageError, match="sizes"):
        folder(root).load_state_dict(saved)


def test_four_channels(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("RGBA", (8, 8), (0, 0, 0, number)).save(tmp_path / name / f"{number}.png")
    (images, _), *_ = folder(tmp_path, in_chans=4, val_fraction=0.2).val_dataloader()
    assert images.shape[1:] == (4, 8, 8)
