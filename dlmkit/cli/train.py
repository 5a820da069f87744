"""``dlmkit train``: train a recipe, or say what training it would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmkit.cli import options
from dlmkit.cli.output import result, result_json
from dlmkit.training.signals import StopSignals


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or a shipped recipe's name.")
    ],
    overrides: options.Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder. Default: runs/RECIPE.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="auto|DIR",
            help="auto: go on with the run in --out if it has a checkpoint, else start. "
            "DIR: go on from a run or a checkpoint.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what training would take; train nothing.")
    ] = False,
    as_json: Annotated[bool, options.json("One JSON document.")] = False,
) -> None:
    """Train a recipe, alone or under torchrun.

    A resume repeats the straight run bit for bit. It may change train.stop_after,
    train.checkpoint_every, train.keep_last, the keys of logging, validation and sampling while
    training (train.*_every, train.validation_rows, sample, tracker) and the summary; any other
    change is refused with a diff (exit 2). SIGTERM saves and exits 75, SIGINT (Ctrl-C) saves
    and exits 130; a second signal ends at once. A non-finite loss exits 7 with the last
    checkpoint intact; a damaged checkpoint exits 6 and names a whole one.
    """
    with StopSignals() as stop:
        from dlmkit.recipe.load import load_recipe
        from dlmkit.registry.lookup import Registry

        registry = Registry.load()
        resolved = load_recipe(recipe, overrides or (), registry)
        if dry_run:
            from dlmkit.training import dry

            report = dry.run(resolved, registry)
            if report is not None and as_json:
                result_json(report.json())
            elif report is not None:
                result(report.text())
            return
        from dlmkit.training import run

        ended = run.run(resolved, registry, stop, out=out, resume=resume)
        if ended is not None and as_json:
            result_json(ended.json())
        elif ended is not None:
            result("\n".join(run.describe_end(ended)))
