"""``dlmkit eval``: one evaluation record of a model or of texts, and two compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dlmkit import documents
from dlmkit.cli import options, records
from dlmkit.cli.output import answer, say
from dlmkit.errors import UsageError

if TYPE_CHECKING:
    from dlmkit.evaluation.evaluate import Evaluated, EvaluationPlan
    from dlmkit.evaluation.frontier import Frontier
    from dlmkit.evaluation.measure import Gauge
    from dlmkit.model import Model
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
        options.count("Texts to draw.  [default: the recipe's]"),
    ] = None,
    seed: Annotated[int, options.seed("Of all texts.")] = 0,
    batch_size: options.BatchSize = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    grid: options.Grid = None,
    exit: options.Exit = None,  # noqa: A002
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
        int,
        typer.Option(min=2, help="Parts of the texts at most, each left out once for intervals."),
    ] = 200,
    recipe: Annotated[
        str | None,
        typer.Option(help="Of a file of texts: whose data and metrics they are measured by."),
    ] = None,
    frontier: Annotated[
        str | None,
        typer.Option(
            metavar="steps|score-temperature|initial-noise=A,B,...",
            help="One record per value: quality against entropy.",
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
    as_json: Annotated[bool, options.json("The record on stdout.")] = False,
) -> None:
    """Draw texts, measure them, and say all that moves the numbers; alone or under torchrun.

    Two records are compared by `dlmkit eval compare A B`. A model's folder of the name `compare`
    is written ./compare.
    """
    from dlmkit import devices
    from dlmkit.evaluation.evaluate import EvaluationPlan
    from dlmkit.evaluation.measure import Intervals
    from dlmkit.evaluation.sweep import Sweep
    from dlmkit.evaluation.texts import of_file
    from dlmkit.model import open_model
    from dlmkit.recipe.shelf import SUFFIXES
    from dlmkit.recipe.short import overrides as short
    from dlmkit.recipe.short import parse_part
    from dlmkit.training.memory import keep_freed
    from dlmkit.training.parallel import world

    keep_freed()
    if plot is None and frontier is not None and out is not None:
        plot = out.with_suffix(".png")
    _belongs(frontier is not None, quality=quality, entropy=entropy, plot=plot)
    _belongs(frontier is None, texts=texts)
    documents.check_new(out, texts, plot)
    intervals = Intervals(parts=resamples)
    parts = [parse_part(word, "--metric") for word in metrics or ()]
    set_ = [*short(sampler, grid, exit, guidance=guidance or ()), *(overrides or ())]
    if Path(model).is_file() and Path(model).suffix not in SUFFIXES:
        _only_of_models(set_, likelihoods, frontier, count, steps, batch_size)
        _finish(of_file(Path(model), recipe, parts, intervals), out, texts, as_json)
        return
    if recipe is not None:
        raise UsageError(
            f"--recipe {recipe}: a model has its own; the option is for files of texts"
        )
    chosen = [parse_part(word, "--likelihood") for word in likelihoods or ()]
    sweep = None if frontier is None else Sweep.parse(frontier)
    with world(device=devices.choose(device)) as processes:
        measured = open_model(model, set_, device=processes.device)
        count = count or measured.config.sample.measured
        plan = EvaluationPlan(count, seed, steps, batch_size, intervals, chosen)
        evaluate = _evaluator(model, _gauges(measured, parts), processes)
        if sweep is not None:
            curve = sweep.run(measured, plan, evaluate, quality, entropy)
            if curve is not None:
                _draw(curve, out, plot, as_json)
        elif (evaluated := evaluate(measured, plan)) is not None:
            _finish(evaluated, out, texts, as_json)


def _evaluator(
    name: str, gauges: Sequence[Gauge], world: World
) -> Callable[[Model, EvaluationPlan], Evaluated | None]:
    """What evaluates a model by a plan, and tells of it in the first process."""
    from dlmkit.evaluation.evaluate import of_model

    def evaluate(model: Model, plan: EvaluationPlan) -> Evaluated | None:
        config = model.config
        if world.first:
            say(
                f"{name}: {plan.count} texts of {config.length} tokens, "
                f"{plan.steps or config.sample.steps} steps, {config.sampler.use} on "
                f"{config.grid.use}, {len(gauges)} metrics"
            )
        return of_model(model, name, gauges, plan, world, progress=True)

    return evaluate


def _gauges(model: Model, parts: Sequence[Part]) -> list[Gauge]:
    from dlmkit.evaluation.evaluate import chosen_metrics
    from dlmkit.evaluation.measure import gauges

    chosen = chosen_metrics(parts, model.config, model.assembly.registry)
    return gauges(model.assembly.build, chosen, model.data)


def _belongs(fits: bool, **given: Any) -> None:
    """Refuse options that would do nothing."""
    for name, value in given.items():
        if value is not None and not fits:
            reason = (
                "is of one record, not of --frontier" if name == "texts" else "is of --frontier"
            )
            raise UsageError(f"--{name} {value}: the option {reason}")


def _only_of_models(set_: Sequence[str], *options: Any) -> None:
    if set_ or any(option is not None for option in options):
        raise UsageError(
            "a file of texts is measured as it is: -n, --steps, --batch-size, --sampler, --grid, "
            "--exit, --guidance, --set, --likelihood and --frontier are for models"
        )


def _finish(evaluated: Evaluated, out: Path | None, texts: Path | None, as_json: bool) -> None:
    from dlmkit.evaluation.texts import write_texts

    content = evaluated.record.content()
    _save(content, out)
    if texts is not None:
        write_texts(evaluated.texts, texts)
        say(f"wrote {texts}")
    answer(as_json, content, records.table(evaluated.record))


def _draw(curve: Frontier, out: Path | None, plot: Path | None, as_json: bool) -> None:
    from dlmkit.evaluation import frontier

    content = curve.content()
    _save(content, out)
    if plot is not None:
        frontier.plot(curve).savefig(plot, dpi=150)
        say(f"wrote {plot}")
    answer(as_json, content, records.curve(curve))


def _save(content: Mapping[str, Any], out: Path | None) -> None:
    if out is not None:
        documents.write_new(out, documents.text(content))
        say(f"wrote {out}")


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
    as_json: Annotated[bool, options.json("A list of changes.")] = False,
) -> None:
    """Say what changed from A to B, with an interval of each difference.

    Records whose protocols differ are refused with exit code 2, naming every difference. A
    record that was altered ends with exit code 6.
    """
    from dataclasses import asdict

    from dlmkit.evaluation.record import Record
    from dlmkit.evaluation.record import compare as compared

    a, b = Record.load(before), Record.load(after)
    changes = compared(a, b, across or ())
    same = a.samples["sha256"] == b.samples["sha256"]
    words = f"{records.changes(changes)}\nthe texts are {'the same' if same else 'different'}"
    answer(as_json, [{**asdict(c), "differs": c.differs} for c in changes], words)
