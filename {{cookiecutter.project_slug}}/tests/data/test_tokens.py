"""Windows of tokens: what is in them, that none is lost or seen twice, and every value that is refused."""

import math
import pickle
import sysconfig
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.data import base
from {{cookiecutter.package_name}}.data.tokens import Tokens
from {{cookiecutter.package_name}}.data.tokens_sources import relative_files
from {{cookiecutter.package_name}}.errors import UsageError

TEXT: dict[str, Any] = {
    "name": "text",
    "context": 16,
    "vocab_size": 257,
    "batch_size": 4,
    "include": ["*.txt"],
    "val_fraction": 0.25,
    "test_fraction": 0.25,
}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A file of 1,023 bytes, 1,024 tokens: 512 to train on, and 256 in each of the other splits."""
    path = tmp_path / "book.txt"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 1023).astype(np.uint8).tobytes())
    return path


def tokens_of(book: Path) -> np.ndarray:
    return np.array([*book.read_bytes(), 256])


def data(root: Path, **options) -> Tokens:
    return Tokens(**{**TEXT, "root": str(root), **options})


def rows(loader) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    pairs = (zip(inputs.tolist(), targets.tolist(), strict=True) for inputs, targets in loader)
    return [(tuple(inputs), tuple(targets)) for batch in pairs for inputs, targets in batch]


def test_windows_are_slices_of_the_text_behind_an_end_of_text(book):
    train = data(book).dataset("train")
    expected = np.concatenate([[256], tokens_of(book)[:512]])
    assert len(train) == 512 // 16
    inputs, targets = train.__getitems__([(0, index) for index in range(len(train))])
    assert inputs.dtype == targets.dtype == torch.int64
    assert np.array_equal(inputs, expected[:-1].reshape(32, 16))
    assert np.array_equal(targets, expected[1:].reshape(32, 16))
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    assert torch.equal(train[0, 7][0], inputs[7])
    assert torch.equal(train[0, 7][1], targets[7])


def test_evaluation_fills_up_the_last_window_and_training_leaves_it_out(book):
    tokens = data(book, context=100)
    assert tokens.sizes == {"train": 5, "val": 3, "test": 3}
    targets = torch.cat([targets for _, targets in tokens.val_dataloader()])
    assert targets.shape == (3, 100)
    assert np.array_equal(targets.flatten()[:256], tokens_of(book)[512:768])
    assert (targets.flatten()[256:] == -100).all()
    inputs = torch.cat([inputs for inputs, _ in tokens.val_dataloader()])
    assert np.array_equal(inputs.flatten()[:256], [256, *tokens_of(book)[512:767]])
    assert 0 <= inputs.min() <= inputs.max() <= 256


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_window_is_seen_once_on_any_number_of_ranks(book, monkeypatch, world):
    tokens = data(book, context=30, batch_size=2)
    seen: dict[str, list[Any]] = {"train": [], "val": []}
    for rank in range(world):
        monkeypatch.setattr(base, "rank_and_world", lambda trainer, rank=rank: (rank, world))
        train = tokens.train_dataloader()
        train.sampler.set_epoch(3)
        assert len(train) == 17 // (2 * world)
        seen["train"] += rows(train)
        seen["val"] += rows(tokens.val_dataloader())
    assert len(set(seen["train"])) == len(seen["train"]) == 17 // (2 * world) * 2 * world
    counted = sorted(token for _, targets in seen["val"] for token in targets if token != -100)
    assert counted == sorted(tokens_of(book)[512:768])


def test_order_follows_from_seed_and_epoch_and_not_from_workers(book):
    def epoch(number: int, **options) -> list[Any]:
        loader = data(book, **options).train_dataloader()
        loader.sampler.set_epoch(number)
        return rows(loader)

    assert epoch(1, seed=5) == epoch(1, seed=5, workers=2)
    assert epoch(1, seed=5) != epoch(2, seed=5)
    assert epoch(1, seed=5) != epoch(1, seed=6)
    assert sorted(epoch(1, seed=5)) == sorted(epoch(2, seed=6))


class Recorder(L.LightningModule):
    """Keeps what it was given, and a checkpoint of step 11, within the second epoch."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.checkpoint = checkpoint
        self.seen: list[Any] = []

    def training_step(self, batch, batch_idx):
        self.seen += rows([batch])
        return self.weight * 1.0

    def on_train_batch_end(self, *_):
        if self.global_step == 11:
            self.trainer.save_checkpoint(self.checkpoint)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_resumed_run_sees_the_rest_and_nothing_else(book, tmp_path):
    def fit(resume: Path | None) -> list[Any]:
        net = Recorder(tmp_path / "last.ckpt")
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(accelerator="cpu", enable_checkpointing=False, max_epochs=-1, max_steps=18, **quiet)
        trainer.fit(net, data(book, seed=3, val_fraction=0.0), ckpt_path=resume)
        return net.seen

    whole = fit(None)
    assert len(whole) == 18 * 4
    assert fit(tmp_path / "last.ckpt") == whole[11 * 4 :]


def test_bits_per_byte_of_a_uniform_guess(book, tmp_path):
    """A net that finds every token equally likely needs log2(257) bits for each byte, and as many for the end."""
    tokens = data(book)
    assert tokens.bytes_per_token == {"train": 1.0, "val": 1.0, "test": 255 / 256}
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text("é")
    several = data(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert several.bytes_per_token["train"] == (1023 + 2 + 2) / (1023 + 2 + 2 + 3)
    assert math.isnan(several.bytes_per_token["val"])
    assert several.val_dataloader() == several.test_dataloader() == []


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path):
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    for path in elsewhere / "deep" / "one.txt", root / "own" / "two.txt":
        path.parent.mkdir(parents=True)
        path.write_text(path.stem)
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "own")
    (elsewhere / "deep" / "up").symlink_to(elsewhere)
    assert relative_files(root) == ["linked/deep/one.txt", "own/two.txt"]


def test_a_folder_is_divided_by_file(tmp_path):
    for number in range(60):
        folder = tmp_path / f"chapter{number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(f"<{number}>" * 20)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("secret")

    def documents(tokens: Tokens) -> dict[str, set[bytes]]:
        found = {}
        for split, part in tokens.corpus.splits.items():
            ids = np.empty(len(part.tokens), np.int64)
            part.tokens.read(0, ids)
            ends = np.flatnonzero(ids == 256)
            assert ends[-1] == len(ids) - 1
            found[split] = {ids.tobytes() for ids in (x[x < 256].astype(np.uint8) for x in np.split(ids, ends))} - {b""}
        return found

    before = documents(data(tmp_path))
    assert set.union(*before.values()) == {b"<%d>" % number * 20 for number in range(60)}
    assert sum(map(len, before.values())) == 60
    assert all(5 <= len(before[split]) <= 25 for split in ("val", "test"))
    (tmp_path / "new.txt").write_text("new")
    after = documents(data(tmp_path))
    assert all(before[split] <= after[split] for split in before)


def test_the_standard_library_is_source_code_and_always_the_same(tmp_path, monkeypatch):
    tokens = Tokens("stdlib", 128, 257, 16)
    share = {split: part.bytes for split, part in tokens.corpus.splits.items()}
    assert sum(share.values()) > 3e6
    assert 0.8 < share["train"] / sum(share.values()) < 0.97
    assert min(tokens.sizes.values()) > 100
    ids = np.empty(len(tokens.corpus.splits["train"].tokens), np.int64)
    tokens.corpus.splits["train"].tokens.read(0, ids)
    documents = bytes(np.where(ids == 256, 0, ids).astype(np.uint8)).split(b"\0")
    library = Path(sysconfig.get_path("stdlib"))
    names = [name for name in ("argparse.py", "heapq.py", "json/decoder.py", "shutil.py") if (library / name).exists()]
    assert any((library / name).read_bytes().replace(b"\r\n", b"\n") in documents for name in names)
    assert tokens.found == {"vocab_size": 257}
    again = rows([next(iter(Tokens("stdlib", 128, 0, 16).train_dataloader()))])
    assert again == rows([next(iter(tokens.train_dataloader()))])
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python.zip"))
    with pytest.raises(UsageError, match=r"data=stdlib: .*python\.zip holds no \.py files; take data=text"):
        Tokens("stdlib", 128, 257, 16)


def test_too_little_to_train_on_can_be_evaluated(book):
    tokens = data(book, context=600)
    assert sum((targets != -100).sum() for _, targets in tokens.test_dataloader()) == 256
    with pytest.raises(UsageError, match=r"^data\.context=600: there are only 512 tokens to train on$"):
        tokens.check_trainable()
    with pytest.raises(UsageError, match="one step takes 36 windows, but there are 32 to train on"):
        data(book).check_trainable(9)
    data(book).check_trainable(8)


def test_what_workers_need_can_be_sent_to_them(book):
    dataset, collate = pickle.loads(pickle.dumps((data(book).dataset("val"), data(book).collate("val"))))
    assert rows([collate(dataset.__getitems__([(0, 3)]))]) == rows([data(book).dataset("val").__getitems__([(0, 3)])])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "web"}, "data.name=web: choose from stdlib, text, tokens"),
        ({"context": 0}, "data.context=0: expected at least 1 token"),
        ({"batch_size": 0}, "data.batch_size=0: expected at least 1 window per device and forward pass"),
        ({"workers": -1}, "data.workers=-1: expected 0 (the main process loads) to 1024"),
        ({"vocab_size": 256}, "book.txt has 257, and 0 takes that"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0: expected 0 or more, and less than 1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "= 1: that leaves nothing to train on"),
        ({"root": ""}, "data.root is not set: data.root=PATH names a text file or a folder of them"),
        ({"root": "/no/such"}, "data.root=/no/such does not exist: expected a text file or a folder"),
    ],
)
def test_values_that_cannot_be_are_refused(book, options, words):
    with pytest.raises(UsageError) as refusal:
        data(**{"root": book, **options})
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_folders_without_text_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no file like \*\.txt; data\.include"):
        data(tmp_path)
    with pytest.raises(UsageError, match=r"^data\.include=\[\]: expected patterns of file names, such as \*\.txt$"):
        data(tmp_path, include=[])
    with pytest.raises(UsageError, match=r"^data\.include=\[3\]: expected patterns of file names"):
        data(tmp_path, include=[3])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match="holds no text: every file is empty"):
        data(tmp_path)
