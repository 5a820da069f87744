"""What the plugin `samplers` provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmkit import Component, Config, hookimpl
from dlmkit_samplers import configs

api = 2

GAUSSIAN = frozenset({"gaussian"})
PROFILE = Path(__file__).with_name("example_profile.json")
"""Of the exact posterior of markov:chain, 16 tokens long, in markov:fixed."""


def _component(
    kind: str,
    name: str,
    summary: str,
    config: type[Config],
    target: str,
    requires: frozenset[str] = frozenset(),
    provides: frozenset[str] = frozenset(),
    example: Mapping[str, Any] | None = None,
) -> Component:
    target = f"dlmkit_samplers.{target}"
    return Component(kind, name, summary, config, target, provides, requires, example or {})


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
            "sampler",
            "dpm-2m",
            "second order from two predictions, one evaluation a step (DPM-Solver++ 2M)",
            configs.Multistep,
            "multistep:DPM2M",
            GAUSSIAN,
        ),
        _component(
            "sampler",
            "dpm-3m",
            "third order from three predictions (DPM-Solver++ 3M)",
            configs.Multistep,
            "multistep:DPM3M",
            GAUSSIAN,
        ),
        _component(
            "sampler",
            "unipc",
            "dpm-2m, corrected by the next step's prediction (UniPC-2)",
            configs.Multistep,
            "multistep:UniPC",
            GAUSSIAN,
        ),
        _component(
            "sampler",
            "dpm-2m-sde",
            "dpm-2m with fresh noise (SDE-DPM-Solver++ 2M)",
            configs.MultistepSDE,
            "multistep:DPM2MSDE",
            GAUSSIAN,
        ),
        _component(
            "sampler",
            "edm-churn",
            "noise added before every step of Heun's (EDM, algorithm 2)",
            configs.EDMChurn,
            "samplers:EDMChurn",
            GAUSSIAN,
        ),
        _component(
            "grid",
            "sqrt-entropic",
            "density proportional to the root of the slope of the schedule's own cross-entropy",
            configs.Entropic,
            "entropic:SquareRootEntropic",
        ),
        _component(
            "grid",
            "fitted",
            "sqrt-entropic of a recorded profile: a file of noise levels and entropies",
            configs.Fitted,
            "entropic:Fitted",
            example={"path": str(PROFILE)},
        ),
        _component(
            "grid",
            "arctan",
            "uniform in the arctangent of the noise-to-signal ratio (Align Your Steps)",
            configs.Nothing,
            "grids:Arctan",
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
            "statistic",
            "switches",
            "positions whose likeliest token changed since the previous step",
            configs.Nothing,
            "statistics:Switches",
        ),
        _component(
            "statistic",
            "margin",
            "probability of the likeliest token minus the runner-up's, mean over positions",
            configs.Nothing,
            "statistics:Margin",
        ),
        _component(
            "statistic",
            "gap",
            "gap of the two largest logits, nats, mean over positions that are not certain",
            configs.Nothing,
            "statistics:Gap",
        ),
        _component(
            "exit", "fixed", "after the same number of steps", configs.FixedStep, "exits:fixed"
        ),
        *(
            _component(
                "exit",
                name,
                f"once {what} is below a threshold",
                config,
                f"exits:{name}",
            )
            for name, what, config in (
                ("entropy", "the mean entropy", configs.Entropy),
                ("kl", "the mean KL to the previous step", configs.KullbackLeibler),
                (
                    "jeffreys",
                    "the mean Jeffreys divergence to the previous step",
                    configs.Jeffreys,
                ),
            )
        ),
        _component(
            "exit",
            "fraction",
            "after the same share of the grid",
            configs.AtFraction,
            "exits:fraction",
        ),
        _component("exit", "level", "at the same noise level", configs.AtLevel, "exits:level"),
        _component(
            "exit",
            "margin",
            "once the likeliest tokens lead by a mean margin",
            configs.Margin,
            "exits:margin",
        ),
        _component(
            "exit",
            "falling",
            "once the likeliest tokens lead enough for its progress (Prophet, SchED)",
            configs.Falling,
            "exits:Falling",
        ),
        _component(
            "exit",
            "switches",
            "once at most s likeliest tokens changed in each of k steps (token-switch patience)",
            configs.TokenSwitches,
            "exits:TokenSwitches",
        ),
        _component(
            "exit",
            "stable-and-confident",
            "once no likeliest token changed for k steps and the mean entropy is low",
            configs.StableAndConfident,
            "exits:StableAndConfident",
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
            frozenset({"conditioning-dropout"}),
        ),
        _component(
            "guidance",
            "initial-noise",
            "starts from the prior's draw times a factor",
            configs.InitialNoise,
            "guidance:InitialNoise",
            GAUSSIAN,
        ),
        _component(
            "guidance",
            "renormalised",
            "scales the predicted x0 to the embeddings' norm sqrt(D)",
            configs.Below,
            "guidance:Renormalised",
            GAUSSIAN,
        ),
        _component(
            "guidance",
            "clamped",
            "replaces the predicted x0 by the nearest embedding",
            configs.Below,
            "guidance:Clamped",
            GAUSSIAN,
        ),
    ]
