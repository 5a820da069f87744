"""``dlmkit bench sampler``: how a model samples, and what its exits, decoders and caches are worth.

Each use of the command is a function here, whose parameters are the options that fit it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.cli.output import result, say, writing
from dlmkit.errors import UsageError
from dlmkit.shown import results

if TYPE_CHECKING:
    from dlmkit.bench.plan import SamplerPlan
    from dlmkit.model import Model

PARTS = "[default: the recipe's, and more with --full]"

BenchModel = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A run's folder, one of its checkpoints, or `markov`: the exact test-bed, with "
        "--decoders that of masked models.  "
        "[default: the model that ships with dlmkit, or markov if none does]",
    ),
]
EarlyExit = Annotated[
    bool,
    typer.Option(
        "--early-exit",
        help="Compare exit rules with the full run, the best fixed exit, a coarser grid of "
        "the same mean evaluations, and the oracle exit; one verdict per rule.",
    ),
]
Decoders = Annotated[
    bool,
    typer.Option(
        "--decoders",
        help="Of masked models: compare every order, quota, remasking and exit rule with random "
        "order on a coarser grid at equal evaluations; one verdict per rule. --steps are the mean "
        "evaluations (4,8,16,32); of the other options -n and --batch-size apply.",
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache",
        help="Of masked models: seconds with and without every cache, and the share of tokens "
        "that it leaves as they are. At --batch-size 1,8,32, --given 50 and the recipe's "
        "--steps; of the other options --rounds applies.",
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full/--quick",
        help="Every sampler and grid, 2,000 texts, 7 rounds; or minutes on two cores.",
    ),
]
Samplers = Annotated[
    str | None, typer.Option("--sampler", metavar="A,B", help=f"Samplers.  {PARTS}")
]
Grids = Annotated[str | None, typer.Option("--grid", metavar="A,B", help=f"Grids.  {PARTS}")]
Steps = Annotated[
    str | None,
    typer.Option(
        metavar="N,M",
        help="Points of the grid.  [default: with --early-exit the recipe's, else 16,32,64]",
    ),
]
Exits = Annotated[
    str | None,
    typer.Option(
        "--exit",
        metavar="A,B",
        help="Exit rules. One without its threshold gets the best that keeps --bound; 'tuned' "
        "stands for a number inside others.  [default: none; with --early-exit all]",
    ),
]
Freeze = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Rules that settle single positions, with their thresholds; always run for real.",
    ),
]
GuidanceList = Annotated[
    str, typer.Option(metavar="A,B", help="Guidance, one at a time; none is one of them.")
]
BatchSizes = Annotated[
    str | None, typer.Option(metavar="N,M", help="Slots.  [default: the recipe's]")
]
Precisions = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="fp32, bf16, int8, fp32+compile, bf16+compile, bf16+graphs.  [default: fp32; on "
        "an accelerator also bf16, and on cuda bf16+graphs]",
    ),
]
Count = Annotated[
    int | None,
    options.count("Texts reported on.  [default: at most 256, or 2000]", least=8),
]
Bound = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Share of differing tokens that choosing a threshold may cost."
    ),
]
Given = Annotated[
    str,
    typer.Option(
        metavar="P,Q",
        help="Percent of each text given as its beginning, in turn: 0,30,60,90 is a queue of "
        "mixed difficulty, with the best fixed exit tuned for each.",
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="Timing rounds, interleaved.  [default: at most 3, or 7]"),
]
Plots = Annotated[Path | None, typer.Option(metavar="DIR", help="Write the pictures as PNG.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report in one file.")]


def sampler(
    context: typer.Context,
    model: BenchModel = None,
    early_exit: EarlyExit = False,
    decoders: Decoders = False,
    cache: Cache = False,
    device: options.Device = "auto",
    full: Full = False,
    samplers: Samplers = None,
    grids: Grids = None,
    steps: Steps = None,
    exits: Exits = None,
    freeze: Freeze = None,
    guidance: GuidanceList = "none",
    batch_size: BatchSizes = None,
    precision: Precisions = None,
    overrides: options.Set = None,
    count: Count = None,
    bound: Bound = 0.01,
    given: Given = "0",
    seed: Annotated[int, options.seed("Of all texts.")] = 0,
    rounds: Rounds = None,
    json_file: options.JsonFile = None,
    plots: Plots = None,
    html: Html = None,
) -> None:
    """Measure how a model samples: evaluations, seconds and the quality of the text together.

    Parts are written name or name:option=value;option=value, lists with commas. Texts depend on
    --seed and their index alone, so every case answers the same requests from the same noise.
    """
    from dlmkit import devices
    from dlmkit.bench.parts import MASKED_TEST_BED, TEST_BED, default_model
    from dlmkit.model import open_model
    from dlmkit.training.memory import keep_freed

    use, chosen_options = _use(context)
    keep_freed()
    chosen = devices.choose(device)
    documents.check_writable(json_file, html)
    if plots is not None:
        documents.check_folder(plots)
    name = model or default_model()
    if decoders and name == TEST_BED:
        name = MASKED_TEST_BED
    use(open_model(name, overrides or (), device=chosen), name, **chosen_options)


COMMON = {"model", "device", "overrides"}
"""Parameters of :func:`sampler` that fit every use."""


def _use(context: typer.Context) -> tuple[Callable[..., None], dict[str, Any]]:
    """(the use that was asked for, its options). Raises UsageError for an option that does not fit
    it, naming both."""
    asked = context.params
    flag, use = next(((flag, use) for flag, use in USES.items() if asked[flag]), ("", _cases))
    names = list(inspect.signature(use).parameters)[2:]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        if given and name not in {*COMMON, *names, flag}:
            raise UsageError(
                f"{parameter.opts[0]}: the option does nothing with --{flag}; leave it out"
            )
    return use, {name: asked[name] for name in names}


def _cases(
    model: Model,
    name: str,
    early_exit: bool,
    full: bool,
    samplers: str | None,
    grids: str | None,
    steps: str | None,
    exits: str | None,
    freeze: str | None,
    guidance: str,
    batch_size: str | None,
    precision: str | None,
    count: int | None,
    bound: float,
    given: str,
    seed: int,
    rounds: int | None,
    json_file: Path | None,
    plots: Path | None,
    html: Path | None,
) -> None:
    """Every combination of the parts named, with their exits."""
    from dlmkit.bench.sampler import run
    from dlmkit.bench.tables import show

    lists = {"sampler": samplers, "grid": grids, "steps": steps, "batch_size": batch_size}
    lists |= {"guidance": guidance, "precision": precision, "exit": exits}
    lists |= {"freeze": freeze, "given": given}
    facts: dict[str, Any] = {"model": name, "seed": seed, "bound": bound, "early_exit": early_exit}
    content = run(model, _plan(model, lists, full, count, rounds, facts), say)
    with writing():
        show(content, results())
    _write(content, json_file)
    if plots is not None or html is not None:
        _draw(content, plots, html)


def _plan(
    model: Model,
    texts: dict[str, str | None],
    full: bool,
    count: int | None,
    rounds: int | None,
    facts: dict[str, Any],
) -> SamplerPlan:
    from dlmkit.bench.cases import words
    from dlmkit.bench.defaults import lists, percentages, quick_size, rules
    from dlmkit.bench.plan import SamplerPlan

    chosen = rules(model, texts["exit"], facts["early_exit"])
    cases = lists(model, texts, full, facts["early_exit"])
    default = (2000, 7) if full else quick_size(model, cases)
    number = count or default[0]
    return SamplerPlan(
        lists=cases,
        texts=number,
        calibration=number if chosen else min(number, 128),
        rounds=rounds or default[1],
        rules=tuple(chosen),
        freeze=tuple(words("--freeze", texts["freeze"]) if texts["freeze"] else ()),
        given=tuple(percentages("--given", texts["given"] or "0")),
        **facts,
    )


def _decoders(
    model: Model,
    name: str,
    steps: str | None,
    count: int | None,
    batch_size: str | None,
    seed: int,
    json_file: Path | None,
) -> None:
    """Orders, quotas, remasking and exit rules of a masked model at equal evaluations."""
    from dlmkit.bench.cases import numbers
    from dlmkit.bench.decoders import DecoderPlan, lines, run

    asked: dict[str, Any] = {"batch_size": model.config.sample.batch_size}
    if steps is not None:
        asked["evaluations"] = tuple(numbers("--steps", steps))
    if batch_size is not None:
        sizes = numbers("--batch-size", batch_size)
        asked["batch_size"] = _one("--batch-size", batch_size, sizes, "--decoders")
    texts = count or 256
    asked["calibration"] = min(32, max(8, texts // 4))
    content = run(model, name, DecoderPlan(texts=texts, seed=seed, **asked), say)
    for line in lines(content):
        result(line)
    _write(content, json_file)


def _caches(
    model: Model,
    name: str,
    steps: str | None,
    batch_size: str | None,
    given: str,
    seed: int,
    rounds: int | None,
    json_file: Path | None,
) -> None:
    """The caches that a masked model can have."""
    from dlmkit.bench.caches import CachePlan, lines, run
    from dlmkit.bench.cases import numbers
    from dlmkit.bench.defaults import percentages

    asked: dict[str, Any] = {}
    if steps is not None:
        asked["steps"] = _one("--steps", steps, numbers("--steps", steps), "--cache")
    if batch_size is not None:
        asked["batches"] = tuple(numbers("--batch-size", batch_size))
    if given != "0":
        asked["given"] = _one("--given", given, percentages("--given", given), "--cache")
    content = run(model, name, CachePlan(seed=seed, rounds=rounds or 3, **asked), say)
    for line in lines(content):
        result(line)
    _write(content, json_file)


USES: dict[str, Callable[..., None]] = {"cache": _caches, "decoders": _decoders}
"""By the flag that asks for it; without any, :func:`_cases`."""


def _one(option: str, text: str, values: list[int], use: str) -> int:
    """The only one of ``values``. Raises UsageError if there are more."""
    if len(values) > 1:
        raise UsageError(f"{option} {text}: expected one number with {use}")
    return values[0]


def _write(content: Any, file: Path | None) -> None:
    if file is not None:
        documents.write(file, documents.text(content))
        say(f"wrote {file}")


def _draw(content: Any, plots: Path | None, html: Path | None) -> None:
    from dlmkit.bench import plots as pictures
    from dlmkit.bench.html import report

    if plots is not None:
        for path in pictures.save(content, plots):
            say(f"wrote {path}")
    if html is not None:
        documents.write(html, report(content))
        say(f"wrote {html}")
