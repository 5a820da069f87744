"""Documents to ids, one array a document with what ends it, as the tokenizer alone decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dlmkit.core.tokenizer import Tokenizer
from dlmkit_text.pieces import SEPARATOR

BATCH = 32

Ids = NDArray[np.int32]


class Codec:
    """How documents become ids.

    A tokenizer with a separator token reads a document as it is, and the token follows. One of
    characters or pieces reads it as one line of its alphabet, and a newline follows.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = tokenizer.backend
        self.separator = tokenizer.separator_id
        self.normaliser = tokenizer.backend.normalizer
        self.alphabet = None if self.separator is not None else _Alphabet(_characters(tokenizer))

    def encode(self, documents: Sequence[str]) -> list[Ids]:
        """The ids of each document. None for one of which nothing is left."""
        texts = [self._line(text) for text in documents]
        full = [text for text in texts if text.strip()]
        encoded = iter(self.backend.encode_batch_fast(full, add_special_tokens=False))
        return [self._ended(next(encoded).ids) if text.strip() else _NONE for text in texts]

    def _line(self, text: str) -> str:
        if self.alphabet is None:
            return text
        line = " ".join(self.normaliser.normalize_str(text).split()).translate(self.alphabet)
        return f"{' '.join(line.split())}{SEPARATOR}"

    def _ended(self, ids: list[int]) -> Ids:
        if ids and self.separator is not None:
            ids.append(self.separator)
        return np.asarray(ids, dtype=np.int32)


_NONE = np.empty(0, dtype=np.int32)


class _Alphabet(dict[int, int | None]):
    """For ``str.translate``: drops what ``keep`` lacks, spaces excepted."""

    def __init__(self, keep: str) -> None:
        super().__init__((ord(character), ord(character)) for character in {*keep, " "})

    def __missing__(self, character: int) -> None:
        return None


def _characters(tokenizer: Tokenizer) -> str:
    special = tokenizer.roles.values()
    return "".join(piece for piece in tokenizer.pieces() if piece not in special)


def encoded(codec: Codec, documents: Iterable[str]) -> Iterator[Ids]:
    """The ids of all documents of which something is left, encoded many at a time."""
    for batch in _batched(documents):
        yield from (ids for ids in codec.encode(batch) if len(ids))


def _batched(documents: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(documents)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch
