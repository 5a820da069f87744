"""``dlmkit sample``: draw text from a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dlmkit.cli.output import result, result_json, say
from dlmkit.recipe import short

if TYPE_CHECKING:
    import torch

    from dlmkit.models import Model, Text
    from dlmkit.sampling.requests import Request
    from dlmkit.training.parallel import World


class Weights(StrEnum):
    """Which of a checkpoint's two sets of weights."""

    ema = "ema"
    raw = "raw"


def held_as(weights: Weights | None) -> Literal["ema", "raw"] | None:
    """The same for the library; None: what the model holds."""
    return None if weights is None else weights.value


PART = "NAME[:OPTION=VALUE;...]"
MODEL = "A run's folder, a checkpoint, an exported folder, or a model that a plugin ships."


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            min=1,
            help="Texts to draw, of each prompt if there are several.  [default: 8; 1 of each "
            "of several prompts]",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Text i depends on it and i alone.  [default: 0]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts side by side.  [default: the recipe's]")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What a text begins with; repeatable."),
    ] = None,
    infill: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A text with gaps, each marked by ___; they share what is left of its length "
            "as evenly as can be; repeatable.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A prompt a line; a line with ___ is one to fill in."),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Tokens of a text; several, repeated, take turns.  [default: the model's]",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Points of the grid, t_max to t_min; the last step ends clean.  "
            "[default: the recipe's]",
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar=PART, help="Such as dpm-2m or ancestral:eta=0.5.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(metavar=PART, help="Such as sqrt-entropic or karras:rho=3.")
    ] = None,
    exit: Annotated[
        str | None,
        typer.Option(metavar=PART, help="When a text halts: entropy:threshold=0.05; or none."),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(metavar=PART, help="An exit rule by which single positions settle; or none."),
    ] = None,
    guidance: Annotated[
        list[str] | None,
        typer.Option(metavar=PART, help="Innermost first, repeatable; or none."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Override one of the recipe's sampling keys, such as sampler.use=ancestral; "
            "repeatable, and stronger than the options above.",
        ),
    ] = None,
    exit_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Halt by the rule of a certificate, where it holds alone."
        ),
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="The moving average of the weights, or the last ones.  [default: the average, or "
            "what an exported model holds]"
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto: cuda if any.")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of {index, seed, text, steps, ...}.")
    ] = False,
) -> None:
    """Draw text from a trained model, alone or under torchrun.

    With --seed alone fixed, text i is the same whatever -n, --batch-size and the number of
    processes are. Several prompts take turns: of P prompts, text i answers number i mod P, in
    the order --prompt, --infill, --prompts.
    """
    from dlmkit.conditions import exit_override, require
    from dlmkit.evaluation.certificate import Certificate
    from dlmkit.memory import keep_freed
    from dlmkit.models import load_model
    from dlmkit.training.parallel import world

    keep_freed()
    set_ = [*short.overrides(sampler, grid, exit, freeze, guidance or ()), *(overrides or ())]
    certificate = None if exit_certificate is None else Certificate.load(exit_certificate)
    if certificate is not None:
        set_.append(exit_override(certificate, set_))
    lines = _lines(prompts) if prompts else []
    several = len(prompt or []) + len(infill or []) + len(lines) > 1
    count = count or (1 if several else 8)
    with world(device=_device(device)) as processes:
        loaded = load_model(model, set_, weights=held_as(weights), device=processes.device)
        requests = loaded.requests(count, prompt, infill, length, lines)
        if certificate is not None:
            require(certificate, loaded, requests, steps)
        texts = _draw(loaded, requests, _seed(loaded, seed, set_), batch_size, steps, processes)
    if not processes.first:
        return
    if as_json:
        result_json([asdict(text) for text in texts])
    else:
        _print(texts)


def _lines(file: Path) -> list[str]:
    """What is asked for in ``file``, a line each. Raises UsageError if there is nothing."""
    from dlmkit.errors import UsageError

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--prompts {file}: cannot be read: {error}") from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UsageError(f"--prompts {file}: the file is empty; expected a prompt a line")
    return lines


def _draw(
    model: Model,
    requests: Sequence[Request],
    seed: int,
    batch_size: int | None,
    steps: int | None,
    world: World,
) -> list[Text]:
    from dlmkit.models import gather
    from dlmkit.sampling.recorders import progress

    config = model.config
    sizes = sorted({len(request.tokens) for request in requests})
    own = requests[world.rank :: world.size]
    turns = model.stream(own, seed, steps, batch_size)
    if world.first:
        say(
            f"{model.folder}: {len(requests)} texts of {' or '.join(map(str, sizes))} tokens, "
            f"{steps or config.sample.steps} steps, {config.sampler.use} on {config.grid.use}, "
            f"vocabulary step by {model.parts.kernel}"
        )
        turns = progress(turns, len(own))
    return model.texts(gather(turns, world), seed)


def _seed(model: Model, seed: int | None, overrides: Sequence[str]) -> int:
    """--seed, or else --set seed=, or else 0: never the seed that the model was trained with."""
    if seed is not None:
        return seed
    given = any(override.partition("=")[0].strip() == "seed" for override in overrides)
    return model.config.seed if given else 0


def _device(name: str) -> torch.device:
    import torch

    from dlmkit.errors import UsageError
    from dlmkit.training.parallel import pick_device

    if name == "auto":
        return pick_device()
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: expected cpu, cuda, mps or auto")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: torch cannot use it here: {reason}") from error
    return pick_device() if name == "cuda" else torch.device(name)


def _print(texts: Sequence[Text]) -> None:
    """One text a line; with an empty line between them if one holds line breaks itself."""
    between = "\n\n" if any("\n" in text.text for text in texts) else "\n"
    result(between.join(text.text for text in texts))
