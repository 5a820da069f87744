"""The one way of text to a person: to a terminal, and to a page.

Texts of a model, names in recipes, files and traces, what a hub or a plugin says: any of it may
hold characters that a terminal obeys (they fill the clipboard, rename the window, erase what was
said) or that turn the order of a line. Here they become visible. rich is imported for a console
alone.
"""

from __future__ import annotations

import html
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from dlmkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and newline
    "\u202a-\u202e\u2066-\u2069"  # what reorders the text around it
    "\ud800-\udfff]"  # no text at all, and no stream takes it
)


def visible(text: str) -> str:
    r"""``text`` with every character that is obeyed instead of shown as ``\uXXXX``.

    Inside of a JSON document that is the same character's escape, so it stays the same document.
    """
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape(text: str) -> str:
    """``text`` as it may stand in HTML, in an element or in a quoted attribute."""
    return html.escape(visible(text))


class Talk(io.TextIOBase):
    """``stream`` for what is said beside the results: where nobody can hear it any more (a closed
    pipe, a full disk) the work goes on."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"

    def _try(self, method: str, *arguments: Any) -> None:
        try:
            if self.stream is not None:
                getattr(self.stream, method)(*arguments)
        except (OSError, ValueError):  # ValueError: it was closed from within
            self.stream = None


@contextmanager
def writing() -> Iterator[None]:
    """What cannot be written to stdout is a UsageError; a reader that has gone (``| head``) is
    a BrokenPipeError still."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        why = error.strerror or error
        raise UsageError(f"the results cannot be written to standard output: {why}") from error


def silence() -> None:
    """Let what is still buffered for stdout, which cannot be written, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def result(text: str) -> None:
    """A result, as text. Raises UsageError if it cannot be written."""
    with writing():
        print(visible(text))


def say(text: str) -> None:
    """Say anything that is not a result, on stderr."""
    talk = Talk(sys.stderr)
    talk.write(f"{visible(text)}\n")
    talk.flush()


def console(*, talk: bool = False, width: int | None = None) -> Console:
    """A console of rich for results, on stdout, or for ``talk``, on stderr.

    Text is taken as it is: nothing in it is mark-up, an emoji's name or a style.
    """
    from rich.console import Console
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render_str(self, text: str, **style: Any) -> Any:
            return super().render_str(visible(text), **style)  # before its width is measured

        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                plain = segment.control or not _OBEYED.search(segment.text)
                yield segment if plain else Segment(visible(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return VisibleConsole(
        file=cast("TextIO", Talk(sys.stderr)) if talk else None,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
    )


def results() -> Console:
    """:func:`console` for tables: as wide as the terminal, or 100 columns where there is none."""
    screen = console()
    return screen if screen.is_terminal else console(width=100)


def bar(*columns: Any, on: Console | None = None) -> Progress:
    """A bar of progress on stderr, while that is a terminal or a notebook, gone when it ends."""
    from rich.progress import Progress

    there = on or console(talk=True)
    seen = there.is_terminal or there.is_jupyter
    return Progress(*columns, console=there, transient=True, disable=not seen)
