"""Which device a process computes on: the one place that decides, and what devices are called."""

from __future__ import annotations

import os
from itertools import chain

import torch
from torch import nn

from dlmkit.errors import UsageError, describe

AUTO = "auto"
_OTHERS = ("cuda", "xpu", "mps")  # torch.accelerator names one kind, be there a device of it or not


def choose(name: str = AUTO, option: str = "--device") -> torch.device:
    """The device that ``name`` means: ``auto`` is this machine's accelerator, or else the CPU.

    A kind without a number (``cuda``) is the one of this process, by torchrun's LOCAL_RANK. Raises
    UsageError, which begins with ``option``, for a device that torch cannot use here or that lacks
    64-bit floats, in which levels, grids and noise are computed.
    """
    if name == AUTO:
        return accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"{option} {name}: torch knows no such device; expected auto, cpu, or an accelerator "
            "such as cuda, cuda:1, xpu or mps"
        ) from error
    if device.index is None and device.type != "cpu":
        device = _of_process(device.type)
    if reason := unusable(device):
        raise UsageError(f"{option} {name}: torch cannot use it here: {reason}")
    return device


def accelerator() -> torch.device | None:
    """This process's accelerator; None if there is none, or none with 64-bit floats.

    Raises UsageError if torch has found one and nothing can be computed on it.
    """
    kind = torch.accelerator.current_accelerator()
    for name in dict.fromkeys([*([kind.type] if kind else []), *_OTHERS]):
        if torch.get_device_module(name).is_available():
            device = _of_process(name)
            if reason := _failure(device, torch.float32):
                raise UsageError(
                    f"--device {AUTO}: torch finds {device} and cannot use it: {reason}; "
                    "--device cpu leaves it out"
                )
            return device if unusable(device) is None else None
    return None


def _of_process(kind: str) -> torch.device:
    return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")))


def unusable(device: torch.device) -> str | None:
    """Why dlmkit cannot compute on ``device``, by trying; None if it can."""
    return _failure(device, torch.float32) or _failure(device, torch.float64)


def _failure(device: torch.device, dtype: torch.dtype) -> str | None:
    try:
        total = torch.ones(2, dtype=dtype, device=device).sum().item()
    except Exception as error:  # torch raises RuntimeError, AssertionError, TypeError and others
        return describe(error)
    return None if total == 2.0 else f"1 + 1 is {total}"


def of(*modules: nn.Module) -> torch.device:
    """Where the tensors of ``modules`` are, by the first; the CPU if they have none."""
    tensors = (t for module in modules for t in chain(module.parameters(), module.buffers()))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def label(device: torch.device) -> str:
    """``cuda:0 (name of the card)``, or ``cpu``."""
    name = card(device)
    return f"{device} ({name})" if name else str(device)


def card(device: torch.device) -> str | None:
    """What an accelerator is called; None for the CPU, and where torch does not know."""
    if device.type == "cpu":
        return None
    ask = getattr(torch.get_device_module(device), "get_device_name", None)
    return None if ask is None else str(ask(device))
