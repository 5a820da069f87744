"""Adapters of low rank (LoRA, 2106.09685) in a model of transformers, by `peft`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit.errors import PluginError, RecipeError
from dlmkit_hf import configs

NAME = "default"
"""What `peft` calls an adapter that has no name."""


def adapt(model: Any, options: configs.Lora) -> None:
    """Put adapters beside layers of ``model``, in place, and freeze all else.

    They start at zero: nothing changes before they are trained. Raises PluginError if `peft` is
    not installed, and RecipeError if ``options.targets`` name no layer.
    """
    config = _config(options)
    peft = _peft()
    try:
        peft.inject_adapter_in_model(config, model)
    except ValueError as error:
        raise RecipeError(f"network.with.lora: {' '.join(str(error).split())[:300]}") from error


def base_name(name: str) -> str | None:
    """What the tensor ``name`` was called before :func:`adapt`; None for those of adapters."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


@contextmanager
def acting_from(model: nn.Module, first: int | None) -> Iterator[None]:
    """The adapters of ``model`` act on positions from ``first`` on alone; None: on none at all.

    Before it the model puts out what it does without adapters, to the bit.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    def cut(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        out[:, :first] = 0.0
        return out

    layers: Any = (m for m in model.modules() if isinstance(m, BaseTunerLayer))
    hooks = [layer.lora_B[NAME].register_forward_hook(cut) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapters of ``model`` to the weights beside them, in place, and take them away."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())


def save(model: nn.Module, options: configs.Lora, base: str, folder: Path) -> None:
    """Write the adapters of ``model`` alone: a folder that `peft` opens on the model ``base``."""
    from safetensors.torch import save_file

    suffix = f".{NAME}."
    tensors = {
        f"base_model.model.{name.replace(suffix, '.')}": tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = _config(options)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))


def _config(options: configs.Lora) -> Any:
    return _peft().LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=options.targets or "all-linear",
        lora_dropout=0.0,
        bias="none",
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise PluginError(
            f"network.with.lora needs the package peft ({error}): run pip install 'dlmkit[lora]'"
        ) from error
    return peft
