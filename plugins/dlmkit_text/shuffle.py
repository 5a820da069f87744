"""A permutation of any size by random access: nothing is stored, whatever it permutes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 4
_WORD = (1 << 64) - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

Items = NDArray[np.int64]


def permuted(items: Items, size: int, *key: int) -> Items:
    """Where a permutation of ``range(size)`` puts ``items``; another ``key``, another one.

    A Feistel network on the smallest even number of bits that holds ``size`` (Luby and Rackoff
    1988, four rounds), its round function the finaliser of SplitMix64 (Steele, Lea and Flood
    2014), walked until it is back in range (Black and Rogaway 2002): four walks on average at
    most.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _round_keys(key)
    moved = _feistel(items.astype(np.uint64), half, keys)
    while (out := moved >= size).any():
        moved[out] = _feistel(moved[out], half, keys)
    return moved.astype(np.int64)


def uniform(*key: int) -> float:
    """A number in [0, 1) that depends on ``key`` alone."""
    return (_fold(key) >> 11) * 2.0**-53


def _feistel(x: NDArray[np.uint64], half: int, keys: list[int]) -> NDArray[np.uint64]:
    mask, bits = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = x >> bits, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + np.uint64(key)) & mask)
    return (left << bits) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


def _round_keys(key: tuple[int, ...]) -> list[int]:
    return [_fold((*key, index)) for index in range(_ROUNDS)]


def _fold(key: tuple[int, ...]) -> int:
    folded = 0
    for value in key:
        folded = _finish((folded ^ _finish(value + _GOLDEN)) + _GOLDEN)
    return folded


def _finish(x: int) -> int:
    x &= _WORD
    x = (x ^ (x >> 30)) * _MIX_1 & _WORD
    x = (x ^ (x >> 27)) * _MIX_2 & _WORD
    return x ^ (x >> 31)
