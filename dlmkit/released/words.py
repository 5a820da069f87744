"""The tokenizer of a released folder, in the form that dlmkit keeps one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlmkit.core.chat import Template
from dlmkit.core.tokenizer import FILE, Tokenizer
from dlmkit.errors import DataError

MERGES = ("vocab.json", "merges.txt")
"""Instead of tokenizer.json: byte-level BPE as Qwen2's tokenizer has it (Dream)."""


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """The tokenizer of ``folder``; None if it holds none. Raises DataError if it is broken."""
    if (folder / FILE).is_file():
        return Tokenizer.load(folder)
    return _merged(folder) if all((folder / name).is_file() for name in MERGES) else None


def special_tokens(tokenizer: Tokenizer | None) -> Mapping[str, int]:
    """The ids of a tokenizer's special and added tokens; empty if there is none."""
    if tokenizer is None:
        return {}
    added = tokenizer.backend.get_added_tokens_decoder()
    return {token.content: index for index, token in added.items()}


def _merged(folder: Path) -> Tokenizer:
    from transformers import Qwen2Tokenizer

    try:
        read = Qwen2Tokenizer.from_pretrained(str(folder), trust_remote_code=False)
        backend = read.backend_tokenizer
    except Exception as error:  # the library's own kinds, a dozen
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: {' and '.join(MERGES)} cannot be read: {words}") from error
    pad, end = read.pad_token or read.eos_token, read.eos_token
    return Tokenizer(backend, pad=pad, unknown=None, separator=end, template=Template.of(read))
