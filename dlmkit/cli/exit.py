"""``dlmkit exit``: find thresholds of exit rules on a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.cli.output import columns, result, result_json, say
from dlmkit.errors import RecipeError, UsageError
from dlmkit.registry.lookup import Registry

if TYPE_CHECKING:
    from dlmkit.exits.calibrate import Calibrated, Promise
    from dlmkit.exits.certificate import Certificate
    from dlmkit.exits.rules import OpenRule
    from dlmkit.exits.trace import Trace

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The certificate to write.")
]
Json = Annotated[bool, options.json("The result as JSON.")]

exit_app = typer.Typer(help="Calibrate exit rules on recorded runs.", no_args_is_help=True)


@exit_app.command()
def calibrate(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A file of `dlmkit trace`.")],
    rules: Annotated[
        list[str],
        typer.Option(
            "--rule",
            metavar="NAME[:OPTION=VALUE;...]",
            help="A rule, whose only required option is found, or the option at which the word "
            "'tuned' stands. Repeatable: K rules are each tested at delta / K.",
        ),
    ],
    epsilon: Annotated[
        float, typer.Option(help="The expected loss that must not be exceeded.")
    ] = 0.05,
    delta: Annotated[
        float, typer.Option(help="The probability, over the texts, that the promise is broken.")
    ] = 0.05,
    loss: Annotated[
        Literal["row", "fraction"],
        typer.Option(
            help="row: 1 if more than --tolerance of a text's tokens differ from the full run's; "
            "fraction: the share that differs."
        ),
    ] = "row",
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of tokens that may differ (row).")
    ] = 0.01,
    order_share: Annotated[
        float, typer.Option(help="Texts that order the thresholds; the others test them.")
    ] = 0.25,
    thresholds: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Candidates.  [default: quantiles of the statistic]"),
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find a threshold that holds its promise, by fixed-sequence Learn-then-Test.

    With probability 1 - delta over the recorded texts, the rule found has an expected loss of at
    most epsilon on further texts that are sampled in the same way. Texts are the unit, never
    tokens. If no threshold passes, none is given, and the exit code is 2. A second --rule fixed
    shows what the same promise is worth without any rule.
    """
    from dlmkit.exits.calibrate import Promise, check_levels, split
    from dlmkit.exits.calibrate import calibrate as test
    from dlmkit.exits.trace_file import load_trace

    if not 0.0 < order_share < 1.0:
        raise UsageError(f"--order-share {order_share:g}: expected a number between 0 and 1")
    documents.check_new(out)
    recorded = load_trace(trace)
    ordering, testing = split(recorded, order_share)
    opened = _open(rules, recorded)
    check_levels(epsilon, delta, len(testing.row), len(rules))
    given = None if thresholds is None else _numbers(thresholds)
    promise = Promise(epsilon, delta / len(rules), loss, tolerance)
    results = [
        test(rule.text, rule, _candidates(rule, ordering, given), ordering, testing, promise)
        for rule in opened
    ]
    guarantee = {**asdict(promise), "delta": delta, "rules": len(rules)}
    sizes = {"texts": len(testing.row), "ordering_texts": len(ordering.row)}
    best = _best(results)
    if as_json:
        chosen = None if best is None else results[best].name
        entries = [_entry(outcome) for outcome in results]
        result_json({**guarantee, **sizes, "found": entries, "chosen": chosen})
    else:
        result(_table(results, int(recorded.evaluations[-1])))
    if best is None:
        raise UsageError(_nothing(results, promise, sizes["texts"]))
    if out is not None:
        evidence = {**_entry(results[best]), **sizes, "trace_seed": recorded.about.get("seed")}
        _certificate(opened[best], results[best], guarantee, recorded, evidence).save(out)
        say(f"{out}: apply it by 'dlmkit sample MODEL --exit-certificate {out}'")


@exit_app.command()
def quota(
    model: options.Sampled,
    quota: Annotated[
        str, typer.Option(help="A quota of masked models: threshold, factor, entropy-bound, ...")
    ] = "threshold",
    order: Annotated[str, typer.Option(help="The order that it is used with.")] = "confidence",
    thresholds: Annotated[
        str,
        typer.Option(metavar="A,B,...", help="Candidates for the quota's number."),
    ] = "0.5,0.6,0.7,0.8,0.9,0.95,0.98,0.99",
    count: Annotated[
        int, typer.Option("-n", "--count", min=8, help="Held-out texts whose beginnings are given.")
    ] = 400,
    given: Annotated[
        int, typer.Option(min=1, max=99, help="Percent of each text that is given.")
    ] = 25,
    epsilon: Annotated[
        float, typer.Option(help="The share of texts that may differ from one token a step.")
    ] = 0.05,
    delta: Annotated[
        float, typer.Option(help="The probability, over the texts, that the promise is broken.")
    ] = 0.05,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of a text's tokens that may differ.")
    ] = 0.01,
    batch_size: options.BatchSize = None,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find a quota's number whose texts are those of one token a step, within a promise.

    With probability 1 - delta over the texts, at most a share epsilon of further texts, continued
    from given beginnings, differs from the run of one token a step in more than --tolerance of its
    tokens, both writing the likeliest tokens. Every candidate is run for real. If none passes, the
    exit code is 2.
    """
    from dlmkit import devices
    from dlmkit.evaluation.conditions import CONTINUED, conditions
    from dlmkit.exits.calibrate import Promise
    from dlmkit.exits.certificate import Certificate
    from dlmkit.exits.quota import SHARE, OpenQuota, beginnings, calibrate_quota, decoded
    from dlmkit.model import Run, open_model

    documents.check_new(out)
    opened = open_model(model, overrides or (), device=devices.choose(device))
    registry = opened.assembly.registry
    rule = OpenQuota.of(registry, quota, order)
    promise = Promise(epsilon, delta, tolerance=tolerance)
    requests = beginnings(opened.data.validation(count), given)
    tried = _numbers(thresholds)
    for value in tried:
        try:
            registry.options("quota", rule.at(value))
        except RecipeError as error:
            raise UsageError(f"--thresholds {value:g}: {error}") from error
    calibrated = calibrate_quota(
        opened, requests, rule, tried, promise, Run(batch_size=batch_size), say
    )
    if as_json:
        about = {"model": model, "order": order, "given": given, **asdict(promise)}
        result_json({**about, **_entry(calibrated)})
    else:
        full = 0 if calibrated.tested is None else calibrated.tested.full_evaluations
        result(_table([calibrated], full))
    if calibrated.threshold is None:
        raise UsageError(_nothing([calibrated], promise, count - round(SHARE * count)))
    if out is not None:
        chosen = decoded(opened, rule.sampler(calibrated.threshold))
        Certificate(
            rule=chosen.config.sampler.model_dump(mode="json", by_alias=True),
            threshold=calibrated.threshold,
            guarantee={**asdict(promise), "against": "one token a step"},
            conditions={**conditions(chosen, requests, opened.config.length), "prompts": CONTINUED},
            evidence={**_entry(calibrated), "given": given, "texts": count},
            key="sampler",
        ).save(out)
        say(f"{out}: apply it by 'dlmkit sample MODEL --exit-certificate {out} --prompt ...'")


def _best(results: Sequence[Calibrated]) -> int | None:
    """Which of the rules that passed takes the fewest evaluations."""
    passed = {
        place: float(calibrated.tested.evaluations.double().mean())
        for place, calibrated in enumerate(results)
        if calibrated.threshold is not None and calibrated.tested is not None
    }
    return min(passed, key=lambda place: passed[place], default=None)


def _open(rules: Sequence[str], recorded: Trace) -> list[OpenRule]:
    from dlmkit.core.context import BuildContext
    from dlmkit.exits.replay import check_statistics
    from dlmkit.exits.rules import OpenRule

    if len(set(rules)) < len(rules):
        raise UsageError("--rule: the same rule is given twice, which only costs delta")
    registry, context = Registry.load(), BuildContext(length=recorded.ids.shape[2])
    opened = [OpenRule.parse(text, registry, context) for text in rules]
    for rule in opened:
        check_statistics(recorded, rule(rule.example))
    return opened


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--thresholds {text}: expected numbers between commas") from error


def _candidates(rule: OpenRule, ordering: Trace, given: list[float] | None) -> list[float]:
    """The numbers to try. Raises UsageError for a given one that rounding would decide."""
    from dlmkit.exits.replay import drowned

    tried = rule.candidates(ordering) if given is None else given
    noisy = {value: names for value in tried if (names := drowned(ordering, rule(value)))}
    for value, names in noisy.items() if given is not None else ():
        raise UsageError(
            f"--thresholds: {value:g} lies below the noise floor of {', '.join(names)} in this "
            "trace, where rounding would decide; leave it out"
        )
    return [value for value in tried if value not in noisy]


def _entry(calibrated: Calibrated) -> dict[str, Any]:
    if calibrated.tested is None:
        return {"rule": calibrated.name, "threshold": None}
    low, high = calibrated.tested.saving_interval()
    return {
        "rule": calibrated.name,
        "threshold": calibrated.threshold,
        "mean_loss": calibrated.mean_loss,
        "p_value": calibrated.p_value,
        "evaluations_mean": float(calibrated.tested.evaluations.double().mean()),
        "evaluations_full": calibrated.tested.full_evaluations,
        "saving": calibrated.tested.saving,
        "saving_interval": [low, high],
        "token_disagreement": calibrated.tested.token_disagreement,
    }


def _table(results: Sequence[Calibrated], full: int) -> str:
    head = ("rule", "threshold", "loss", "p-value", f"evaluations of {full}", "saving (95 %)")
    return columns([head, *(_row(calibrated) for calibrated in results)])


def _row(calibrated: Calibrated) -> tuple[str, ...]:
    if calibrated.tested is None:
        return (calibrated.name, "none", "-", "-", "-", "no threshold saves anything")
    threshold, saving = "none", "not certified"
    if calibrated.threshold is not None:
        low, high = calibrated.tested.saving_interval()
        threshold = f"{calibrated.threshold:g}"
        saving = f"{calibrated.tested.saving:.2f} x ({low:.2f} to {high:.2f})"
    return (
        calibrated.name,
        threshold,
        f"{calibrated.mean_loss:.4f}",
        f"{calibrated.p_value:.2g}",
        f"{float(calibrated.tested.evaluations.double().mean()):.2f}",
        saving,
    )


def _nothing(results: Sequence[Calibrated], promise: Promise, texts: int) -> str:
    """Why no rule passed, and how many texts might do."""
    from dlmkit.exits.calibrate import texts_needed

    losses = [calibrated.mean_loss for calibrated in results if calibrated.tested is not None]
    if not losses:
        return "no threshold of any rule stops earlier than the full run: there is nothing to test"
    loss = min(losses)
    needed = texts_needed(promise.epsilon, promise.delta, loss)
    if needed is None:
        return (
            f"no threshold passed: even the most cautious has a loss of {loss:.4f}, not below "
            f"epsilon {promise.epsilon:g}; no number of texts helps: try another rule or larger "
            "epsilon"
        )
    return (
        f"no threshold passed on {texts} texts: the most cautious has a loss of {loss:.4f}, and "
        f"at that rate about {needed} texts are needed to test it on"
    )


def _certificate(
    rule: OpenRule,
    calibrated: Calibrated,
    guarantee: dict[str, Any],
    recorded: Trace,
    evidence: dict[str, Any],
) -> Certificate:
    from dlmkit.exits.certificate import Certificate

    if "conditions" not in recorded.about:
        raise UsageError("this trace does not say how it was sampled: record it by 'dlmkit trace'")
    assert calibrated.threshold is not None
    part = rule.at(calibrated.threshold).model_dump(mode="json", by_alias=True)
    conditions = recorded.about["conditions"]
    return Certificate(part, calibrated.threshold, guarantee, conditions, evidence)
