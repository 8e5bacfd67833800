"""Numbers that look random and are functions of others: keys of examples, and which of them a sample holds.

A sample holds the examples of the lowest ranks, each a function of the seed and the example's place: a stream, of which
nobody knows how many examples will come, and a split in memory then give the same one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Keys = NDArray[np.uint64]


def mix_bits(word: Keys) -> Keys:
    """Return words with every bit spread over all 64, one to one.

    Args:
        word: Any number of words.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    mixed: Keys = word + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def rank_places(place_N: Keys, seed: int) -> Keys:
    """Return a rank for each place, all different: a one-to-one mix of the place with the seed.

    Args:
        place_N: Places, (N,).
        seed: At least 0.
    """
    salt = mix_bits(np.array([seed % 2**64], dtype=np.uint64))
    return mix_bits(mix_bits(place_N) ^ salt)


def draw_places(size: int, examples: int, seed: int) -> Tensor:
    """Return some places of a source in order, drawn at random without replacement.

    Args:
        size: How many there are.
        examples: How many are wanted; all where there are no more.
        seed: At least 0.

    Returns:
        Places, (min(size, examples),).
    """
    if examples >= size:
        return torch.arange(size)
    rank_N = rank_places(np.arange(size, dtype=np.uint64), seed)
    return torch.from_numpy(np.sort(np.argpartition(rank_N, examples - 1)[:examples]))
