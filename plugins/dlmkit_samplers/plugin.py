"""What the plugin `samplers` provides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlmkit import Component, hookimpl
from dlmkit.core.options import Nothing
from dlmkit_samplers import configs

api = 2

REQUIRED = dict.fromkeys(("sampler", "guidance"), frozenset({"gaussian"}))
PROFILE = Path(__file__).with_name("example_profile.json")
"""Of the exact posterior of markov:chain, 16 tokens long, in markov:fixed."""


def _of(kind: str, *rows: tuple[Any, ...]) -> Iterator[Component]:
    """Components of (name, options, target, summary), and what else there is to say of one."""
    for name, config, target, summary, *more in rows:
        said = {"requires": REQUIRED.get(kind, frozenset()), **(more[0] if more else {})}
        yield Component(kind, name, summary, config, f"dlmkit_samplers.{target}", **said)


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        *_of("sampler",
            ("euler", Nothing, "samplers:Euler",
             "first order, deterministic; the same formula as DDIM",
             {"provides": frozenset({"order-1"})}),
            ("heun", Nothing, "samplers:Heun",
             "second order, two evaluations per step (EDM, algorithm 1)",
             {"provides": frozenset({"order-2"})}),
            ("ancestral", configs.Ancestral, "samplers:Ancestral",
             "Euler to a lower level, then fresh noise up to the next"),
            ("dpm-2m", configs.Multistep, "multistep:DPM2M",
             "second order from two predictions, one evaluation per step (DPM-Solver++ 2M)"),
            ("dpm-3m", configs.Multistep, "multistep:DPM3M",
             "third order from three predictions (DPM-Solver++ 3M)"),
            ("unipc", configs.Multistep, "multistep:UniPC",
             "dpm-2m, corrected by the next step's prediction (UniPC-2)"),
            ("dpm-2m-sde", configs.MultistepSDE, "multistep:DPM2MSDE",
             "dpm-2m with fresh noise (SDE-DPM-Solver++ 2M)"),
            ("edm-churn", configs.EDMChurn, "samplers:EDMChurn",
             "noise added before every step of Heun's (EDM, algorithm 2)"),
        ),
        *_of("grid",
            ("sqrt-entropic", configs.Entropic, "entropic:SquareRootEntropic",
             "density proportional to the root of the slope of the schedule's own cross-entropy"),
            ("fitted", configs.Fitted, "entropic:Fitted",
             "sqrt-entropic of a recorded profile: a file of noise levels and entropies",
             {"example": {"path": str(PROFILE)}}),
            ("arctan", Nothing, "grids:Arctan",
             "uniform in the arctangent of the noise-to-signal ratio (Align Your Steps)"),
            ("warped", Nothing, "grids:WarpedGrid",
             "uniform in the CDF of the schedule's own training times"),
            ("linear", Nothing, "grids:Linear", "uniform in time"),
            ("log-uniform", Nothing, "grids:LogUniform",
             "geometric in the noise-to-signal ratio"),
            ("karras", configs.Karras, "grids:Karras",
             "uniform in the 1/rho-th power of the noise-to-signal ratio (EDM)"),
        ),
        *_of("statistic",
            ("entropy", Nothing, "statistics:Entropy",
             "entropy of the predicted token, nats per position"),
            ("kl", Nothing, "statistics:KullbackLeibler",
             "KL(now || previous step) of the predicted token, nats per position"),
            ("jeffreys", Nothing, "statistics:Jeffreys",
             "symmetrised KL between neighbouring steps, nats per position; exact when tiny"),
            ("switches", Nothing, "statistics:Switches",
             "positions whose likeliest token changed since the previous step"),
            ("margin", Nothing, "statistics:Margin",
             "probability of the likeliest token minus the runner-up's, mean over positions"),
            ("gap", Nothing, "statistics:Gap",
             "gap of the two largest logits, nats, mean over positions that are not certain"),
        ),
        *_of("exit",
            ("fixed", configs.FixedStep, "exits:fixed", "after the same number of steps"),
            ("entropy", configs.Entropy, "exits:entropy",
             "once the mean entropy is below a threshold"),
            ("kl", configs.KullbackLeibler, "exits:kl",
             "once the mean KL to the previous step is below a threshold"),
            ("jeffreys", configs.Jeffreys, "exits:jeffreys",
             "once the mean Jeffreys divergence to the previous step is below a threshold"),
            ("fraction", configs.AtFraction, "exits:fraction", "after the same share of the grid"),
            ("level", configs.AtLevel, "exits:level", "at the same noise level"),
            ("margin", configs.Margin, "exits:margin",
             "once the likeliest tokens lead by a mean margin"),
            ("falling", configs.Falling, "exits:Falling",
             "once the likeliest tokens lead enough for its progress (Prophet, SchED)"),
            ("switches", configs.TokenSwitches, "exits:TokenSwitches",
             "once at most s likeliest tokens changed in each of k steps (token-switch patience)"),
            ("stable-and-confident", configs.StableAndConfident, "exits:StableAndConfident",
             "once no likeliest token changed for k steps and the mean entropy is low"),
            ("any", configs.Rules, "exits:AnyOf", "when one of several rules holds"),
            ("all", configs.Rules, "exits:AllOf", "when several rules hold at once"),
            ("patience", configs.Patience, "exits:Patience",
             "when a rule has held several steps in a row"),
            ("after", configs.After, "exits:After", "a rule, but not before some step"),
        ),
        *_of("guidance",
            ("score-temperature", configs.ScoreTemperature, "guidance:ScoreTemperature",
             "divides the score by a temperature"),
            ("softmax-temperature", configs.SoftmaxTemperature, "guidance:SoftmaxTemperature",
             "divides the logits by a temperature, of any model",
             {"requires": frozenset(), "example": {"temperature": 0.7}, "expected_failures": {
                 "statistics-are-left-alone": "discrete samplers draw from what statistics read"}}),
            ("classifier-free", configs.ClassifierFree, "guidance:ClassifierFree",
             "extrapolates from the prediction without the given tokens; doubles the evaluations",
             {"requires": frozenset({"conditioning-dropout"})}),
            ("initial-noise", configs.InitialNoise, "guidance:InitialNoise",
             "starts from the prior's draw times a factor"),
            ("renormalised", configs.Below, "guidance:Renormalised",
             "scales the predicted x0 to the embeddings' norm sqrt(D)"),
            ("clamped", configs.Below, "guidance:Clamped",
             "replaces the predicted x0 by the nearest embedding"),
        ),
    ]  # fmt: skip
