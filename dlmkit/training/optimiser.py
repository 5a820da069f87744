"""AdamW with decay on matrices only, and the learning rate as a function of the step."""

from __future__ import annotations

import inspect
import math
from functools import partial

import torch
from torch import nn

from dlmkit.errors import UsageError
from dlmkit.recipe.schema import TrainConfig


class AdamW(torch.optim.AdamW):
    """torch's AdamW, whose steps torch.compile never sees.

    torch wraps these methods against being compiled, and the first call of any of them imports the
    compiler, which takes longer than a short run's steps. Here they are what is wrapped.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def build_optimiser(module: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW over the parameters of ``module``, one fused kernel where the device has one.

    Raises UsageError if it has none.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise UsageError(
            "this recipe's model has no parameters, so there is nothing to train; sample it as it "
            "is, by dlmkit.compose() or `dlmkit bench sampler`"
        )
    matrices = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    build = partial(
        AdamW,
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
    )
    try:
        return build(fused=True)
    except RuntimeError:  # torch knows which devices and types have the kernel
        return build()


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of optimiser step ``step`` (from 0): linear warm-up, then cosine or constant."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return config.learning_rate * (config.final_rate + (1.0 - config.final_rate) * cosine)
