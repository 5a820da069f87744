"""Documents to ids: split, normalised, tokenised, packed end to end, and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError
from dlmkit_text import cache, pieces
from dlmkit_text.configs import Source
from dlmkit_text.sources import held_out

FORMAT = 3
SPLITS = ("train", "validation")
_TOKENS = {"kind", "size", "lowercase", "fold", "rare"}
_FEW = 20
_BATCH = 1000


@dataclass(frozen=True)
class Corpus:
    """Both splits as ids (int32, documents packed end to end) and as text, one document a line."""

    tokenizer: Tokenizer
    ids: dict[str, NDArray[np.int32]]
    text: dict[str, str]


def build(documents: Sequence[str], options: Source, name: str, folder: Path | None) -> Corpus:
    """The corpus of ``documents``. ``name`` says in errors where they come from.

    ``folder`` may hold the ``tokenizer.json`` of a run, which is then used as it is. Raises
    DataError if a split is empty.
    """
    saved = Tokenizer.load(folder) if folder and (folder / "tokenizer.json").is_file() else None
    key = _key(documents, options, saved)
    if (found := cache.load(key)) is not None:
        return _unpack(*found)
    train, validation = split(documents, options.validation)
    if saved is None:
        normalise = pieces.normaliser(options.tokenizer)
        train, validation = pieces.clean(train, normalise), pieces.clean(validation, normalise)
        keep = pieces.alphabet(train, options.tokenizer.rare or 0.0)
        _refuse_empty(pieces.restrict(train, keep), "training", name)
        train = pieces.restrict(train, keep)
        tokenizer = Tokenizer(pieces.train(train, options.tokenizer))
        keep = set("".join(train))
    else:
        tokenizer = saved
        keep = set("".join(saved.pieces()))
        normalise = saved.backend.normalizer
        train = pieces.restrict(pieces.clean(train, normalise), keep)
        validation = pieces.clean(validation, normalise)
    validation = pieces.restrict(validation, keep)
    for part, kind in ((train, "training"), (validation, "validation")):
        _refuse_empty(part, kind, name)
    return _publish(key, tokenizer, train, validation)


def split(documents: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """(train, validation) by the hash of each document.

    Fewer than 20 documents are too few to draw from: there the end of each is held out.
    """
    if len(documents) >= _FEW:
        chosen = [held_out(text, share) for text in documents]
        return (
            [text for text, out in zip(documents, chosen, strict=True) if not out],
            [text for text, out in zip(documents, chosen, strict=True) if out],
        )
    ends = [_last_space(text, round(len(text) * (1.0 - share))) for text in documents]
    pairs = list(zip(documents, ends, strict=True))
    return [text[:end] for text, end in pairs], [text[end:] for text, end in pairs]


def _last_space(text: str, end: int) -> int:
    return max(text.rfind(" ", 0, end), text.rfind("\n", 0, end)) + 1 or end


def _refuse_empty(documents: Sequence[str], kind: str, name: str) -> None:
    if not documents:
        raise DataError(f"{name}: no text is left for the {kind} split; give more text")


def _pack(documents: Sequence[str], tokenizer: Tokenizer) -> NDArray[np.int32]:
    """The ids of all documents, each followed by the separator."""
    parts = []
    for start in range(0, len(documents), _BATCH):
        lines = [text + pieces.SEPARATOR for text in documents[start : start + _BATCH]]
        encoded = tokenizer.backend.encode_batch_fast(lines, add_special_tokens=False)
        parts += [np.asarray(item.ids, dtype=np.int32) for item in encoded]
    return np.concatenate(parts)


def _publish(
    key: str, tokenizer: Tokenizer, train: Sequence[str], validation: Sequence[str]
) -> Corpus:
    ids = {"train": _pack(train, tokenizer), "validation": _pack(validation, tokenizer)}
    text = {"train": "\n".join(train), "validation": "\n".join(validation)}
    small = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    stored = {f"{s}.ids": ids[s].astype(small) for s in SPLITS}
    raw = {f"{s}.text": np.frombuffer(text[s].encode(), dtype=np.uint8) for s in SPLITS}
    cache.store(key, {**stored, **raw}, tokenizer.backend.to_str())
    return Corpus(tokenizer, ids, text)


def _unpack(arrays: cache.Arrays, note: str) -> Corpus:
    return Corpus(
        Tokenizer(tokenizers.Tokenizer.from_str(note)),
        {split: arrays[f"{split}.ids"].astype(np.int32) for split in SPLITS},
        {split: arrays[f"{split}.text"].tobytes().decode() for split in SPLITS},
    )


def _key(documents: Sequence[str], options: Source, saved: Tokenizer | None) -> str:
    facts = {
        "format": FORMAT,
        "tokenizers": tokenizers.__version__,
        "options": options.model_dump(
            mode="json", include={"validation": True, "tokenizer": _TOKENS}
        ),
        "saved": saved.backend.to_str() if saved else None,
    }
    total = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for text in documents:
        total.update(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return f"text-{total.hexdigest()}"
