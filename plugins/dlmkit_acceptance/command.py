"""``dlmkit acceptance``: a model beside exact n-gram models of its text, measured and shown."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.errors import UsageError
from dlmkit.plugin import MOST
from dlmkit.shown import result, say

SHOWN = 20
"""Texts that the document holds as they are, the first of the seed."""


def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's folder, a checkpoint, an exported folder, or a model that ships.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.json", help="A new file; a picture is drawn beside it."),
    ],
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="A causal language model that judges free texts, beside the 6-gram judge: a "
            "from_pretrained folder (`dlmkit metrics judge` makes one) or a name on the hub.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME", help="An encoder, for MAUVE of the same texts (extra: mauve)."
        ),
    ] = None,
    pieces: Annotated[
        list[int] | None,
        typer.Option(
            min=3,
            max=MOST,
            metavar="V",
            help="Further n-gram samplers of V pieces, learned from the training text; repeatable.",
        ),
    ] = None,
    count: Annotated[
        int,
        options.count("Texts a writer and temperature.", least=SHOWN),
    ] = 64,
    rows: Annotated[int, typer.Option(min=2, max=MOST, help="Held-out rows a noise level.")] = 256,
    infilled: Annotated[int, typer.Option(min=2, max=MOST, help="Held-out rows to fill in.")] = 128,
    temperatures: Annotated[
        str, typer.Option(metavar="A,B,...", help="Of the model's score, in ascending order.")
    ] = "0.7,0.8,0.9,1.0,1.1",
    softmax: Annotated[
        str, typer.Option(metavar="A,B,...", help="Of the n-gram samplers, in ascending order.")
    ] = "0.7,0.8,0.9,1.0,1.1",
    batch_size: options.BatchSize = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of all texts.")] = 0,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    quick: Annotated[
        bool, typer.Option("--quick", help="Little of all: shows that it runs, and no more.")
    ] = False,
) -> None:
    """Measure MODEL beside exact n-gram models of its own text, on held-out text.

    Exits 0 whether or not it clears the bar; the last line says which.
    """
    from dlmkit.report import png
    from dlmkit.training.memory import keep_freed
    from dlmkit_acceptance import document as acceptance
    from dlmkit_acceptance.measure import Acceptance, AcceptancePlan

    plan = AcceptancePlan(
        judge,
        encoder,
        tuple(pieces or ()),
        count,
        rows,
        infilled,
        _ascending(temperatures, "--temperatures"),
        _ascending(softmax, "--softmax"),
        batch_size,
        seed,
    )
    if quick:
        plan = plan.little()
    keep_freed()
    stem = out.with_suffix("")
    pictures = {theme: Path(f"{stem}{end}") for theme, end in acceptance.PICTURES.items()}
    documents.check_new(out, *pictures.values())
    measured = Acceptance.of(model, plan, overrides or (), device, say).document()
    document = acceptance.ACCEPTANCE.sealed(measured)
    documents.write_new(out, documents.text(document))
    for theme, path in pictures.items():
        documents.write_new(path, png(acceptance.draw(document, theme)))
    result(acceptance.markdown(document))
    _judgement(document)
    say(f"wrote {out}")


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="What `measure --out` wrote.")],
) -> None:
    """Print what a file of `measure` says, as tables in Markdown."""
    from dlmkit_acceptance import document as acceptance

    document = acceptance.load(file)
    result(acceptance.markdown(document))
    _judgement(document)


def _judgement(document: dict[str, object]) -> None:
    from dlmkit_acceptance import document as acceptance

    for line in acceptance.shortfalls(document):
        result(line)
    result(f"\naccepted: {'yes' if acceptance.passed(document) else 'no'}")


def _ascending(words: str, option: str) -> tuple[float, ...]:
    """Two or more positive numbers, separated by commas. Raises UsageError for anything else."""
    try:
        values = tuple(float(word) for word in words.split(","))
    except ValueError:
        values = ()
    rising = all(a < b for a, b in pairwise(values))
    if len(values) < 2 or not rising or not 0.0 < values[0] <= values[-1] < float("inf"):
        raise UsageError(
            f"{option} {words}: expected two or more positive numbers in ascending order, such as "
            "0.8,0.9,1.0"
        )
    return values
