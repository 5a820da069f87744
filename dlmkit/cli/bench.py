"""``dlmkit bench``: measure how a model samples, and compare two measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmkit.cli.bench_cases import list_cases, run_cases
from dlmkit.cli.bench_sampler import sampler
from dlmkit.cli.output import result, writing
from dlmkit.errors import GateFailed
from dlmkit.shown import results

bench = typer.Typer(help="Measure sampling, and compare measurements.", no_args_is_help=True)
bench.command("list")(list_cases)
bench.command("run")(run_cases)
bench.command()(sampler)


@bench.command()
def compare(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="A --json file of `dlmkit bench sampler` or run.")
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another, made by the same protocol.")],
    fail_over: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Fail (exit code 8) if time, evaluations or NLL of a case grew by more, or if a "
            "case has gone: 5% for instance.",
        ),
    ] = None,
) -> None:
    """Say what changed from one measurement to another.

    Runs of different protocols (model, texts, seed, machine, threads, ...) are refused with exit
    code 2, naming what differs. A failed gate ends with exit code 8.
    """
    from dlmkit.bench import document
    from dlmkit.bench.compare import compare as compared
    from dlmkit.bench.defaults import share
    from dlmkit.bench.tables import comparison

    limit = None if fail_over is None else share("--fail-over", fail_over)
    changes = compared(document.read(before), document.read(after))
    with writing():
        results().print(comparison(changes))
    for note in (*changes.notes, *(f"{name}: new" for name in changes.only_after)):
        result(note)
    if limit is None:
        return
    failures = changes.failures(limit)
    if failures:
        raise GateFailed(f"worse by more than {100 * limit:g} %:\n  " + "\n  ".join(failures))
    result(f"nothing is worse by more than {100 * limit:g} %")
