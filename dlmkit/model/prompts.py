"""What a user gives a text to begin with, checked, as a request of the sampling loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeVar

from dlmkit.core.chat import Conversation, conversations
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import UsageError
from dlmkit.files import quoted
from dlmkit.sampling.prompts import GAP, beginning, gaps
from dlmkit.sampling.requests import Request

ANSWER = 128
"""Tokens drawn for an answer unless a length is said: what LLaDA's and Dream's own code draw."""

Chat = str | Sequence[Any]
"""What a user says, a conversation (a list of turns), or several of these."""

Value = TypeVar("Value", str, int)


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, a text with gaps if ``gapped``, or a conversation to be answered."""

    given: str | Conversation
    gapped: bool = False

    def request(
        self, row: int, tokenizer: Tokenizer, most: int, length: int | None, new: int | None
    ) -> Request:
        """The request for text ``row``: ``length`` tokens in all, or ``new`` ones behind what is
        given, by default ``most``, all that the model reads. Raises UsageError unless it fits."""
        if self.gapped:
            assert isinstance(self.given, str)
            size = length or most
            return Request.infill(row, gaps(self.given, tokenizer, size), size)
        ids, answers = beginning(self.given, tokenizer), not isinstance(self.given, str)
        if answers and length is None and new is None:
            new = max(1, min(ANSWER, most - len(ids)))
        size = (length or most) if new is None else len(ids) + new
        if size > most or len(ids) >= size:
            what = "the conversation" if answers else f"the prompt {quoted(self.given)}"
            wish = f"its text is to have {size}" if size <= most else f"{new} are to follow"
            raise UsageError(
                f"{what} has {len(ids)} tokens, and {wish}: shorten it to "
                f"{min(size, most) - (new or 1)} or fewer"
                + (f", the model reading {most} in all" if size > most else "")
            )
        return Request.prompt(row, ids, size, len(ids) if answers else 0)


def prompts(
    prompt: str | Sequence[str] | None,
    infill: str | Sequence[str] | None,
    lines: Sequence[str],
    chat: Chat | None,
    system: str | None,
) -> list[Prompt]:
    """All that is given, in this order; nothing at all is the empty beginning.

    ``lines`` are beginnings, or texts with gaps where they have one. Raises UsageError for what is
    no text or no conversation.
    """
    given = [
        *(Prompt(_text(text, "prompt")) for text in several(prompt)),
        *(Prompt(_text(text, "infill"), gapped=True) for text in several(infill)),
        *(Prompt(text, GAP.search(text) is not None) for text in lines),
        *(Prompt(turns) for turns in conversations(chat, system)),
    ]
    return given or [Prompt("")]


def _text(value: str, what: str) -> str:
    if isinstance(value, str):
        return value
    raise UsageError(f"{what} is {quoted(value)}; expected a text, or a list of texts")


def whole(value: int, what: str, least: int, most: int = 2**63 - 1) -> int:
    """``value``, an integer from ``least`` to ``most``. Raises UsageError, naming ``what``."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    limit = "2^63 - 1" if most == 2**63 - 1 else str(most)
    raise UsageError(f"{what} is {quoted(value)}; expected an integer from {least} to {limit}")


def several(value: Value | Sequence[Value] | None) -> list[Value]:
    """None, one or several values as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | int) else list(value)
