"""``dlmkit trace``: record full runs, from which exit rules are replayed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.cli.output import result, result_json, say
from dlmkit.errors import UsageError

if TYPE_CHECKING:
    from dlmkit.exits.trace import Trace


def trace(
    model: options.Sampled,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new file to write.")],
    count: Annotated[int, options.count("Texts to record, of each prompt.")] = 256,
    seed: options.Seed = None,
    batch_size: options.BatchSize = None,
    prompt: options.Prompt = None,
    infill: options.Infill = None,
    prompts: options.Prompts = None,
    length: options.Length = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    grid: options.Grid = None,
    guidance: options.Guidance = None,
    overrides: options.Overrides = None,
    positions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATISTIC", help="Keep it at every position too, for viewers. Repeatable."
        ),
    ] = None,
    norms: Annotated[
        bool, typer.Option("--norms", help="Keep the norms of x and x0, and the score's angle.")
    ] = False,
    weights: options.Held = None,
    device: options.Device = "auto",
    as_json: Annotated[bool, options.json("A summary as JSON.")] = False,
) -> None:
    """Record full runs: tokens and statistics of every step, in one safetensors file.

    Stopping only truncates, so one trace says what every exit rule would do at every threshold:
    the recipe's own rules (exit, freeze) are left out. All installed statistics are recorded.
    """
    from dlmkit import devices
    from dlmkit.evaluation.conditions import conditions, names
    from dlmkit.exits.record_run import record
    from dlmkit.exits.trace_file import save_trace
    from dlmkit.model import open_model
    from dlmkit.recipe import short

    documents.check_new(out)
    for word in names(overrides or (), "exit", "freeze"):
        raise UsageError(f"--set {word}: a trace holds full runs; rules are replayed on it")
    chosen = short.overrides(sampler, grid, guidance=guidance or ())
    words = [*chosen, *(overrides or ()), "exit=null", "freeze=null"]
    loaded = open_model(model, words, weights=weights, device=devices.choose(device))
    requests = loaded.requests(count, prompt, infill, length, options.lines_of(prompts))
    about = {
        "reference": str(loaded.folder or model),
        "seed": options.seed_of(loaded, seed, words),
        "conditions": conditions(loaded, requests, steps),
    }
    points = loaded.config.sample.steps if steps is None else steps
    what = f"{len(requests)} texts of {loaded.rows(requests)} tokens, {points} steps"
    say(f"{loaded.folder or model}: {what}, no exit rule")
    kept: dict[str, Any] = {"positions": positions or (), "norms": norms}
    recorded = record(loaded, requests, about, steps=points, batch_size=batch_size, **kept)
    save_trace(recorded, out)
    if as_json:
        result_json(_summary(recorded, out))
    else:
        from rich.filesize import decimal

        size = decimal(out.stat().st_size)
        result(f"{out}: {len(recorded.row)} texts, {recorded.steps} steps, {size}")


def _summary(recorded: Trace, out: Path) -> dict[str, Any]:
    from dlmkit.exits.record_run import TOKENS

    return {
        "file": str(out),
        "bytes": out.stat().st_size,
        "texts": len(recorded.row),
        "steps": recorded.steps,
        "evaluations": int(recorded.evaluations[-1]),
        "statistics": sorted(recorded.statistics),
        "about": {key: value for key, value in recorded.about.items() if key != TOKENS},
    }
