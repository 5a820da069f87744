"""The tokenizer of a run: the one saved with it, a pretrained one, or one trained on its text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from dlmkit import folders
from dlmkit.core.chat import Template
from dlmkit.core.tokenizer import FILE, PAD, Tokenizer
from dlmkit.errors import DataError
from dlmkit_text import cache, pieces
from dlmkit_text.configs import TextTokens

SEPARATOR = "<eos>"
SAMPLE = 50_000_000
"""Characters of training text that a tokenizer is trained on, at most."""

_FORMAT = 2
_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "config.json", "*.model")


def obtain(
    options: TextTokens,
    documents: Callable[[], Iterator[str]],
    identity: str,
    name: str,
    folder: Path | None,
) -> Tokenizer:
    """The tokenizer that ``options`` ask for.

    ``folder`` may hold the tokenizer of a run, which is then used as it is. One trained on
    ``documents()``, whose ``identity`` it is kept under, is trained by one process for all.
    ``name`` says in errors where they come from.
    """
    if folder is not None and (folder / FILE).is_file():
        return Tokenizer.load(folder)
    if options.name is not None:
        return pretrained(options.name, options)
    facts = [_FORMAT, tokenizers.__version__, options.model_dump(mode="json"), identity]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)

    def build(partial: Path) -> None:
        trained(options, sample(documents(), SAMPLE), name).save(partial)

    return Tokenizer.load(cache.built(f"tokenizer-{digest.hexdigest()}", _whole, build))


def _whole(folder: Path) -> bool:
    try:
        Tokenizer.load(folder)
    except DataError:
        return False
    return True


def sample(documents: Iterable[str], characters: int) -> list[str]:
    """The first ``documents``, to about so many ``characters``."""
    taken = []
    for text in documents:
        taken.append(text)
        characters -= len(text)
        if characters <= 0:
            break
    return taken


def trained(options: TextTokens, documents: list[str], name: str) -> Tokenizer:
    """A tokenizer of ``documents``. Raises DataError if there is nothing to learn from."""
    if options.kind == "bytes":
        _refuse_empty(documents, name)
        return byte_level(documents, options.size or 0)
    lines = pieces.clean(documents, pieces.normaliser(options))
    _refuse_empty(lines, name)
    lines = pieces.restrict(lines, pieces.alphabet(lines, options.rare or 0.0))
    _refuse_empty(lines, name)
    return Tokenizer(pieces.train(lines, options))


def _refuse_empty(documents: list[str], name: str) -> None:
    if not documents:
        raise DataError(f"{name}: no text is left to train a tokenizer on; give more text")


def byte_level(documents: Iterable[str], size: int) -> Tokenizer:
    """Byte-pair merges of UTF-8 bytes within GPT-2's words: every text survives the round trip.

    Where no space comes for long, words end after :data:`dlmkit_text.pieces.LONGEST` characters.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(rf"\S{{{pieces.LONGEST}}}"), behavior="isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, words])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    return Tokenizer(backend, unknown=None, separator=SEPARATOR)


def pretrained(name: str, options: TextTokens) -> Tokenizer:
    """A fast transformers tokenizer by folder or name, in the roles that ``options`` give.

    After a document comes its eos token, or its sep token if it has no eos. Padded positions
    hold its pad token; if it has none, ``<pad>`` becomes its last id. Beginning-of-text tokens
    are not used. Raises DataError if it cannot be found, is not a fast one or lacks a token.
    """
    theirs = _load(name, options.revision)
    if not theirs.is_fast:
        raise DataError(f"tokenizer.name: {name} has no fast tokenizer (tokenizer.json)")
    backend = tokenizers.Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    separator = options.separator or theirs.eos_token or theirs.sep_token
    if separator is None:
        raise DataError(
            f"tokenizer.name: {name} has neither an eos nor a sep token; say which token ends a "
            "document with tokenizer.separator"
        )
    for key, token in (("separator", separator), ("pad", options.pad)):
        if token is not None and backend.token_to_id(token) is None:
            raise DataError(f"tokenizer.{key}: {name} has no token {token!r}")
    pad = options.pad or theirs.pad_token or PAD
    backend.add_special_tokens([pad, separator])
    template = Template.of(theirs)
    return Tokenizer(
        backend, pad=pad, unknown=theirs.unk_token, separator=separator, template=template
    )


def _load(name: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    folder = folders.expanded(name)
    try:
        if not os.path.isdir(folder):
            folder = Path(_fetch(name, revision))
        return with_words(AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False))
    except Exception as error:  # the libraries raise a dozen kinds, their own and the network's
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        where = "it is a folder here" if os.path.isdir(folder) else "it is no folder here"
        raise DataError(
            f"tokenizer.name: {name} cannot be loaded: {where}, and {first}\n"
            f"tokenizers of the hub are kept in {folders.hub()} (HF_HOME); to use one without a "
            "connection, name its folder: --set data.with.tokenizer.name=DIR"
        ) from error


def with_words(tokenizer: Any) -> Any:
    """``tokenizer`` of transformers, which makes one without words where files are missing.

    Raises ValueError for such a one.
    """
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if special.issuperset(tokenizer.get_vocab()):
        raise ValueError("no file of it holds a tokenizer's words")
    return tokenizer


def _fetch(name: str, revision: str | None) -> str:
    """The tokenizer's files in the hub's cache, fetched if they can be."""
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
