"""What a checkpoint holds of a learner: named tensors and JSON, nothing that can run code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dlmkit import documents
from dlmkit.core.finite import refuse_non_finite
from dlmkit.core.network import ScoreNetwork
from dlmkit.core.objective import Objective
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.folders import RECIPE as RECIPE
from dlmkit.training.loop import Learner
from dlmkit.training.parallel import World

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")
"""The moving average of the weights, or the last ones."""

CONFIG = "config.json"
"""Of an exported folder: what it is, for transformers, and which weights it holds."""

MODEL, EMA = "model.safetensors", "ema.safetensors"
OPTIMISER, STATE = "training/optimiser.safetensors", "training/state.json"


Captured = Mapping[str, Mapping[str, Tensor]]
"""The tensors of a checkpoint, whole and on the CPU, by file and name."""


def capture(learner: Learner, world: World) -> Captured:
    """What :func:`write_checkpoint` writes, in the first process; nothing in others. Collective."""
    files = {
        MODEL: named_tensors(learner.objective),
        EMA: _averages(learner),
        OPTIMISER: _optimiser_tensors(learner),
    }
    return {name: _gathered(tensors, world) for name, tensors in files.items()}


def _gathered(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    gathered = {}
    for name, tensor in tensors.items():
        whole = world.full(tensor)
        if world.first:
            gathered[name] = whole.detach().cpu().contiguous()
    return gathered


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


def write_parts(folder: Path, objective: Objective, tokenizer: Tokenizer) -> None:
    """Write what the model is built from beside its recipe: the tokenizer, the network's files."""
    tokenizer.save(folder)
    for module in objective.modules():
        if isinstance(module, ScoreNetwork):
            module.save(folder)


def restore(learner: Learner, folder: Path, world: World) -> dict[str, Any]:
    """Put ``learner`` where the verified checkpoint ``folder`` was saved; returns its progress.

    Whatever layout saved it: every process reads the whole and keeps its part.
    """
    load_weights(learner.objective, folder / MODEL, world.split)
    _copy(_load(folder / EMA), _averages(learner), folder / EMA, world.split)
    if not world.sharded:
        learner.ema.copy_buffers()
    _restore_optimiser(learner, folder / OPTIMISER, world)
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


def weights_file(folder: Path, weights: Weights | None = None) -> tuple[Path, Weights]:
    """Where ``folder`` holds these weights (None: the moving average, or the only ones), and which
    they are.

    A run's checkpoint holds both. An exported folder holds one set and says in its
    ``config.json`` which; raises UsageError if that is not the one asked for.
    """
    if (folder / EMA).is_file():
        return (folder / MODEL, "raw") if weights == "raw" else (folder / EMA, "ema")
    held = exported(folder)
    if weights not in (None, held):
        raise UsageError(
            f"{folder} holds the {held} weights alone, not the {weights} ones; they are in the "
            "checkpoint that it was exported from"
        )
    return folder / MODEL, held


def exported(folder: Path) -> Weights:
    """Which weights the exported ``folder`` holds. Raises CheckpointError if it is none."""
    return _exported(folder).weights


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that the model in ``folder`` is built in: of a run, fp32."""
    whole = (folder / EMA).is_file()
    return torch.float32 if whole else getattr(torch, _exported(folder).dtype)


def _exported(folder: Path) -> _Config:
    try:
        return documents.shaped(documents.read(folder / CONFIG), _Config)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds neither {EMA} nor a {CONFIG} that says which weights it has: it is "
            "neither a checkpoint nor an exported model"
        ) from error


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tensor shared by two names is listed once."""
    seen: set[int] = set()
    named: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor.detach()
    return named


def _averages(learner: Learner) -> dict[str, Tensor]:
    """Averaged parameters and current buffers by name."""
    named = named_tensors(learner.objective)
    return {name: learner.ema.averages.get(name, tensor) for name, tensor in named.items()}


def _whole(saved: Tensor, own: Tensor) -> Tensor:
    return saved


def load_weights(
    module: nn.Module, path: Path, split: Callable[[Tensor, Tensor], Tensor] = _whole
) -> None:
    """Copy the tensors of ``path`` into ``module``, name by name.

    Raises CheckpointError unless names, shapes and dtypes are exactly those of the module.
    """
    _copy(_load(path), named_tensors(module), path, split)


@torch.no_grad()
def _copy(
    saved: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    path: Path,
    split: Callable[[Tensor, Tensor], Tensor],
) -> None:
    wrong = sorted(set(saved) ^ set(own)) or [
        name
        for name, tensor in own.items()
        if (tensor.shape, tensor.dtype) != (saved[name].shape, saved[name].dtype)
    ]
    if wrong:
        raise CheckpointError(
            f"{path} is not of this recipe's model: {len(wrong)} tensors differ in name, shape or "
            f"dtype, such as {', '.join(wrong[:3])}"
        )
    for name, tensor in own.items():
        tensor.copy_(split(saved[name], tensor))


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    refuse_non_finite(tensors.items(), str(path))
    return tensors


def _optimiser_tensors(learner: Learner) -> dict[str, Tensor]:
    """AdamW's moments and step counts, under the names of their parameters."""
    return {
        f"{name}.{key}": value
        for name, parameter in learner.objective.named_parameters()
        for key, value in learner.optimiser.state.get(parameter, {}).items()
    }


def _restore_optimiser(learner: Learner, path: Path, world: World) -> None:
    saved = _load(path)
    parameters = dict(learner.objective.named_parameters())
    for name, tensor in saved.items():
        owner, _, key = name.rpartition(".")
        shapes = (parameters[owner].shape, torch.Size()) if owner in parameters else ()
        if tensor.shape not in shapes or not tensor.is_floating_point():
            raise CheckpointError(f"{path} is not of this recipe's model: it holds {name}")
        held = world.split(tensor, parameters[owner])
        learner.optimiser.state[parameters[owner]][key] = held.to(parameters[owner].device)
