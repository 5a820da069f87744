"""What n-grams are made of: a text's characters, its tokens or its words, as integers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dlmkit.core.tokenizer import Tokenizer

Unit = Literal["characters", "tokens", "words"]
Cut = Callable[[str], Sequence[str]]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")


def words(text: str) -> list[str]:
    """Words, with their inner apostrophes, and punctuation marks."""
    return _WORD.findall(text)


def cutter(unit: Unit, tokenizer: Tokenizer) -> Cut:
    """A function from a text to the list of its units. Tokens are cut anew, unknown ones kept."""
    if unit == "characters":
        return list
    if unit == "words":
        return words
    return lambda text: tokenizer.backend.encode(text, add_special_tokens=False).tokens


class Alphabet:
    """Numbers for the units seen in training, in sorted order; -1 for any other."""

    def __init__(self, units: Iterable[str]) -> None:
        self.units = sorted(set(units))
        self._index = {unit: index for index, unit in enumerate(self.units)}

    def __len__(self) -> int:
        return len(self.units)

    def encode(self, units: Iterable[str]) -> NDArray[np.int64]:
        """One number a unit."""
        return np.fromiter((self._index.get(unit, -1) for unit in units), dtype=np.int64)
