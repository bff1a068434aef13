"""Randomness as a function of where we are, such as (seed, epoch, index), so that a run resumes at any batch."""

import hashlib
import operator
import random
from typing import SupportsIndex

import numpy as np
import torch


def mix(*parts: SupportsIndex) -> int:
    """One 32-bit seed out of any integers: the same in every process, unrelated for neighbouring parts."""
    text = ",".join(str(operator.index(part)) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def seed_all(*parts: SupportsIndex) -> None:
    """Seed python, numpy and torch's default CPU generator; cheap enough to call for every sample."""
    # numpy and torch run the same Mersenne twister: one seed for both would give both the same numbers.
    random.seed(mix(*parts, 0))
    np.random.seed(mix(*parts, 1))  # noqa: NPY002, libraries draw from this global one
    torch.default_generator.manual_seed(mix(*parts, 2))
