"""The parts of a source, turned into shards by any number of processes.

Each part becomes a shard of every split, and a note of what is in them, which is written last. Who does it and when
changes nothing, so what was interrupted goes on with the parts that have no note.
"""

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ... import utils
from ...data.tokens_shards import DTYPES, SPLITS
from ...data.tokens_sources import split_of
from ...data.tokens_text import Bytes, Codec, Tokenizer
from ...errors import UsageError
from .documents import Part, Source

TOKENIZER = "tokenizer.json"
BATCH = 2**20  # characters that are encoded at a time
PIECE = 2**20  # and of one text, of which a tokenizer takes a hundred times the memory


class Job:
    """What a process needs to know to do a part.

    Args:
        out: the folder of the shards, and of the tokenizer, if there is one.
        eot: the token that ends a document; "" finds one, None stands for bytes.
        fractions: of documents in val and test.
    """

    def __init__(self, source: Source, out: Path, eot: str | None, fractions: tuple[float, float]) -> None:
        self.source, self.out, self.eot, self.fractions = source, out, eot, fractions

    @cached_property
    def codec(self) -> Codec:
        return Bytes() if self.eot is None else Tokenizer(self.out / TOKENIZER, self.eot)

    @property
    def dtype(self) -> str:
        return "uint16" if self.codec.vocab_size <= 2**16 else "uint32"

    def note(self, number: int) -> Path:
        return self.out / f"part-{number:05}.json"

    def run(self, number: int, part: Part) -> None:
        """Writes the shards of a part, and then its note: that section of meta.json which tells of them."""
        tokens: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        note: dict[str, dict[str, Any]] = {split: {"bytes": 0, "documents": 0, "shards": []} for split in SPLITS}
        end = np.array([self.codec.eot])
        for texts in batches(self.source.documents(part)):
            pieces = [list(pieces_of(text)) for text in texts]
            encoded = iter(self.codec.encode_batch([piece for several in pieces for piece in several]))
            for text, several in zip(texts, pieces, strict=True):
                content = text.encode()
                split = split_of(content, *self.fractions)
                ids = np.concatenate([*(next(encoded) for _ in several), end])
                tokens[split].append(ids.astype(DTYPES[self.dtype]))
                note[split]["bytes"] += len(content)
                note[split]["documents"] += 1
        for split, arrays in tokens.items():
            if arrays:
                ids, file = np.concatenate(arrays), f"{split}-{number:05}.bin"
                utils.replace(self.out / file, ids.tofile)
                note[split]["shards"].append({"file": file, "tokens": len(ids), "max": int(ids.max())})
        utils.write_json(self.note(number), note)

    def run_all(self, parts: Sequence[Part], workers: int) -> Iterator[None]:
        """Does the parts that have no note, and yields after each.

        Raises:
            UsageError: a document cannot be read, or the system has ended a process.
        """
        missing = [(number, part) for number, part in enumerate(parts) if not self.note(number).exists()]
        if workers == 1 or len(missing) <= 1:
            for number, part in missing:
                self.run(number, part)
                yield
            return
        # Not forked: the tokenizers library has threads, which a forked process would lack.
        context = multiprocessing.get_context("spawn")
        size = min(workers, len(missing))
        pool = ProcessPoolExecutor(size, mp_context=context, initializer=_receive, initargs=(self,))
        try:
            for done in as_completed([pool.submit(_run, *task) for task in missing]):
                done.result()
                yield
        except BrokenProcessPool as error:
            problem = "the system has ended a process, for want of memory perhaps"
            raise UsageError(f"{problem}; the same command goes on, with fewer workers=... if need be") from error
        except BaseException:
            for process in multiprocessing.active_children():  # nobody waits for parts that are done by half
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_job: Job  # of a worker process, which gets it once


def _receive(job: Job) -> None:
    global _job
    _job = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for each process


def _run(number: int, part: Part) -> None:
    _job.run(number, part)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text)
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def pieces_of(text: str) -> Iterator[str]:
    """A text, a very long one in pieces: cut behind the ends of lines, which hardly any tokenizer looks across."""
    start = 0
    while len(text) - start > PIECE:
        end = text.rfind("\n", start, start + PIECE) + 1 or start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]
