"""The tokenizer of a released folder, in the form that dlmkit keeps one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers

from dlmkit import documents
from dlmkit.core.tokenizer import FILE, PAD, ROLES, Tokenizer
from dlmkit.errors import CheckpointError

MERGES = ("vocab.json", "merges.txt")
"""Instead of tokenizer.json: byte-level BPE as Qwen2's tokenizer has it (Dream)."""


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """The tokenizer of ``folder``; None if it holds none.

    Raises CheckpointError if its files cannot be read.
    """
    backend = _backend(folder)
    if backend is None:
        return None
    roles = _roles(folder)
    pad, end = roles.get("pad_token"), roles.get("eos_token")
    fast = tokenizers.Tokenizer.from_str(backend.to_str())
    fast.no_padding()
    fast.no_truncation()
    pad = pad if pad is not None and fast.token_to_id(pad) is not None else end
    if pad is None or fast.token_to_id(pad) is None:
        raise CheckpointError(
            f"{folder / ROLES}: names neither a pad_token nor an eos_token that {FILE} has, and "
            f"padded positions need one ({PAD} is not made up: the table of tokens has no row)"
        )
    end = end if end is not None and fast.token_to_id(end) is not None else None
    return Tokenizer(fast, pad=pad, unknown=None, separator=end)


def special_tokens(folder: Path) -> Mapping[str, int]:
    """The ids of the tokenizer's special and added tokens; empty if there is no tokenizer."""
    backend = _backend(folder)
    if backend is None:
        return {}
    added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    named = {token: backend.token_to_id(token) for token in _roles(folder).values()}
    return {**added, **{token: i for token, i in named.items() if i is not None}}


@cache
def _backend(folder: Path) -> Any:
    """The `tokenizers` pipeline that the folder's files mean, or None."""
    try:
        if (folder / FILE).is_file():
            return tokenizers.Tokenizer.from_str(documents_text(folder / FILE))
        if all((folder / name).is_file() for name in MERGES):
            from transformers import Qwen2Tokenizer

            return Qwen2Tokenizer.from_pretrained(
                str(folder), trust_remote_code=False
            ).backend_tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # bare Exception for every fault; PanicException is none
        words = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: its tokenizer cannot be read: {words}") from error
    return None


def documents_text(path: Path) -> str:
    """The JSON in ``path`` as text, checked like all JSON of strangers."""
    from dlmkit import files

    text = files.read_text(path)
    documents.parse(text)
    return text


def _roles(folder: Path) -> dict[str, str]:
    """Which token plays which role (``pad_token``, ``mask_token``, ...)."""
    path = folder / ROLES
    if not path.is_file():
        return {}
    try:
        content = documents.shaped(documents.read(path), dict[str, Any])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    roles = {}
    for key, value in content.items():
        if isinstance(value, dict):
            value = value.get("content")
        if key.endswith("_token") and isinstance(value, str):
            roles[key] = value
    return roles
