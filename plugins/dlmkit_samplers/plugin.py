"""What the plugin `samplers` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, Config, hookimpl
from dlmkit_samplers import configs

GAUSSIAN = frozenset({"gaussian"})


def _component(
    kind: str,
    name: str,
    summary: str,
    config: type[Config],
    target: str,
    requires: frozenset[str] = frozenset(),
    provides: frozenset[str] = frozenset(),
) -> Component:
    return Component(kind, name, summary, config, f"dlmkit_samplers.{target}", provides, requires)


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        _component(
            "sampler",
            "euler",
            "first order, deterministic; the same formula as DDIM",
            configs.Nothing,
            "samplers:Euler",
            GAUSSIAN,
            frozenset({"order-1"}),
        ),
        _component(
            "sampler",
            "heun",
            "second order, two evaluations a step (EDM, algorithm 1)",
            configs.Nothing,
            "samplers:Heun",
            GAUSSIAN,
            frozenset({"order-2"}),
        ),
        _component(
            "sampler",
            "ancestral",
            "Euler to a lower level, then fresh noise up to the next",
            configs.Ancestral,
            "samplers:Ancestral",
            GAUSSIAN,
        ),
        _component(
            "grid",
            "warped",
            "uniform in the CDF of the schedule's own training times",
            configs.Nothing,
            "grids:Warped",
        ),
        _component("grid", "linear", "uniform in time", configs.Nothing, "grids:Linear"),
        _component(
            "grid",
            "log-uniform",
            "geometric in the noise-to-signal ratio",
            configs.Nothing,
            "grids:LogUniform",
        ),
        _component(
            "grid",
            "karras",
            "uniform in the 1/rho-th power of the noise-to-signal ratio (EDM)",
            configs.Karras,
            "grids:Karras",
        ),
        _component(
            "statistic",
            "entropy",
            "entropy of the predicted token, nats a position",
            configs.Nothing,
            "statistics:Entropy",
        ),
        _component(
            "statistic",
            "kl",
            "KL(now || previous step) of the predicted token, nats a position",
            configs.Nothing,
            "statistics:KullbackLeibler",
        ),
        _component(
            "statistic",
            "jeffreys",
            "symmetrised KL between neighbouring steps, nats a position; exact when tiny",
            configs.Nothing,
            "statistics:Jeffreys",
        ),
        _component(
            "exit", "fixed", "after the same number of steps", configs.FixedStep, "exits:Fixed"
        ),
        *(
            _component(
                "exit",
                name,
                f"once {what} is below a threshold",
                configs.Threshold,
                f"exits:{name}",
            )
            for name, what in (
                ("entropy", "the mean entropy"),
                ("kl", "the mean KL to the previous step"),
                ("jeffreys", "the mean Jeffreys divergence to the previous step"),
            )
        ),
        _component("exit", "any", "when one of several rules holds", configs.Rules, "exits:AnyOf"),
        _component("exit", "all", "when several rules hold at once", configs.Rules, "exits:AllOf"),
        _component(
            "exit",
            "patience",
            "when a rule has held several steps in a row",
            configs.Patience,
            "exits:Patience",
        ),
        _component(
            "exit", "after", "a rule, but not before some step", configs.After, "exits:After"
        ),
        _component(
            "guidance",
            "score-temperature",
            "divides the score by a temperature",
            configs.ScoreTemperature,
            "guidance:ScoreTemperature",
            GAUSSIAN,
        ),
        _component(
            "guidance",
            "classifier-free",
            "extrapolates from the prediction without the given tokens; doubles the evaluations",
            configs.ClassifierFree,
            "guidance:ClassifierFree",
            frozenset({"gaussian", "conditioning-dropout"}),
        ),
    ]
