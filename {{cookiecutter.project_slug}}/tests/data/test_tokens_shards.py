"""Shards on disk: windows across their borders, and what is refused of them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from {{cookiecutter.package_name}}.data import tokens_stream
from {{cookiecutter.package_name}}.data.tokens import Tokens
from {{cookiecutter.package_name}}.errors import UsageError

LENGTHS = {"train": [5, 1, 70, 24], "val": [9], "test": []}
EOT = 7


def written(root: Path, vocab_size: int = 1000) -> dict[str, np.ndarray]:
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
    everything = written(tmp_path, vocab_size)
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


def test_workers_are_sent_the_names_of_files_and_not_their_contents(tmp_path):
    written(tmp_path)
    dataset = load(tmp_path).dataset("train")
    before = dataset[0, 3]
    sent = pickle.dumps(dataset)
    assert np.fromfile(tmp_path / "train-00002.bin", np.uint8).tobytes()[10:40] not in sent
    assert torch.equal(pickle.loads(sent)[0, 3][1], before[1])


def half(root: Path) -> None:
    path = root / "train-00002.bin"
    path.write_bytes(path.read_bytes()[:70])


def damaged(root: Path) -> None:
    np.full(70, 1001, "<u2").tofile(root / "train-00002.bin")


REFUSALS: list[Any] = [
    (lambda root: (root / "train-00001.bin").unlink(), r"train-00001\.bin is missing; delete the folder"),
    (half, r"train-00002\.bin has 70 bytes, and meta\.json says 140; delete the folder"),
    (lambda root: (root / "meta.json").unlink(), r"has no meta\.json; prepare\.py has not finished it"),
    (lambda root: [path.unlink() for path in root.iterdir()], r"has no meta\.json; python prepare\.py source="),
    (lambda root: (root / "meta.json").write_text("{"), r"meta\.json was not written by prepare\.py"),
    (lambda root: (root / "meta.json").write_text("[]"), r"meta\.json was not written by prepare\.py"),
    (lambda root: change(root, format=2), r"expected format 1, not 2"),
    (lambda root: change(root, dtype="int8"), r"meta\.json was not written by prepare\.py"),
    (lambda root: change(root, splits={}), r"meta\.json was not written by prepare\.py"),
    (lambda root: change(root, dtype="uint32"), r"train-00000\.bin has 10 bytes, and meta\.json says 20"),
    (lambda root: change(root, vocab_size=500), r"has the token \d+, beyond the vocabulary of 500 in meta\.json"),
    (lambda root: change(root, eot=1000), r"eot=1000 is beyond the vocabulary of 1000"),
]


@pytest.mark.parametrize(("damage", "words"), REFUSALS)
def test_shards_that_are_not_what_meta_says_are_refused(tmp_path, damage, words):
    written(tmp_path)
    damage(tmp_path)
    with pytest.raises(UsageError, match=words) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_other_sizes_and_places_are_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(UsageError, match=r"^data\.vocab_size=999: .* has 1000, and 0 takes that$"):
        load(tmp_path, vocab_size=999)
    with pytest.raises(UsageError, match=r"^data\.context=101: there are only 100 tokens to train on$"):
        load(tmp_path, context=101).check_trainable()
    with pytest.raises(UsageError, match=r"^data\.root is not set: data\.root=FOLDER names a folder with meta\.json"):
        load("")


def test_a_token_beyond_the_vocabulary_is_refused_when_it_is_read(tmp_path):
    """meta.json has the largest token of each shard; here the file has changed since."""
    written(tmp_path)
    damaged(tmp_path)
    with pytest.raises(UsageError, match=r"^data: train has the token 1001, beyond the vocabulary of 1000$"):
        list(load(tmp_path).train_dataloader())
