"""What is asked for: texts that are free, begin with a prompt, or have gaps to fill."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlmkit.errors import UsageError
from dlmkit.types import Ids, Mask


@dataclass(frozen=True)
class Request:
    """One text: ``tokens`` holds an id where the token is given and None where it is wanted.

    ``row`` is the text's index i: with the seed it keys all of its randomness. ``tokens`` may be
    shorter than the model's length; the rest is padding. What stands before ``start`` is asked by
    and is no part of the text, such as a conversation that is answered. ``steps``, where it is
    said, are the grid steps that the text ends after: an end that was decided before.
    """

    row: int
    tokens: tuple[int | None, ...]
    start: int = 0
    steps: int | None = None

    @staticmethod
    def free(row: int, length: int) -> Request:
        """A text of ``length`` tokens of which nothing is known."""
        return Request(row, (None,) * length)

    @staticmethod
    def prompt(row: int, ids: Sequence[int], length: int, start: int = 0) -> Request:
        """A text of ``length`` tokens that begins with ``ids``."""
        return Request(row, (*ids, *(None,) * (length - len(ids))), start)

    @staticmethod
    def infill(row: int, pieces: Sequence[Sequence[int]], length: int) -> Request:
        """A text of ``length`` tokens with a gap between each two neighbouring ``pieces``.

        The gaps share what the pieces leave of ``length`` as evenly as can be, the first ones
        getting one token more. An empty first or last piece puts a gap at that end.
        """
        left, gaps = length - sum(map(len, pieces)), len(pieces) - 1
        tokens: list[int | None] = list(pieces[0])
        for gap, piece in enumerate(pieces[1:]):
            size = left // gaps + (gap < left % gaps)
            tokens += [*[None] * size, *piece]
        return Request(row, tuple(tokens))

    def ended(self, ids: Sequence[int], stop: Collection[int]) -> tuple[int, ...]:
        """``ids`` of this text up to the first token of ``stop`` behind what is given."""
        wanted = len(self.tokens)
        last = max((at for at, token in enumerate(self.tokens) if token is not None), default=-1)
        ends = (at for at in range(last + 1, wanted) if ids[at] in stop)
        return tuple(ids[: next(ends, wanted - 1) + 1])


def unconditional(count: int, length: int, first: int = 0) -> list[Request]:
    """``count`` free texts, numbered from ``first``."""
    return [Request.free(row, length) for row in range(first, first + count)]


@dataclass(frozen=True)
class RowTemplate:
    """Requests as tensors, row-first. ``ids`` is 0 where nothing is given."""

    row: Tensor
    ids: Ids
    given: Mask
    attend: Mask


def template(requests: Iterable[Request], length: int, device: torch.device) -> RowTemplate:
    """The tensors of ``requests``, padded to ``length``. Raises UsageError if one is longer."""
    requests = list(requests)
    shape = (len(requests), length)
    ids = torch.zeros(shape, dtype=torch.int64)
    given, attend = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for i, request in enumerate(requests):
        size = len(request.tokens)
        if not 0 < size <= length:
            raise UsageError(
                f"text {request.row} has {size} tokens; this model writes 1 to {length}"
            )
        ids[i, :size] = torch.tensor([0 if token is None else token for token in request.tokens])
        given[i, :size] = torch.tensor([token is not None for token in request.tokens])
        attend[i, :size] = True
    row = torch.tensor([request.row for request in requests], dtype=torch.int64)
    return RowTemplate(*(part.to(device, non_blocking=True) for part in (row, ids, given, attend)))
