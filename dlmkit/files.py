"""Which files may be read at all: those that a recipe, an option or a folder of a stranger names.

Regular files alone, since a device never ends and a pipe may never begin, and no further than to
a limit. What a message quotes of one is a line at most. Imports nothing of dlmkit.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

MIB = 2**20

DOCUMENT = 64 * MIB
"""The most bytes of a document that is read as a whole: JSON, a list of prompts."""

TEXTS = 2048 * MIB
"""The most bytes of a file of texts that are to be measured or learned from, read as a whole."""

_PNG = b"\x89PNG\r\n\x1a\n"
_QUOTED = 60
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISSOCK, "it is a socket"),
)


def opened(path: Path) -> BinaryIO:
    """The regular file ``path`` (or what a link there leads to), open for reading.

    Raises OSError, whose ``strerror`` is a sentence, for whatever else is there; never waits.
    """
    try:
        # without O_NONBLOCK, opening a pipe waits for who writes into it
        descriptor = os.open(path, os.O_RDONLY | _flag("O_NONBLOCK") | _flag("O_BINARY"))
    except ValueError as error:  # a null character, or half a surrogate pair
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = next((words for is_it, words in _KINDS if is_it(mode)), "it is a device")
            raise OSError(errno.EINVAL, f"{what}, not a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _flag(name: str) -> int:
    return int(getattr(os, name, 0))  # not every platform has each


def why(error: Exception) -> str:
    """What hinders reading, without the number and the name that the system adds to it."""
    return getattr(error, "strerror", None) or str(error)


def read_bytes(path: Path, limit: int | None = DOCUMENT) -> bytes:
    """All of the regular file ``path``. Raises OSError as :func:`opened`, or if it has more than
    ``limit`` bytes; no more than that is read."""
    with opened(path) as file:
        if limit is None:
            return file.read()
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return content


def read_lines(path: Path) -> list[bytes]:
    """The lines of the regular file ``path``, without what ends them. Raises OSError."""
    return read_bytes(path, TEXTS).splitlines()


def read_text(path: Path, limit: int | None = DOCUMENT) -> str:
    """The same as UTF-8 text, with line ends as Python has them. Raises UnicodeDecodeError too."""
    return read_bytes(path, limit).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def written(path: Path, mode: Literal["w", "a"] = "w") -> TextIO:
    """``path`` itself, open for UTF-8 text. Raises OSError for a link, wherever it leads: a folder
    that a stranger packed may hold links to files of whoever goes on in it."""
    if path.is_symlink():  # O_NOFOLLOW, where there is one, leaves no moment between
        raise OSError(errno.ELOOP, "it is a link, which nothing is written through", str(path))
    return open(path, mode, encoding="utf-8", opener=_itself)


def _itself(path: str, flags: int) -> int:
    return os.open(path, flags | _flag("O_NOFOLLOW"), 0o666)


def is_png(path: Path) -> bool:
    """Whether ``path`` is a picture, and not a link to something else that is to be kept."""
    try:
        with opened(path) as file:
            return file.read(len(_PNG)) == _PNG
    except OSError:
        return False


def write_new(path: Path, content: str | bytes) -> None:
    """Make the file ``path``, whole or not at all; text becomes UTF-8. Raises FileExistsError if
    it is there, and OSError if it cannot be written."""
    hidden = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        hidden.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            os.link(hidden, path)  # unlike a rename, it never replaces
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def quoted(value: Any) -> str:
    """``value`` as a message may quote it: its repr, printable, and cut where it is long."""
    # the repr of half a line is enough to cut, whatever the length of the whole
    text = repr(value[: 2 * _QUOTED] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 4]}...{text[-1]}"
