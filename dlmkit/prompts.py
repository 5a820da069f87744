"""Prompts as token ids: how a text begins, and texts with gaps."""

from __future__ import annotations

import re

from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import UsageError
from dlmkit.files import quoted

GAP = re.compile("_{3,}")
"""What marks a gap in a text to be filled in."""


def beginning(prompt: str, tokenizer: Tokenizer, length: int) -> list[int]:
    """The ids of ``prompt``. Raises UsageError unless it leaves room for a token."""
    ids = tokenizer.encode(prompt)
    if len(ids) >= length:
        raise UsageError(
            f"the prompt {quoted(prompt)} has {len(ids)} tokens, and its text is to have "
            f"{length}: shorten it to {length - 1} or fewer"
        )
    return ids


def gaps(text: str, tokenizer: Tokenizer, length: int) -> list[list[int]]:
    """The ids of what stands between the gaps of ``text``.

    Raises UsageError unless there is a gap and room for a token in each.
    """
    if GAP.search(text) is None:
        raise UsageError(f"{quoted(text)} has no gap to fill in: mark one or more by ___")
    pieces = [tokenizer.encode(piece) for piece in GAP.split(text)]
    known, count = sum(map(len, pieces)), len(pieces) - 1
    if known + count > length:
        raise UsageError(
            f"the text around the gaps of {quoted(text)} has {known} tokens, of {length} in all: "
            f"that leaves no token for {'the gap' if count == 1 else 'each gap'}"
        )
    return pieces
