"""What a checkpoint holds of a learner: named tensors and JSON, nothing that can run code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from dlmkit import documents
from dlmkit.core.network import ScoreNetwork
from dlmkit.core.objective import Objective
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.folders import RECIPE as RECIPE
from dlmkit.released.stored import Folder, in_file
from dlmkit.training.loop import Learner
from dlmkit.training.parallel import World
from dlmkit.training.shards import Shards

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")
"""The moving average of the weights, or the last ones."""

CONFIG = "config.json"
"""Of an exported folder: what it is, for transformers, and which weights it holds."""

MODEL, EMA = "model.safetensors", "ema.safetensors"
OPTIMISER, STATE = "training/optimiser.safetensors", "training/state.json"
SHARDS = "shards"
"""Instead of these files of tensors: parts of them all, where every process wrote its own."""


Captured = Mapping[str, Mapping[str, Tensor]]
"""The tensors of a checkpoint by file and name."""


def tensors_of(learner: Learner) -> Captured:
    """All that a checkpoint holds of ``learner``, as this process holds it."""
    return {
        MODEL: named_tensors(learner.objective),
        EMA: _averages(learner),
        OPTIMISER: _optimiser_tensors(learner),
    }


def capture(learner: Learner) -> Captured:
    """What :func:`write_checkpoint` writes: :func:`tensors_of` on the CPU."""
    return {
        file: {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        for file, tensors in tensors_of(learner).items()
    }


def sharded(captured: Captured) -> dict[str, Tensor]:
    """The tensors of all files, by the names that they have among :data:`SHARDS`; what is whole in
    every process, such as a buffer, in memory of its own, for two files may hold it."""
    return {
        prefix(file) + name: tensor.clone() if type(tensor) is Tensor else tensor.detach()
        for file, tensors in captured.items()
        for name, tensor in tensors.items()
    }


def prefix(file: str) -> str:
    """What the names of the tensors of ``file`` begin with among :data:`SHARDS`."""
    return f"{Path(file).stem}/"


def stored(folder: Path, file: str) -> Folder:
    """The tensors of ``file`` in the checkpoint ``folder``, whole or among its shards."""
    shards = folder / SHARDS
    return Shards(shards, prefix(file)) if shards.is_dir() else in_file(folder / file)


def write_checkpoint(
    folder: Path,
    captured: Captured,
    learner: Learner,
    recipe: str,
    tokenizer: Tokenizer,
    progress: Mapping[str, Any],
) -> None:
    """Write all files of a checkpoint into ``folder``.

    ``recipe`` is the resolved recipe's text, ``progress`` what the run itself must remember.
    """
    (folder / "training").mkdir()
    for name, tensors in captured.items():
        _save(folder / name, tensors)
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
    write_parts(folder, learner.objective, tokenizer)
    state = {"step": learner.step, "stream": dict(learner.stream_state), "progress": dict(progress)}
    (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def write_parts(
    folder: Path, objective: Objective, tokenizer: Tokenizer, base: bool = False
) -> None:
    """Write what the model is built from beside its recipe: the tokenizer, files of its parts;
    of a network with a ``base`` that is read from elsewhere none."""
    tokenizer.save(folder)
    for module in objective.modules():
        if isinstance(module, Objective) or (isinstance(module, ScoreNetwork) and not base):
            module.save(folder)


def restore(learner: Learner, folder: Path, world: World) -> dict[str, Any]:
    """Put ``learner`` where the verified checkpoint ``folder`` was saved; returns its progress.

    Whatever layout saved it: every process reads, tensor by tensor, and keeps its part.
    """
    load_weights(learner.objective, stored(folder, MODEL), world.split)
    _copy(stored(folder, EMA), _averages(learner), world.split)
    if not world.sharded:
        learner.ema.copy_buffers()
    _restore_optimiser(learner, stored(folder, OPTIMISER), world)
    try:
        state = documents.shaped(documents.read(folder / STATE), _State)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE} cannot be read: {error}") from error
    learner.step, learner.stream_state = state.step, state.stream
    return state.progress


class _State(documents.Shape):
    step: int = Field(ge=0)
    stream: dict[str, Any]
    progress: dict[str, Any]


class _Config(documents.Shape):
    weights: Weights
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    base: str | None = None


def weights_in(folder: Path, weights: Weights | None = None) -> tuple[Folder, Weights]:
    """These weights of ``folder`` (None: the moving average, or the only ones), and which they are.

    A run's checkpoint holds both. An exported folder holds one set and says in its
    ``config.json`` which; raises UsageError if that is not the one asked for.
    """
    if _of_run(folder):
        raw = weights == "raw"
        return stored(folder, MODEL if raw else EMA), "raw" if raw else "ema"
    held = exported(folder)
    if weights not in (None, held):
        raise UsageError(
            f"{folder} holds the {held} weights alone, not the {weights} ones; they are in the "
            "checkpoint that it was exported from"
        )
    return in_file(folder / MODEL), held


def _of_run(folder: Path) -> bool:
    return (folder / EMA).is_file() or (folder / SHARDS).is_dir()


def exported(folder: Path) -> Weights:
    """Which weights the exported ``folder`` holds. Raises CheckpointError if it is none."""
    return _exported(folder).weights


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that the model in ``folder`` is built in: of a run, fp32."""
    return torch.float32 if _of_run(folder) else getattr(torch, _exported(folder).dtype)


def base_of(folder: Path) -> str | None:
    """The model beside whose weights those in the exported ``folder`` stand, if it holds adapters
    alone."""
    return None if _of_run(folder) else _exported(folder).base


def _exported(folder: Path) -> _Config:
    try:
        return documents.shaped(documents.read(folder / CONFIG), _Config)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds neither {EMA} nor a {CONFIG} that says which weights it has: it is "
            "neither a checkpoint nor an exported model"
        ) from error


def named_tensors(module: nn.Module, fixed: bool = True) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tensor shared by two names is listed once.

    Without those that are ``fixed``, parameters which are not trained are left out.
    """
    seen: set[int] = set()
    named: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        still = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        if id(tensor) not in seen and (fixed or not still):
            seen.add(id(tensor))
            named[name] = tensor.detach()
    return named


def _averages(learner: Learner) -> dict[str, Tensor]:
    """Averaged parameters and current buffers by name."""
    named = named_tensors(learner.objective)
    return {name: learner.ema.averages.get(name, tensor) for name, tensor in named.items()}


def _whole(saved: Tensor, like: Tensor) -> Tensor:
    return saved


def load_weights(
    module: nn.Module, saved: Folder, split: Callable[[Tensor, Tensor], Tensor] = _whole
) -> None:
    """Copy the tensors of ``saved`` into ``module``, name by name.

    Raises CheckpointError unless names, shapes and dtypes are exactly those of the module.
    """
    _copy(saved, named_tensors(module), split)


def load_adapters(module: nn.Module, saved: Folder) -> None:
    """Copy the tensors of ``saved``, of whatever precision, into those of ``module`` that are not
    fixed. Raises CheckpointError unless names and shapes are exactly theirs."""
    _copy(saved, named_tensors(module, fixed=False), _whole, converted=True)


@torch.no_grad()
def _copy(
    saved: Folder,
    tensors: Mapping[str, Tensor],
    split: Callable[[Tensor, Tensor], Tensor],
    converted: bool = False,
) -> None:
    there = saved.tensors
    wrong = sorted(set(there) ^ set(tensors)) or [
        name
        for name, tensor in tensors.items()
        if tensor.shape != there[name].shape
        or (tensor.dtype != there[name].dtype and not converted)
    ]
    if wrong:
        raise CheckpointError(
            f"{saved.where} is not of this recipe's model: {len(wrong)} tensors differ in name, "
            f"shape or dtype, such as {', '.join(wrong[:3])}"
        )
    saved.copy_to(tensors, split)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from error


def _optimiser_tensors(learner: Learner) -> dict[str, Tensor]:
    """AdamW's moments and step counts, under the names of their parameters."""
    return {
        f"{name}.{key}": value
        for name, parameter in learner.objective.named_parameters()
        for key, value in learner.optimiser.state.get(parameter, {}).items()
    }


@torch.no_grad()
def _restore_optimiser(learner: Learner, saved: Folder, world: World) -> None:
    parameters, moments = dict(learner.objective.named_parameters()), {}
    for name, there in saved.tensors.items():
        owner, _, key = name.rpartition(".")
        weight = parameters.get(owner)
        shapes = () if weight is None else (weight.shape, torch.Size())
        if weight is None or there.shape not in shapes or not there.dtype.is_floating_point:
            raise CheckpointError(f"{saved.where} is not of this recipe's model: it holds {name}")
        like = weight if there.shape == weight.shape else torch.empty((), device=weight.device)
        moments[name] = torch.empty_like(like, dtype=there.dtype)
        learner.optimiser.state[weight][key] = moments[name]
    saved.copy_to(moments, world.split)
