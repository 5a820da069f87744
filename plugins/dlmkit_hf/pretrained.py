"""Where an encoder comes from: a checkpoint, the hub, a folder, or the keys of a config."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit import documents, folders
from dlmkit.core.context import BuildContext
from dlmkit.core.finite import refuse_non_finite
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import CheckpointError, DataError, RecipeError
from dlmkit_hf import configs, encoders

FILE = "encoder.json"
"""In a checkpoint: the encoder's config, all that building it takes beside the weights."""

OFFSET = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl", "mpnet")
"""Model types that number positions from the padding id on, so that they have fewer."""

ATTENTION = {"auto": "sdpa", "sdpa": "sdpa", "flex": "flex_attention"}
"""What transformers calls the recipe's attention backends."""


def encoder(config: configs.HfEncoder, context: BuildContext) -> tuple[Any, Tensor]:
    """The encoder without word embeddings, pooler or head, and the scale (E) of what it read.

    A checkpoint in ``context.folder`` gives the architecture, without any weights, for those of
    the checkpoint follow. The scale is the standard deviation of each channel of the word
    embeddings. Raises DataError if a pretrained one cannot be had, RecipeError if the
    architecture is not one of transformers' or cannot run as the recipe says.
    """
    from transformers import AutoModelForMaskedLM as Auto  # it comes without a pooler

    attention, saved = _attention(context, "hf-encoder"), _saved(context)
    settings = {"attn_implementation": attention, "dtype": context.dtype}
    name, fresh = str(config.name), config.from_scratch
    if saved is not None:
        described, fresh = _described(_read(saved), str(saved)), True
    elif config.architecture is not None:
        described, fresh = _described(config.architecture, "network.with.architecture"), True
    else:
        described = _found(name, config.revision, "masked")
    if fresh:
        model = _fresh(Auto, described, **settings)
    else:
        model = _pretrained(Auto, name, described, config.revision, **settings)
    table = model.get_input_embeddings().weight
    scale = table.detach().std(dim=0)
    body = model.base_model
    body.set_input_embeddings(nn.Identity())  # the streams stand for it, and nothing reads it
    positions = min(context.length, 8)
    if positions > 1 and not encoders.sees_all(body, len(scale), positions):
        raise RecipeError(f"network: {described.model_type} is a decoder here: {encoders.DECODER}")
    return body, scale


def language_model(
    config: configs.HfModel, context: BuildContext, space: TokenSpace, head: encoders.Head
) -> tuple[Any, float]:
    """A whole model with a ``head`` but without word embeddings, which the table of ``space``
    stands for, and the factor that it multiplies them by.

    The word embeddings of a pretrained one are copied into the table. Raises DataError if it
    cannot be had, and RecipeError if the architecture is not one of transformers' or does not
    fit ``space``.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    auto = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}[head]
    attention: str | None = _attention(context, f"a model with a {head} head")
    saved = _saved(context)
    fresh = config.architecture is not None or saved is not None
    if config.architecture is not None:
        described = _described(config.architecture, "network.with.architecture")
    elif saved is not None:
        described = _described(_read(saved, head), str(saved))
    else:
        described = _found(str(config.name), config.revision, head)
    table, rows = space.table.weight, space.query_dim
    if context.attention == "auto":
        attention = None  # transformers' own choice, for some models have eager attention alone
    settings = {"attn_implementation": attention, "dtype": context.dtype}
    if fresh:
        described.vocab_size = rows
        model = _fresh(auto, described, **settings)
    else:
        model = _pretrained(auto, str(config.name), described, config.revision, **settings)
        known = min(rows, described.vocab_size)
        with _quiet():
            model.resize_token_embeddings(rows)
    words = model.get_input_embeddings()
    if words.weight.shape[1] != space.dim:
        raise RecipeError(
            f"space.with.dim is {space.dim}, and the words of {described.model_type} have "
            f"{words.weight.shape[1]} channels"
        )
    if not fresh:
        with torch.no_grad():
            table[:rows].copy_(words.weight)
            if config.new_mask:
                table[space.corruption.mask] = words.weight[:known].mean(dim=0)
    scale = float(getattr(words, "embed_scale", 1.0))
    model.set_input_embeddings(nn.Identity())  # nothing reads them
    return model, scale


def words(config: configs.WordEmbeddings, context: BuildContext) -> Tensor:
    """The word embeddings (V, E) of an encoder: random ones where a checkpoint's will follow.

    Raises DataError if it cannot be had.
    """
    from transformers import AutoModel

    saved = _saved(context)
    if config.dim is None and saved is not None:
        described = _described(_read(saved), str(saved))
        width = getattr(described, "embedding_size", described.hidden_size)
        return torch.randn(context.vocab_size, width)
    if config.name is None:
        return torch.randn(context.vocab_size, config.dim or 0)
    with _quiet(config.name), _explained(config.name):
        model = AutoModel.from_pretrained(
            _place(config.name),
            revision=config.revision,
            use_safetensors=True,
            trust_remote_code=False,
        )
    refuse_non_finite(model.state_dict().items(), config.name)
    table: Tensor = model.get_input_embeddings().weight.detach()
    return table.to(context.dtype).clone()


def save(described: Any, folder: Path) -> None:
    """Write the encoder's config into ``folder``, without keys that its type does not read.

    Real folders hold such keys (MiniLM's ``gradient_checkpointing``), which a recipe's
    architecture may not.
    """
    known = type(described)().to_dict()
    keys = {key: value for key, value in described.to_diff_dict().items() if key in known}
    text = json.dumps(keys | {"model_type": described.model_type}, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def _attention(context: BuildContext, who: str) -> str:
    attention = ATTENTION.get(context.attention)
    if attention is None:
        raise RecipeError(f"network: {who} has no attention {context.attention!r}: set auto")
    return attention


def _saved(context: BuildContext) -> Path | None:
    """The config that a checkpoint holds, if there is one."""
    saved = None if context.folder is None else context.folder / FILE
    return saved if saved is not None and saved.is_file() else None


def _read(path: Path, head: encoders.Head | None = None) -> dict[str, Any]:
    try:
        content = documents.shaped(documents.read(path), dict[str, Any])
        encoders.check(content) if head is None else encoders.check_kind(content, head)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return content


def _described(keys: Mapping[str, Any], where: str) -> Any:
    """The config of transformers that ``keys`` mean, without dropout. Unknown keys are refused."""
    from transformers import AutoConfig

    options = {key: value for key, value in keys.items() if key != "model_type"}
    try:
        known = AutoConfig.for_model(keys["model_type"]).to_dict()
        config = AutoConfig.for_model(keys["model_type"], **options)
    except Exception as error:  # unknown types, and whatever a config's own checks raise
        raise RecipeError(f"{where}: {_words(error)}") from error
    strange = sorted(set(options) - set(known) - {"architectures", "dtype", "transformers_version"})
    if strange:
        raise RecipeError(f"{where}: {keys['model_type']} has no {strange[0]!r}")
    return _still(config)


def _still(config: Any) -> Any:
    """``config`` with every rate of dropout at zero."""
    for key, value in config.to_dict().items():
        if "dropout" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def _found(name: str, revision: str | None, head: encoders.Head) -> Any:
    """The config of the model ``name``. Raises RecipeError unless it has such a ``head``."""
    from transformers import AutoConfig

    with _explained(name):
        config = AutoConfig.from_pretrained(
            _place(name), revision=revision, trust_remote_code=False
        )
    if encoders.masked(head) and config.model_type not in encoders.masked(head):
        what = f"no encoder: {encoders.DECODER}" if head == "masked" else "no decoder"
        raise RecipeError(f"network: {name} is a {config.model_type}, which is {what}")
    return _still(config)


def _fresh(auto: Any, described: Any, **settings: Any) -> Any:
    """A model of the config ``described``, without weights of any. Raises RecipeError if
    transformers cannot build it."""
    try:
        with _quiet():
            return auto.from_config(described, trust_remote_code=False, **settings)
    except Exception as error:  # whatever a model makes of its config
        raise RecipeError(
            f"network: transformers cannot build {described.model_type}: {_words(error)}"
        ) from error


def _pretrained(auto: Any, name: str, described: Any, revision: str | None, **settings: Any) -> Any:
    """The model ``name`` with its weights. Raises DataError if it cannot be had."""
    with _quiet(name), _explained(name):
        model = auto.from_pretrained(
            _place(name),
            config=described,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            **settings,
        )
    refuse_non_finite(model.state_dict().items(), name)
    return model


def _place(name: str) -> str:
    return str(folders.expanded(name)) if _here(name) else name


def _here(name: str) -> bool:
    return os.path.isdir(folders.expanded(name))


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the libraries raise a dozen kinds, their own and the network's
        where = "it is a folder here" if _here(name) else "it is no folder here"
        raise DataError(
            f"the model {name} cannot be had: {where}, and {_words(error)}\n"
            f"models of the hub are kept in {folders.hub()} (HF_HOME); to use one without a "
            "connection, name its folder: --set network.with.name=DIR"
        ) from error


@contextmanager
def _quiet(name: str | None = None) -> Iterator[None]:
    """Without transformers' report of the head, which is new and thrown away, and without a bar
    where the model ``name`` is a folder: one of the hub may be long on its way."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    here = name is not None and _here(name)
    if here:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if here and bars:
            logging.enable_progress_bar()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
