"""``dlmkit bench``: measure how a model samples, and compare two measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit.cli import options
from dlmkit.cli.bench_cases import list_cases, run_cases
from dlmkit.cli.output import result, say, writing
from dlmkit.shown import results

if TYPE_CHECKING:
    from dlmkit.bench.plan import Plan
    from dlmkit.model import Model

bench = typer.Typer(help="Measure sampling, and compare measurements.", no_args_is_help=True)
bench.command("list")(list_cases)
bench.command("run")(run_cases)

PARTS = "[default: the recipe's, and more with --full]"


@bench.command()
def sampler(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A run's folder, one of its checkpoints, or `markov`: the exact test-bed.  "
            "[default: the model that ships with dlmkit, or markov if none does]",
        ),
    ] = None,
    early_exit: Annotated[
        bool,
        typer.Option(
            "--early-exit",
            help="Compare exit rules with the full run, the best fixed exit, a coarser grid of "
            "the same mean evaluations, and the oracle exit; one verdict a rule.",
        ),
    ] = False,
    decoders: Annotated[
        bool,
        typer.Option(
            "--decoders",
            help="Of masked models: compare every order and quota with random order on a coarser "
            "grid at equal evaluations; one verdict a rule. --steps are the mean evaluations "
            "(4,8,16,32); of the other options -n, --batch-size, --seed, --set and --json apply.",
        ),
    ] = False,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache",
            help="Of masked models: seconds with and without every cache, and the share of tokens "
            "that it leaves as they are. At --batch-size 1,8,32, --given 50 and the recipe's "
            "--steps; of the other options --rounds, --seed, --set and --json apply.",
        ),
    ] = False,
    device: options.Device = "auto",
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick",
            help="Every sampler and grid, 2,000 texts, 7 rounds; or minutes on two cores.",
        ),
    ] = False,
    samplers: Annotated[
        str | None, typer.Option("--sampler", metavar="A,B", help=f"Samplers.  {PARTS}")
    ] = None,
    grids: Annotated[
        str | None, typer.Option("--grid", metavar="A,B", help=f"Grids.  {PARTS}")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="N,M",
            help="Points of the grid.  [default: with --early-exit the recipe's, else 16,32,64]",
        ),
    ] = None,
    exits: Annotated[
        str | None,
        typer.Option(
            "--exit",
            metavar="A,B",
            help="Exit rules. One without its threshold gets the best that keeps --bound; 'tuned' "
            "stands for a number inside others.  [default: none; with --early-exit all]",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Rules that settle single positions, with their thresholds; always run for real.",
        ),
    ] = None,
    guidance: Annotated[
        str, typer.Option(metavar="A,B", help="Guidance, one at a time; none is one of them.")
    ] = "none",
    batch_size: Annotated[
        str | None, typer.Option(metavar="N,M", help="Slots.  [default: the recipe's]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="fp32, bf16, int8, fp32+compile, bf16+compile, bf16+graphs.  [default: fp32; on "
            "an accelerator also bf16, and on cuda bf16+graphs]",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a recipe key; repeatable."),
    ] = None,
    count: Annotated[
        int | None,
        options.count("Texts reported on.  [default: at most 256, or 2000]", least=8),
    ] = None,
    bound: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of differing tokens that choosing a threshold may cost."
        ),
    ] = 0.01,
    given: Annotated[
        str,
        typer.Option(
            metavar="P,Q",
            help="Percent of each text given as its beginning, in turn: 0,30,60,90 is a queue of "
            "mixed difficulty, with the best fixed exit tuned for each.",
        ),
    ] = "0",
    seed: Annotated[int, options.seed("Of all texts.")] = 0,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Timing rounds, interleaved.  [default: at most 3, or 7]"),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write it as pytest-benchmark's JSON."),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pictures as PNG.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report in one file.")
    ] = None,
) -> None:
    """Measure how a model samples: evaluations, seconds and the quality of the text together.

    Parts are written name or name:option=value;option=value, lists with commas. Texts depend on
    --seed and their index alone, so every case answers the same requests from the same noise.
    """
    from dlmkit import devices, documents
    from dlmkit.bench import document
    from dlmkit.bench.parts import default_model
    from dlmkit.bench.sampler import run
    from dlmkit.model import open_model
    from dlmkit.training.memory import keep_freed

    keep_freed()
    chosen = devices.choose(device)
    documents.check_writable(json_file, html)
    if plots is not None:
        documents.check_folder(plots)
    name = model or default_model()
    opened = open_model(name, overrides or (), device=chosen)
    if decoders or cache:
        others: dict[str, Any] = {
            "--sampler": samplers,
            "--grid": grids,
            "--exit": exits,
            "--freeze": freeze,
        }
        others |= {"--precision": precision, "--plots": plots, "--html": html}
        others |= {"--early-exit": early_exit or None, "--full": full or None}
        others |= {"--guidance": None if guidance == "none" else guidance}
        if cache:
            others |= {"--decoders": decoders or None, "-n": count}
            _unused(others, "--cache")
            found = _cached(opened, name, steps, batch_size, given, rounds, seed)
        else:
            others |= {"--rounds": rounds, "--given": None if given == "0" else given}
            _unused(others, "--decoders")
            found = _compared(opened, name, steps, count, batch_size, seed)
        if json_file is not None:
            documents.write(json_file, documents.text(found))
            say(f"wrote {json_file}")
        return
    lists = {"sampler": samplers, "grid": grids, "steps": steps, "batch_size": batch_size}
    lists |= {
        "guidance": guidance,
        "precision": precision,
        "exit": exits,
        "freeze": freeze,
        "given": given,
    }
    facts: dict[str, Any] = {"model": name, "seed": seed, "bound": bound, "early_exit": early_exit}
    plan = _plan(opened, lists, full, count, rounds, facts)
    content = run(opened, plan, say)
    _show(content)
    if json_file is not None:
        document.write(content, json_file)
    if plots is not None or html is not None:
        _draw(content, plots, html)


def _unused(others: dict[str, Any], option: str) -> None:
    """Raise UsageError if one of ``others`` is given, which do nothing with ``option``."""
    from dlmkit.errors import UsageError

    for other, value in others.items():
        if value is not None:
            raise UsageError(f"{other}: the option does nothing with {option}; leave it out")


def _cached(
    model: Model,
    name: str,
    steps: str | None,
    batch_size: str | None,
    given: str,
    rounds: int | None,
    seed: int,
) -> dict[str, Any]:
    from dlmkit.bench.caches import Plan as Caches
    from dlmkit.bench.caches import lines, run
    from dlmkit.bench.cases import numbers
    from dlmkit.bench.defaults import percentages
    from dlmkit.errors import UsageError

    plan = Caches(seed=seed, rounds=rounds or 3)
    if steps is not None:
        plan = replace(plan, steps=numbers("--steps", steps)[0])
    if batch_size is not None:
        plan = replace(plan, batches=tuple(numbers("--batch-size", batch_size)))
    if given != "0":
        plan = replace(plan, given=percentages("--given", given)[0])
    for option, text in (("--steps", steps), ("--given", given)):
        if text is not None and "," in text:
            raise UsageError(f"{option} {text}: expected one number with --cache")
    content = run(model, name, plan, say)
    for line in lines(content):
        result(line)
    return content


def _compared(
    model: Model,
    name: str,
    steps: str | None,
    count: int | None,
    batch_size: str | None,
    seed: int,
) -> dict[str, Any]:
    from dlmkit.bench.cases import numbers
    from dlmkit.bench.decoders import Plan as Decoders
    from dlmkit.bench.decoders import lines, run
    from dlmkit.errors import UsageError

    plan = Decoders(texts=count or 256, seed=seed)
    if steps is not None:
        plan = replace(plan, evaluations=tuple(numbers("--steps", steps)))
    size = model.config.sample.batch_size
    if batch_size is not None:
        sizes = numbers("--batch-size", batch_size)
        if len(sizes) > 1:
            raise UsageError(f"--batch-size {batch_size}: expected one number with --decoders")
        size = sizes[0]
    content = run(model, name, replace(plan, batch_size=size), say)
    for line in lines(content):
        result(line)
    return content


def _plan(
    model: Model,
    texts: dict[str, str | None],
    full: bool,
    count: int | None,
    rounds: int | None,
    facts: dict[str, Any],
) -> Plan:
    from dlmkit.bench.cases import words
    from dlmkit.bench.defaults import lists, percentages, quick_size, rules
    from dlmkit.bench.plan import Plan

    chosen = rules(model, texts["exit"], facts["early_exit"])
    cases = lists(model, texts, full, facts["early_exit"])
    default = (2000, 7) if full else quick_size(model, cases)
    number = count or default[0]
    return Plan(
        lists=cases,
        texts=number,
        calibration=number if chosen else min(number, 128),
        rounds=rounds or default[1],
        rules=tuple(chosen),
        freeze=tuple(words("--freeze", texts["freeze"]) if texts["freeze"] else ()),
        given=tuple(percentages("--given", texts["given"] or "0")),
        **facts,
    )


def _show(content: Any) -> None:
    from dlmkit.bench.tables import show

    with writing():
        show(content, results())


def _draw(content: Any, plots: Path | None, html: Path | None) -> None:
    from dlmkit import documents
    from dlmkit.bench import plots as pictures
    from dlmkit.bench.html import report

    if plots is not None:
        for path in pictures.save(content, plots):
            say(f"wrote {path}")
    if html is not None:
        documents.write(html, report(content))
        say(f"wrote {html}")


@bench.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A --json file of `dlmkit bench sampler` or run.")],
    after: Annotated[Path, typer.Argument(help="Another, made by the same protocol.")],
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
    from dlmkit.errors import GateFailed

    limit = None if fail_over is None else share("--fail-over", fail_over)
    found = compared(document.read(before), document.read(after))
    with writing():
        results().print(comparison(found))
    for note in (*found.notes, *(f"{name}: new" for name in found.only_after)):
        result(note)
    if limit is None:
        return
    failures = found.failures(limit)
    if failures:
        raise GateFailed(f"worse by more than {100 * limit:g} %:\n  " + "\n  ".join(failures))
    result(f"nothing is worse by more than {100 * limit:g} %")
