"""``dlmkit analyze``: what a trained model does on its way from noise to text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.cli.output import answer, columns, say
from dlmkit.errors import UsageError
from dlmkit.registry.lookup import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping


def analyze(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run's folder, or one of its checkpoints.")
    ],
    checkpoints: Annotated[
        str,
        typer.Option(
            metavar="all|last|N", help="Of a run's checkpoints: all, the last, or N evenly spread."
        ),
    ] = "all",
    count: Annotated[
        int,
        options.count("Texts to draw, and held-out rows to read.", least=2),
    ] = 64,
    seed: Annotated[int, options.seed("Of the texts and of the noise.")] = 0,
    batch_size: options.BatchSize = None,
    steps: Annotated[
        int | None, typer.Option(min=2, help="Points of the grid.  [default: the recipe's]")
    ] = None,
    sampler: options.Sampler = None,
    grid: options.Grid = None,
    overrides: options.Overrides = None,
    scales: Annotated[
        str, typer.Option(metavar="A,B,...", help="Initial noise scales to sweep, or none.")
    ] = "0.5,0.7,0.8,0.9,1,1.1",
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Leave out what needs the recipe's text.")
    ] = False,
    weights: Annotated[
        Literal["ema", "raw"],
        typer.Option(help="The moving average of the weights, or the last ones."),
    ] = "ema",
    device: options.Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="A new folder for report.html, analysis.json and pictures.  [default: "
            "analysis-NAME here; nothing with --json]",
        ),
    ] = None,
    as_json: Annotated[bool, options.json("The whole analysis as JSON.")] = False,
) -> None:
    """Look at what a model has learned and does: pictures, an HTML report, data as JSON.

    Loss and context gain by noise level; where training times were drawn; token switches,
    entropy, KL, margin, norms and the turning of the score along the way; when tokens settle;
    a sweep of the initial noise's scale. Of a run with several checkpoints: how all of it
    changed during training.
    """
    from dlmkit import devices
    from dlmkit.evaluation.conditions import names
    from dlmkit.model import model_folder
    from dlmkit.recipe import short
    from dlmkit_viewers.html import write
    from dlmkit_viewers.study import StudySettings, analyse, chosen

    for word in names(overrides or (), "exit", "freeze"):
        raise UsageError(f"--set {word}: full runs are analysed; rules are replayed by 'view'")
    settings = StudySettings(
        count=count,
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        overrides=[*short.overrides(sampler, grid), *(overrides or ())],
        weights=weights,
        scales=_scales(scales),
        with_data=not no_data,
        device=devices.choose(device),
    )
    reference = model_folder(model, Registry.load())
    folders = chosen(reference, checkpoints)
    if out is None and not as_json:
        out = Path(f"analysis-{reference.resolve().name}")
    if out is not None:
        documents.check_new_folder(out)
    content = {"model": model, **analyse(folders, settings, say)}
    answer(as_json, content, f"{_table(content)}\ncomputed on {content['device']}")
    if out is not None:
        say(f"wrote {write(content, out)}")


def _scales(text: str) -> list[float]:
    if text.strip() == "none":
        return []
    try:
        values = sorted({float(word) for word in text.split(",")})
    except ValueError as error:
        raise UsageError(f"--scales {text}: expected numbers between commas, or none") from error
    if not all(0.0 <= value < float("inf") for value in values):
        raise UsageError(f"--scales {text}: expected numbers of 0 or more")
    return values


def _table(content: Mapping[str, Any]) -> str:
    from dlmkit_viewers.summary import HEAD, rows

    return columns([HEAD, *rows(content)])
