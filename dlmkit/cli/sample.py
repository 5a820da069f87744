"""``dlmkit sample``: draw text from a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlmkit.cli.output import result, result_json, say

if TYPE_CHECKING:
    from dlmkit.models import Model, Text


class Weights(StrEnum):
    """Which of a checkpoint's two sets of weights."""

    ema = "ema"
    raw = "raw"


def sample(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run's folder, or one of its checkpoints.")
    ],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Texts to draw.")] = 8,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Text i depends on it and i alone.  [default: 0]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts side by side.  [default: the recipe's]")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What every text begins with.")
    ] = None,
    infill: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A text with gaps, each marked by ___; they share what is left of the "
            "model's length as evenly as can be.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Points of the grid.  [default: the recipe's]")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Override one of the recipe's sampling keys, such as sampler.use=ancestral; "
            "repeatable.",
        ),
    ] = None,
    exit_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Halt by the rule of a certificate, where it holds alone."
        ),
    ] = None,
    weights: Annotated[
        Weights, typer.Option(help="The moving average of the weights, or the last ones.")
    ] = Weights.ema,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto: cuda if any.")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of {index, seed, text, steps, ...}.")
    ] = False,
) -> None:
    """Draw text from a trained model.

    With --seed alone fixed, text i is the same whatever -n and --batch-size are.
    """
    from dlmkit.conditions import exit_override, require
    from dlmkit.evaluation.certificate import Certificate
    from dlmkit.memory import keep_freed
    from dlmkit.models import load_model

    keep_freed()
    overrides = overrides or []
    certificate = None if exit_certificate is None else Certificate.load(exit_certificate)
    if certificate is not None:
        overrides = [*overrides, exit_override(certificate, overrides)]
    loaded = load_model(model, overrides, weights=weights.value, device=_device(device))
    if certificate is not None:
        require(certificate, loaded, loaded.requests(count, prompt, infill), steps)
    chosen = _seed(loaded, seed, overrides)
    texts = _draw(loaded, count, chosen, batch_size, prompt, infill, steps)
    if as_json:
        result_json([asdict(text) for text in texts])
    else:
        _print(texts)


def _draw(
    model: Model,
    count: int,
    seed: int,
    batch_size: int | None,
    prompt: str | None,
    infill: str | None,
    steps: int | None,
) -> list[Text]:
    from dlmkit.sampling.recorders import progress

    requests = model.requests(count, prompt, infill)
    config = model.config
    say(
        f"{model.folder}: {count} texts of {config.length} tokens, "
        f"{steps or config.sample.steps} steps, {config.sampler.use} on {config.grid.use}, "
        f"vocabulary step by {model.parts.kernel}"
    )
    turns = progress(model.stream(requests, seed, steps, batch_size), count)
    return model.texts((sample for step in turns for sample in step.samples), seed)


def _seed(model: Model, seed: int | None, overrides: Sequence[str]) -> int:
    """--seed, or else --set seed=, or else 0: never the seed that the model was trained with."""
    if seed is not None:
        return seed
    given = any(override.partition("=")[0].strip() == "seed" for override in overrides)
    return model.config.seed if given else 0


def _device(name: str) -> str:
    import torch

    from dlmkit.errors import UsageError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: expected cpu, cuda, mps or auto")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: torch cannot use it here: {reason}") from error
    return name


def _print(texts: Sequence[Text]) -> None:
    """One text a line; with an empty line between them if one holds line breaks itself."""
    between = "\n\n" if any("\n" in text.text for text in texts) else "\n"
    result(between.join(text.text for text in texts))
