"""``dlmkit eval``: one evaluation record of a model or of texts, and two compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dlmkit.cli import options
from dlmkit.cli.output import columns, result, result_json, say

if TYPE_CHECKING:
    from dlmkit.bench.subject import Subject
    from dlmkit.evaluate import Evaluated, Plan
    from dlmkit.evaluation.measure import Gauge
    from dlmkit.evaluation.record import Record
    from dlmkit.models import Model
    from dlmkit.plugin import Part
    from dlmkit.training.parallel import World

_DEFAULT = "model"


class _Defaulting(TyperGroup):
    """A group whose first word is a command only if it is ``compare``; else it is a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] != "compare":
            args = [_DEFAULT, *(args or ["--help"])]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


evaluation = typer.Typer(
    cls=_Defaulting,
    help="Measure a model or texts: one record that pins what moves the numbers.",
)


@evaluation.command(_DEFAULT, hidden=True)
def model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|SAMPLES.json|SAMPLES.jsonl",
            help="A run's folder, one of its checkpoints, `markov` (the exact test-bed), or a file "
            "of texts with --recipe.",
        ),
    ],
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, help="Texts to draw.  [default: the recipe's]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all texts.")] = 0,
    batch_size: options.BatchSize = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    grid: options.Grid = None,
    exit: options.Exit = None,
    guidance: options.Guidance = None,
    overrides: options.Overrides = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar=options.PART,
            help="Such as distinct or ar-nll:judge=FOLDER; repeatable.  [default: the recipe's]",
        ),
    ] = None,
    likelihoods: Annotated[
        list[str] | None,
        typer.Option(
            "--likelihood",
            metavar="bound|flow[:OPTION=VALUE;...]",
            help="Of held-out text: variational bound, or flow: the probability-flow ODE.",
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=2, help="Bootstrap draws of texts behind each interval.")
    ] = 200,
    recipe: Annotated[
        str | None,
        typer.Option(help="Of a file of texts: whose data and metrics they are measured by."),
    ] = None,
    frontier: Annotated[
        str | None,
        typer.Option(
            metavar="steps|score-temperature|initial-noise=A,B,...",
            help="One record a value: quality against entropy.",
        ),
    ] = None,
    quality: Annotated[
        str | None, typer.Option(metavar="METRIC.NAME", help="The frontier's y axis.")
    ] = None,
    entropy: Annotated[
        str | None, typer.Option(metavar="METRIC.NAME", help="The frontier's x axis.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="The frontier.  [default: beside --out]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the record, a new file.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write the texts, a new file.")
    ] = None,
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The record on stdout.")] = False,
) -> None:
    """Draw texts, measure them, and say all that moves the numbers; alone or under torchrun.

    Two records are compared by `dlmkit eval compare A B`. A model's folder of the name `compare`
    is written ./compare.
    """
    from dlmkit.evaluate import Plan
    from dlmkit.evaluation.measure import Intervals
    from dlmkit.evaluation.record import check_new
    from dlmkit.memory import keep_freed
    from dlmkit.recipe.short import overrides as short
    from dlmkit.recipe.short import parse_part
    from dlmkit.training.parallel import world

    keep_freed()
    if plot is None and frontier is not None and out is not None:
        plot = out.with_suffix(".png")
    check_new(out, texts, plot)
    intervals = Intervals(draws=resamples)
    parts = [parse_part(word) for word in metrics or ()]
    set_ = [*short(sampler, grid, exit, guidance=guidance or ()), *(overrides or ())]
    if Path(model).is_file() and Path(model).suffix in (".json", ".jsonl"):
        _only_of_models(set_, likelihoods, frontier, count, steps, batch_size)
        _finish(_of_file(Path(model), recipe, parts, intervals), out, texts, as_json)
        return
    _only_of_texts(recipe)
    chosen = [parse_part(word) for word in likelihoods or ()]
    sweep = None if frontier is None else _sweep(frontier)
    with world(device=options.device_of(device)) as processes:
        subject = _open(model, set_, processes)
        plan = Plan(
            count or subject.config.sample.measured, seed, steps, batch_size, intervals, chosen
        )
        run = _Run(subject, _gauges(subject, parts), plan, processes)
        if sweep is not None:
            _frontier(run, sweep, (quality, entropy), out, plot, as_json)
        elif (found := run.evaluate()) is not None:
            _finish(found, out, texts, as_json)


class _Run:
    """A model with its fitted metrics, evaluated once or at several settings."""

    def __init__(self, subject: Subject, gauges: Sequence[Gauge], plan: Plan, world: World) -> None:
        from dlmkit.models import Model
        from dlmkit.recipe.assemble import assemble_sampling

        self.subject, self.gauges, self.plan, self.world = subject, gauges, plan, world
        self.model = Model(None, subject.assembly, assemble_sampling(subject.assembly))

    def evaluate(self, model: Model | None = None, plan: Plan | None = None) -> Evaluated | None:
        from dlmkit.evaluate import of_model
        from dlmkit.sampling.recorders import progress

        model, plan = model or self.model, plan or self.plan
        if self.world.first:
            config = model.config
            say(
                f"{self.subject.name}: {plan.count} texts of {config.length} tokens, "
                f"{plan.steps or config.sample.steps} steps, {config.sampler.use} on "
                f"{config.grid.use}, {len(self.gauges)} metrics"
            )
        watch = progress if self.world.first else _unwatched
        return of_model(
            model, self.subject.name, self.subject.data, self.gauges, plan, self.world, watch
        )


def _unwatched(turns: Iterator[Any], total: int) -> Iterator[Any]:
    return turns


def _open(name: str, overrides: Sequence[str], world: World) -> Subject:
    from dlmkit.bench.subject import open_subject

    return open_subject(name, overrides, world.device)


def _gauges(subject: Subject, parts: Sequence[Part]) -> list[Gauge]:
    from dlmkit.evaluation.measure import gauges

    registry = subject.assembly.registry
    chosen = _resolved(registry, parts) if parts else subject.config.metric
    _some(chosen)
    return gauges(subject.build, chosen, subject.data)


def _resolved(registry: Any, parts: Sequence[Part]) -> list[Part]:
    """The parts under their qualified names with every option, defaults included."""
    from dlmkit.plugin import Part

    return [
        Part(
            use=registry.find("metric", part.use).qualified,
            options=registry.options("metric", part).model_dump(mode="json", by_alias=True),
        )
        for part in parts
    ]


def _some(parts: Sequence[Part]) -> None:
    from dlmkit.errors import UsageError

    if not parts:
        raise UsageError(
            "the recipe names no metric: give one or more, such as --metric ngram-judge "
            "--metric distinct; 'dlmkit components list --kind metric' shows what there is"
        )


def _of_file(path: Path, recipe: str | None, parts: Sequence[Part], intervals: Any) -> Evaluated:
    from dlmkit.core.context import BuildContext
    from dlmkit.errors import UsageError
    from dlmkit.evaluate import of_texts, read_texts
    from dlmkit.evaluation.measure import gauges
    from dlmkit.recipe.load import load_recipe
    from dlmkit.registry import Registry

    if recipe is None:
        raise UsageError(
            f"{path} holds texts alone: name the recipe whose data and metrics they are measured "
            f"by: --recipe RECIPE"
        )
    texts = read_texts(path)
    registry = Registry.load()
    config = load_recipe(recipe, (), registry).config
    chosen = _resolved(registry, parts) if parts else config.metric
    _some(chosen)
    context = BuildContext(length=config.length, seed=config.seed)
    data = registry.build("data", config.data, context)
    fitted = gauges(lambda kind, part: registry.build(kind, part, context), chosen, data)
    return of_texts(texts, path.name, config.data, data, fitted, intervals)


def _only_of_models(set_: Sequence[str], *options: Any) -> None:
    from dlmkit.errors import UsageError

    if set_ or any(option is not None for option in options):
        raise UsageError(
            "a file of texts is measured as it is: -n, --steps, --batch-size, --sampler, --grid, "
            "--exit, --guidance, --set, --likelihood and --frontier are for models"
        )


def _only_of_texts(recipe: str | None) -> None:
    from dlmkit.errors import UsageError

    if recipe is not None:
        raise UsageError(
            f"--recipe {recipe}: a model has its own; the option is for files of texts"
        )


def _finish(found: Evaluated, out: Path | None, texts: Path | None, as_json: bool) -> None:
    from dlmkit.evaluation.record import save

    if out is not None:
        save(found.record.content(), out)
        say(f"wrote {out}")
    if texts is not None:
        _write_texts(found.texts, texts)
    if as_json:
        result_json(found.record.content())
    else:
        _show(found.record)


def _write_texts(lines: Sequence[str], path: Path) -> None:
    import json

    from dlmkit.errors import UsageError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in lines)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    say(f"wrote {path}")


def _show(record: Record) -> None:
    rows = [("metric", "number", "value", "95 % interval", "human")]
    for metric, numbers in record.results.items():
        for name, found in numbers.items():
            if not name.startswith("human_"):
                human = numbers.get(f"human_{name}", {}).get("value")
                between = _between(found["low"], found["high"])
                rows.append((metric, name, _word(found["value"]), between, _word(human)))
    result(columns(rows))


def _word(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _sweep(text: str) -> tuple[str, list[float]]:
    from dlmkit.errors import UsageError

    name, _, values = text.partition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    whole = name != "steps" or all(number >= 1 and number.is_integer() for number in numbers)
    if name not in ("steps", *_GUIDANCE) or len(set(numbers)) < 2 or not whole:
        raise UsageError(
            f"--frontier {text}: expected steps, {' or '.join(_GUIDANCE)}, = and two or more "
            f"different numbers: steps=8,16,32 or score-temperature=0.8,0.9,1.0"
        )
    return name, numbers


_GUIDANCE = {"score-temperature": "temperature", "initial-noise": "scale"}
"""Guidance that a frontier may sweep, and the option that it sweeps."""


def _frontier(
    run: _Run,
    sweep: tuple[str, list[float]],
    names: tuple[str | None, str | None],
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    from dlmkit.evaluation import frontier
    from dlmkit.evaluation.record import save

    name, values = sweep
    records: list[Record] = []
    for value in values:
        found = run.evaluate(*_at(run, name, value))
        if found is not None:
            records.append(found.record)
            frontier.axes(records[0], *names)
    if not run.world.first:
        return
    curve = frontier.Frontier(name, values, records, *frontier.axes(records[0], *names))
    if out is not None:
        save(curve.content(), out)
        say(f"wrote {out}")
    if plot is not None:
        frontier.plot(curve).savefig(plot, dpi=150)
        say(f"wrote {plot}")
    if as_json:
        result_json(curve.content())
    else:
        head = (name, ".".join(curve.entropy), "", ".".join(curve.quality), "")
        rows = [
            (
                f"{v:g}",
                _word(x["value"]),
                _between(x["low"], x["high"]),
                _word(y["value"]),
                _between(y["low"], y["high"]),
            )
            for v, x, y in curve.points()
        ]
        result(columns([head, *rows]))


def _at(run: _Run, name: str, value: float) -> tuple[Model, Plan]:
    """The model and the plan at one value of the sweep; a guidance of its name is replaced."""
    from dataclasses import replace

    from dlmkit.evaluate import with_config
    from dlmkit.plugin import Part

    if name == "steps":
        return run.model, replace(run.plan, steps=int(value))
    use = run.subject.assembly.registry.find("guidance", name).qualified
    others = [part for part in run.model.config.guidance if part.use != use]
    part = Part(use=use, options={_GUIDANCE[name]: value})
    return with_config(run.model, guidance=[*others, part]), run.plan


@evaluation.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="A record.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another, made the same way.")],
    across: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key of the protocol that may differ, because it is what is compared: steps, "
            "sampler, exit, seed, ...; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of changes.")] = False,
) -> None:
    """Say what changed from A to B, with an interval of each difference.

    Records whose protocols differ are refused with exit code 2, naming every difference. A
    record that was altered ends with exit code 6.
    """
    from dataclasses import asdict

    from dlmkit.evaluation.record import Record
    from dlmkit.evaluation.record import compare as compared

    one, two = Record.load(before), Record.load(after)
    changes = compared(one, two, across or ())
    if as_json:
        result_json([{**asdict(change), "differs": change.differs} for change in changes])
        return
    rows = [("metric", "number", "A", "B", "B - A, 95 %", "")]
    for change in changes:
        between = _between(change.low, change.high)
        mark = "differs" if change.differs else ""
        values = (_word(change.before), _word(change.after))
        rows.append((change.metric, change.name, *values, between, mark))
    result(columns(rows))
    same = one.samples["sha256"] == two.samples["sha256"]
    result(f"the texts are {'the same' if same else 'different'}")
