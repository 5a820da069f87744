"""Options that several commands share, and what their words mean."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlmkit import files
from dlmkit.errors import UsageError
from dlmkit.plugin import MOST

if TYPE_CHECKING:
    from dlmkit.model import Model


def count(words: str, least: int = 1) -> Any:
    """``-n``: a number of texts, at least ``least``."""
    return typer.Option("-n", "--count", min=least, max=MOST, help=words)


def seed(words: str) -> Any:
    """``--seed``, which has a default."""
    return typer.Option(min=0, max=2**63 - 1, help=words)


def json(words: str) -> Any:
    """``--json``: the result as JSON, of which ``words`` say what it holds."""
    return typer.Option("--json", help=words)


PART = "NAME[:OPTION=VALUE;...]"

Trained = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's folder, a checkpoint, an exported folder, a model that a plugin ships, or a "
        "released one by its folder or hub name.",
    ),
]
Sampled = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's folder, a checkpoint, an exported folder, a model that a plugin ships, a "
        "released one by its folder or hub name, or a recipe with nothing to train (`markov`).",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**63 - 1, help="Text i depends on it and i alone.  [default: 0]"),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, max=MOST, help="Texts side by side.  [default: the recipe's]")
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        help="Points of the grid, t_max to t_min; the last step ends clean.  "
        "[default: the recipe's]",
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="What a text begins with; repeatable: in turns."),
]
Infill = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="A text with gaps, each marked by ___; they share what is left of its length "
        "as evenly as can be; repeatable.",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="One prompt per line; a line with ___ is one to fill in; - reads standard input.",
    ),
]
Length = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tokens of a text; several, repeated, take turns.  [default: the model's]",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar=PART, help="Such as dpm-2m or ancestral:eta=0.5.  [default: the recipe's]"
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(
        metavar=PART, help="Such as sqrt-entropic or karras:rho=3.  [default: the recipe's]"
    ),
]
Exit = Annotated[
    str | None,
    typer.Option(metavar=PART, help="When a text halts: entropy:threshold=0.05; or none."),
]
Guidance = Annotated[
    list[str] | None,
    typer.Option(metavar=PART, help="Innermost first, repeatable; or none."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override one of the recipe's sampling keys, such as sampler.use=ancestral; "
        "repeatable, and stronger than the options above.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one key; repeatable."),
]
"""Any key of a recipe that is not trained yet."""
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write it as pytest-benchmark's JSON."),
]
Held = Annotated[
    Literal["ema", "raw"] | None,
    typer.Option(
        "--weights",
        help="The moving average of the weights, or the last ones.  [default: the average, or "
        "what an exported model holds]",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|...",
        help="Where to compute: cpu, an accelerator as torch names it, such as cuda:1; or auto, "
        "this machine's accelerator if it has one.",
    ),
]

Name = Annotated[str | None, typer.Option(help="The card's title.  [default: the run's folder]")]
Licence = Annotated[
    str | None,
    typer.Option("--license", metavar="ID", help="For the card: apache-2.0, cc-by-4.0, ..."),
]


def seed_of(model: Model, seed: int | None, overrides: Sequence[str]) -> int:
    """--seed, or else --set seed=, or else 0: never the seed that the model was trained with."""
    if seed is not None:
        return seed
    given = any(override.partition("=")[0].strip() == "seed" for override in overrides)
    return model.config.seed if given else 0


def lines_of(file: Path | None) -> list[str]:
    """What --prompts asks for, a line each. Raises UsageError if the file holds nothing."""
    if file is None:
        return []
    try:
        read = sys.stdin.buffer.read() if str(file) == "-" else files.read_bytes(file)
        lines = read.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"--prompts {file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--prompts {file}: not UTF-8 text: {error}") from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UsageError(f"--prompts {file}: it is empty; expected one prompt per line")
    return lines
