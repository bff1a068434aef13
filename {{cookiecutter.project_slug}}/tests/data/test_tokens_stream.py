"""Shards on disk: windows across their borders, and folders that are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from {{cookiecutter.package_name}}.data import tokens_stream
from {{cookiecutter.package_name}}.data.tokens import Tokens

LENGTHS = {"train": [5, 1, 70, 24], "val": [9], "test": []}
EOT = 7


def write(root: Path, vocab_size: int = 1000) -> dict[str, np.ndarray]:
    """Makes a folder of shards by hand, and returns the tokens of each split."""
    random = np.random.default_rng(0)
    dtype = "uint16" if vocab_size <= 2**16 else "uint32"
    meta: dict[str, Any] = {"format": 1, "dtype": dtype, "vocab_size": vocab_size, "eot": EOT, "splits": {}}
    meta["tokenizer"] = {"file": None}
    everything = {}
    for split, lengths in LENGTHS.items():
        pieces = [random.integers(0, vocab_size, length) for length in lengths]
        everything[split] = np.concatenate([*pieces, np.array([], int)])
        shards = [{"file": f"{split}-{i:05}.bin", "tokens": len(p), "max": int(p.max())} for i, p in enumerate(pieces)]
        for shard, piece in zip(shards, pieces, strict=True):
            piece.astype(f"<u{2 if dtype == 'uint16' else 4}").tofile(root / str(shard["file"]))
        meta["splits"][split] = {"bytes": 4 * sum(lengths), "documents": 1, "shards": shards}
    (root / "meta.json").write_text(json.dumps(meta))
    return everything


def change(root: Path, **values) -> None:
    meta = json.loads((root / "meta.json").read_text())
    (root / "meta.json").write_text(json.dumps(meta | values))


def load(root: Path | str, **options) -> Tokens:
    return Tokens(**{"name": "tokens", "context": 8, "vocab_size": 0, "batch_size": 2, "root": str(root), **options})


@pytest.mark.parametrize("vocab_size", [1000, 100_000])
def test_windows_cross_the_borders_of_shards(tmp_path, monkeypatch, vocab_size):
    monkeypatch.setattr(tokens_stream, "MAX_OPEN", 2)  # fewer than there are
    everything = write(tmp_path, vocab_size)
    data = load(tmp_path)
    assert data.found == {"vocab_size": vocab_size}
    assert data.sizes == {"train": 12, "val": 2, "test": 0}
    assert data.bytes_per_token["train"] == data.bytes_per_token["val"] == 4.0
    expected = np.array([EOT, *everything["train"]])
    inputs, targets = data.dataset("train").__getitems__([(0, index) for index in range(12)])
    assert np.array_equal(inputs, expected[:96].reshape(12, 8))
    assert np.array_equal(targets, expected[1:97].reshape(12, 8))
    validated = torch.cat([targets for _, targets in data.val_dataloader()])
    assert validated.flatten().tolist() == [*everything["val"], *[-100] * 7]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "train-00001.bin").unlink(), "missing"),
        (lambda root: (root / "train-00002.bin").write_bytes(b"half"), "4 bytes"),
        (lambda root: (root / "meta.json").unlink(), "not finished"),
        (lambda root: [path.unlink() for path in root.iterdir()], "no meta"),
        (lambda root: (root / "meta.json").write_text("{"), "not written"),
        (lambda root: change(root, format=2), "format"),
        (lambda root: change(root, splits={}), "not written"),
        (lambda root: change(root, dtype="uint32"), "bytes"),
        (lambda root: change(root, vocab_size=500), "vocabulary"),
        (lambda root: change(root, eot=1000), "eot"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, damage, words):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=words) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("options", [{"vocab_size": 999}, {"root": ""}])
def test_options_that_contradict_the_folder_are_refused(tmp_path, options):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"1000|root"):
        load(**{"root": tmp_path, **options})
