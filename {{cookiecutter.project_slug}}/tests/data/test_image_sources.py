"""Sources of images: files as a person sees them, and folders as they lie about."""

import numpy as np
import pytest
from PIL import Image

from {{cookiecutter.package_name}}.data.image_sources import convert, load

from .test_images import folder, pack, write_images


def test_pixels_are_those_that_a_person_sees(tmp_path):
    """16 bits by their range, turned by EXIF, transparent pixels on a background."""
    deep = Image.fromarray(np.array([[1000, 40000]], dtype=np.uint16))
    deep.save(tmp_path / "deep.png")
    assert np.array(convert(Image.open(tmp_path / "deep.png"), "L")).tolist() == [[4, 156]]
    assert np.array(convert(Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)), "L")).tolist() == [[0, 128]]
    with pytest.raises(ValueError, match="expected 0 to 1"):
        convert(Image.fromarray(np.array([[0.0, 300.0]], dtype=np.float32)), "L")

    picture = Image.new("L", (40, 20))
    picture.paste(255, (0, 0, 40, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    assert convert(Image.open(tmp_path / "turned.png"), "L").tobytes() == picture.rotate(-90, expand=True).tobytes()

    square = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    square.paste((0, 0, 0, 255), (1, 1, 3, 3))
    assert convert(square, "RGB").getpixel((0, 0)) == (255, 255, 255)
    assert convert(square, "RGB").getpixel((1, 1)) == (0, 0, 0)
    assert convert(square, "RGB", "red").getpixel((0, 0)) == (255, 0, 0)
    assert convert(square, "RGBA").getpixel((0, 0)) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="10000x1"):
        convert(Image.new("L", (10000, 1)), "L")


def test_leftovers_of_other_programs_are_no_images(tmp_path):
    root = write_images(tmp_path / "r", "cat dog", 10)
    for name in ("cat/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/cat/._0.png", "dog/._0.png", ".thumbs/0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no image" if "_0" in name else (root / "cat" / "0.png").read_bytes())
    pack(tmp_path / "r.tar", root)
    for source in (root, tmp_path / "r.tar"):
        train = load("folder", str(source))["train"]
        assert (train.class_names, len(train.targets)) == (["cat", "dog"], 20)
        reds = [train.image(index, "RGB").getchannel("R").getpixel((0, 0)) for index in range(20)]
        assert reds == train.targets.tolist()
    (root / "notes.txt").touch()
    data = folder(root)
    assert data.passed_over == 5
    assert data.notes[0] == "classes: cat, dog"
    assert "left out: 5 files" in data.notes[1]


def test_classes_with_numbers_are_in_natural_order(tmp_path):
    assert load("folder", str(write_images(tmp_path, "1 10 2")))["train"].class_names == ["1", "2", "10"]


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        ("Train Test", (10, 0, 10)),
        ("training validation test", (10, 10, 10)),
        ("seg_train seg_test", (10, 0, 10)),
        ("train valid", (10, 10, 10)),  # the validation set is the test set too
    ],
)
def test_usual_names_of_splits(tmp_path, names, sizes):
    for name in names.split():
        write_images(tmp_path / name, "cat dog", 5)
    data = folder(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert tuple(data.sizes[split] for split in ("train", "val", "test")) == sizes
