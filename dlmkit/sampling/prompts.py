"""Prompts as token ids: how a text begins, and texts with gaps."""

from __future__ import annotations

import re

from dlmkit.core.chat import Conversation
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError, UsageError
from dlmkit.files import quoted

GAP = re.compile("_{3,}")
"""What marks a gap in a text to be filled in."""


def beginning(prompt: str | Conversation, tokenizer: Tokenizer) -> list[int]:
    """The ids of ``prompt``, or of a conversation up to the answer.

    Raises UsageError unless the tokenizer knows all of it.
    """
    if isinstance(prompt, str):
        return _ids(prompt, tokenizer)
    try:
        return tokenizer.conversation(prompt)
    except DataError as error:
        raise UsageError(str(error)) from error


def gaps(text: str, tokenizer: Tokenizer, length: int) -> list[list[int]]:
    """The ids of what stands between the gaps of ``text``.

    Raises UsageError unless the tokenizer knows all of it and there is a gap and room for a token
    in each.
    """
    if GAP.search(text) is None:
        raise UsageError(f"{quoted(text)} has no gap to fill in: mark one or more by ___")
    pieces = [_ids(piece, tokenizer) for piece in GAP.split(text)]
    known, count = sum(map(len, pieces)), len(pieces) - 1
    if known + count > length:
        raise UsageError(
            f"the text around the gaps of {quoted(text)} has {known} tokens, of {length} in all: "
            f"that leaves no token for {'the gap' if count == 1 else 'each gap'}"
        )
    return pieces


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    try:
        return tokenizer.encode(text)
    except DataError as error:  # of data it would be a fault; here it is what was asked for
        raise UsageError(str(error)) from error
