"""``dlmkit trace``: record full runs, from which exit rules are replayed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit.cli.output import result, result_json, say
from dlmkit.cli.sample import MODEL, PART, Weights, held_as

if TYPE_CHECKING:
    from dlmkit.sampling.trace import Trace


def trace(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new file to write.")],
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, help="Texts to record, of each prompt.")
    ] = 256,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Text i depends on it and i alone.  [default: 0]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts side by side.  [default: the recipe's]")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What a text begins with; repeatable: in turns."),
    ] = None,
    infill: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A text with gaps, each marked by ___; repeatable."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A prompt a line; a line with ___ is one to fill in."),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tokens of a text; several take turns.  [default: the model's]"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Points of the grid.  [default: the recipe's]")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar=PART, help="Instead of the recipe's.")
    ] = None,
    grid: Annotated[str | None, typer.Option(metavar=PART, help="Instead of the recipe's.")] = None,
    guidance: Annotated[
        list[str] | None,
        typer.Option(metavar=PART, help="none: no guidance. Repeatable."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Override one of the recipe's sampling keys; repeatable.",
        ),
    ] = None,
    positions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATISTIC", help="Keep it at every position too, for viewers. Repeatable."
        ),
    ] = None,
    norms: Annotated[
        bool, typer.Option("--norms", help="Keep the norms of x and x0, and the score's angle.")
    ] = False,
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
    as_json: Annotated[bool, typer.Option("--json", help="A summary as JSON.")] = False,
) -> None:
    """Record full runs: tokens and statistics of every step, in one safetensors file.

    Stopping only truncates, so one trace says what every exit rule would do at every threshold:
    the recipe's own rules (exit, freeze) are left out. All installed statistics are recorded.
    """
    from dlmkit.cli.sample import _device, _lines, _seed
    from dlmkit.conditions import conditions, names
    from dlmkit.errors import UsageError
    from dlmkit.models import load_model
    from dlmkit.recipe import short
    from dlmkit.sampling.trace_file import check_new, save_trace
    from dlmkit.tracing import record

    check_new(out)
    for word in names(overrides or (), "exit", "freeze"):
        raise UsageError(f"--set {word}: a trace holds full runs; rules are replayed on it")
    chosen = short.overrides(sampler, grid, guidance=guidance or ())
    words = [*chosen, *(overrides or ()), "exit=null", "freeze=null"]
    loaded = load_model(model, words, weights=held_as(weights), device=_device(device))
    requests = loaded.requests(count, prompt, infill, length, _lines(prompts) if prompts else [])
    about = {
        "reference": str(loaded.folder),
        "seed": _seed(loaded, seed, words),
        "conditions": conditions(loaded, requests, steps),
    }
    points = loaded.config.sample.steps if steps is None else steps
    what = f"{len(requests)} texts of {loaded.config.length} tokens, {points} steps"
    say(f"{loaded.folder}: {what}, no exit rule")
    kept: dict[str, Any] = {"positions": positions or (), "norms": norms}
    recorded = record(loaded, requests, about, steps=points, batch_size=batch_size, **kept)
    save_trace(recorded, out)
    if as_json:
        result_json(_summary(recorded, out))
    else:
        size = f"{out.stat().st_size / 1e6:.1f} MB"
        result(f"{out}: {len(recorded.row)} texts, {recorded.steps} steps, {size}")


def _summary(recorded: Trace, out: Path) -> dict[str, Any]:
    from dlmkit.tracing import TOKENS

    return {
        "file": str(out),
        "bytes": out.stat().st_size,
        "texts": len(recorded.row),
        "steps": recorded.steps,
        "evaluations": int(recorded.evaluations[-1]),
        "statistics": sorted(recorded.statistics),
        "about": {key: value for key, value in recorded.about.items() if key != TOKENS},
    }
