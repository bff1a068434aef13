"""Sources: files in the formats in which data sets are published, folders of images, and what is refused of them."""

import gzip
import hashlib
import os
import pickle
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST

from {{cookiecutter.package_name}} import cli
from {{cookiecutter.package_name}}.data.images import Images
from {{cookiecutter.package_name}}.data.images_sources import stratified_split
from {{cookiecutter.package_name}}.errors import UsageError

SMALL: dict[str, Any] = {"img_size": 8, "in_chans": 3, "num_classes": 0, "batch_size": 2}
FASHION: dict[str, Any] = {
    "name": "fashion_mnist",
    "img_size": 28,
    "in_chans": 1,
    "num_classes": 10,
    "batch_size": 4,
    "val_fraction": 0.1,
}


def test_stratified_split_of_uneven_classes():
    targets = np.repeat([0, 1, 2], [700, 290, 10])
    val, test, train = stratified_split(targets, [100, 200], seed=0)
    assert sorted(np.concatenate([val, test, train])) == list(range(1000))
    assert np.abs(np.bincount(targets[val]) - [70, 29, 1]).max() <= 1
    assert np.abs(np.bincount(targets[test]) - [140, 58, 2]).max() <= 1


def write_fashion_mnist(folder: Path, sizes: dict[str, int]) -> None:
    """The idx format: big-endian magic number and sizes, then bytes."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    for part, size in sizes.items():
        pixels, labels = random.randint(0, 256, (size, 28, 28)).astype(np.uint8), np.arange(size, dtype=np.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, size, 28, 28) + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, size) + labels.tobytes())


def test_fashion_mnist_reads_idx_files(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    write_fashion_mnist(raw, {"train": 100, "t10k": 20})
    data = Images(**FASHION, root=str(tmp_path), mean=[0.0], std=[1.0])
    assert data.sizes == {"train": 90, "val": 10, "test": 20}
    assert data.class_names[9] == "Ankle boot" == FashionMNIST.classes[9]
    images, targets = next(iter(data.test_dataloader()))
    pixels = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 1, 28, 28)
    assert np.array_equal((images * 255).round(), pixels[:4])
    assert targets.tolist() == [0, 1, 2, 3]


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which this machine serves it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "served"
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_fashion_mnist_is_downloaded_when_asked(tmp_path, monkeypatch, server):
    folder, address = server
    write_fashion_mnist(folder, {"train": 100, "t10k": 20})
    resources = []
    for file in sorted(folder.iterdir()):
        packed = gzip.compress(file.read_bytes())
        (folder / f"{file.name}.gz").write_bytes(packed)
        resources.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    data = Images(**FASHION, root=str(tmp_path / "new"), download=True)
    assert not (tmp_path / "new").exists()
    data.prepare_data()
    assert data.sizes == {"train": 90, "val": 10, "test": 20}


@pytest.fixture
def cifar10(tmp_path, monkeypatch) -> np.ndarray:
    """Writes CIFAR-10's pickled batches, 20 images each, whose MD5 sums torchvision checks; returns the test's rows."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.RandomState(0)

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    rows = {}
    for split in ("train_list", "test_list"):
        entries = []
        for name, _ in getattr(CIFAR10, split):
            rows[name] = random.randint(0, 256, (20, 3072)).astype(np.uint8)
            entries.append([name, write(name, {"data": rows[name], "labels": [i % 10 for i in range(20)]})])
        monkeypatch.setattr(CIFAR10, split, entries)
    md5 = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5})
    return rows["test_batch"]


def test_cifar10_reads_pickled_batches(tmp_path, cifar10):
    data = Images("cifar10", 32, 3, 10, 4, root=str(tmp_path), val_fraction=0.1, mean=[0.0], std=[1.0])
    assert data.sizes == {"train": 90, "val": 10, "test": 20}
    images, targets = next(iter(data.test_dataloader()))
    assert np.array_equal((images * 255).round(), cifar10[:4].reshape(-1, 3, 32, 32))  # red, green, blue planes
    assert targets.tolist() == [0, 1, 2, 3]


def test_damaged_cifar10_is_refused(tmp_path, cifar10):
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"half of it")
    with pytest.raises(UsageError, match=r"does not hold cifar10, or a damaged copy; add data\.download=true"):
        Images("cifar10", 32, 3, 10, 4, root=str(tmp_path))


def write_images(folder: Path, classes: str = "cat dog owl", count: int = 10) -> Path:
    """PNG files in one folder for each class; the red value is the class, the blue value the number of the file."""
    for label, name in enumerate(classes.split()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (10, 8), (label, 0, number)).save(folder / name / f"{number}.png")
    return folder


def pixels(data: Images, name: str) -> list[bytes]:
    source, indices = data.splits[name]
    return [source[index].tobytes() for index in indices]


def test_flat_folder_is_split_whatever_order_the_files_come_in(tmp_path, monkeypatch):
    write_images(tmp_path)
    (tmp_path / "cat" / "deeper").mkdir()
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "deeper" / "0.PNG")
    (tmp_path / "dog" / "._1.png").write_bytes(b"resource fork")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    options = {**SMALL, "name": "folder", "root": str(tmp_path), "val_fraction": 0.2, "test_fraction": 0.2}
    data = Images(**options, mean=[0.0], std=[1.0])
    assert data.class_names == ["cat", "dog", "owl"]
    assert data.num_classes == 3
    assert data.sizes == {"train": 18, "val": 6, "test": 6}
    for images, targets in data.test_dataloader():
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), targets)

    def backwards(*args, walk=os.walk, **options):
        return ((parent, folders, names[::-1]) for parent, folders, names in reversed(list(walk(*args, **options))))

    monkeypatch.setattr(os, "walk", backwards)
    again = Images(**options)
    for name in data.sizes:
        assert pixels(data, name) == pixels(again, name)


def test_folder_with_splits_of_its_own(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", "dog", count=3)
    data = Images("folder", **SMALL, root=str(tmp_path), val_fraction=0.2, test_fraction=0.2)
    assert data.sizes == {"train": 24, "val": 6, "test": 3}
    assert [target for _, targets in data.test_dataloader() for target in targets.tolist()] == [1, 1, 1]


def test_class_called_train_does_not_make_a_split(tmp_path):
    write_images(tmp_path, "bus train")
    assert Images("folder", **SMALL, root=str(tmp_path)).class_names == ["bus", "train"]


def test_imagenet_tests_on_its_validation_set(tmp_path):
    write_images(tmp_path / "train", "n01440764 n01443537", count=6)
    write_images(tmp_path / "val", "n01440764 n01443537", count=2)
    data = Images("imagenet", **SMALL, root=str(tmp_path), crop_pct=0.875)
    assert data.sizes == {"train": 12, "val": 4, "test": 4}
    images, _ = next(iter(data.val_dataloader()))
    assert images.shape == (2, 3, 8, 8)


def test_unreadable_file_is_named(tmp_path):
    write_images(tmp_path)
    (tmp_path / "owl" / "7.png").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"owl.7\.png cannot be read as an image; replace or remove it$"):
        list(Images("folder", **SMALL, root=str(tmp_path)).train_dataloader())


def test_unreadable_file_is_told_in_one_line_by_a_worker_too(tmp_path, monkeypatch, capsys):
    write_images(tmp_path)
    (tmp_path / "owl" / "7.png").write_bytes(b"not a picture")
    data = Images("folder", **SMALL | {"workers": 1}, root=str(tmp_path))
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda argv: list(data.train_dataloader()))
    assert ended.value.code == 2
    path = tmp_path / "owl" / "7.png"
    assert capsys.readouterr().err == f"error: {path} cannot be read as an image; replace or remove it\n"


def no_root(path: Path) -> str:
    return ""


def missing(path: Path) -> str:
    return str(path / "nowhere")


def a_file(path: Path) -> str:
    (path / "file").touch()
    return str(path / "file")


def empty(path: Path) -> str:
    return str(path)


def one_class(path: Path) -> str:
    return str(write_images(path, "cat"))


def class_without_images(path: Path) -> str:
    (write_images(path, "cat dog") / "owl").mkdir()
    return str(path)


def strange_class_in_val(path: Path) -> str:
    write_images(path / "train")
    write_images(path / "val", "cat fox")
    return str(path)


def splits_without_classes(path: Path) -> str:
    for split in ("train", "val"):
        (path / split).mkdir()
        Image.new("RGB", (8, 8)).save(path / split / "1.png")
    return str(path)


def flat_val(path: Path) -> str:
    write_images(path / "train")
    (path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(path / "val" / "ILSVRC2012_val_00000001.png")
    return str(path)


def three_classes(path: Path) -> str:
    return str(write_images(path))


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("folder", no_root, "data.root is not set: data.root=FOLDER names a folder with train/<class>/* or <class>/*"),
        ("folder", missing, "/nowhere does not exist: expected a folder with train/<class>/* or <class>/*"),
        ("imagenet", missing, "/nowhere does not exist: expected a folder with train/<class>/* and val/<class>/*"),
        ("folder", a_file, "/file is not a folder"),
        ("folder", empty, "has no class folders: expected train/<class>/* or <class>/*"),
        ("folder", one_class, "has one class folder only (cat)"),
        ("folder", class_without_images, "owl holds no images"),
        ("folder", strange_class_in_val, "val has the class folder 'fox', which"),
        ("folder", splits_without_classes, "train has no class folders: expected train/<class>/* or <class>/*"),
        ("imagenet", flat_val, "val holds no images in class folders: expected"),
        ("folder", three_classes, "data.num_classes=1000: folder in "),
        ("imagenet", three_classes, "has no train/: expected train/<class>/* and val/<class>/*"),
        ("fashion_mnist", missing, "does not hold fashion_mnist, or a damaged copy; add data.download=true"),
        ("cifar10", empty, "does not hold cifar10, or a damaged copy; add data.download=true"),
    ],
)
def test_folders_that_are_not_what_was_asked_for(tmp_path, name, layout, words):
    classes = 1000 if layout is three_classes else 0
    with pytest.raises(UsageError) as refusal:
        Images(name, 8, 3, classes, 2, root=layout(tmp_path))
    assert words in str(refusal.value).replace(os.sep, "/")
    assert "\n" not in str(refusal.value)


def test_failed_download_is_one_line_with_its_cause(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{tmp_path.as_uri()}/gone/"])
    monkeypatch.setattr(CIFAR10, "url", f"{tmp_path.as_uri()}/gone/cifar.tar.gz")
    for name, size in (("fashion_mnist", 28), ("cifar10", 32)):
        with pytest.raises(UsageError, match=rf"{name} could not be downloaded: .*No such file") as refusal:
            Images(name, size, 3, 10, 2, root=str(tmp_path), download=True).prepare_data()
        assert "\n" not in str(refusal.value)
