"""What the plugin `cdcd` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit.core.options import Normalised, Nothing
from dlmkit_cdcd import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="schedule",
            name="variance-exploding",
            summary="t is the noise's standard deviation; times drawn uniformly or log-uniformly",
            config=configs.VarianceExploding,
            target="dlmkit_cdcd.schedules:FixedDensity",
        ),
        Component(
            kind="schedule",
            name="time-warp",
            summary="CDCD's time warping: a piecewise-linear CDF fitted to the loss by gradient",
            config=configs.TimeWarp,
            target="dlmkit_cdcd.schedules:TimeWarp",
        ),
        Component(
            kind="schedule",
            name="time-warp-table",
            summary="time warping from a table of recent losses by noise level, no gradient",
            config=configs.TimeWarpTable,
            target="dlmkit_cdcd.schedules:TimeWarpTable",
        ),
        Component(
            kind="space",
            name="normalised",
            summary="L2-normalised embeddings of norm sqrt(d), with a tied or untied head",
            config=Normalised,
            target="dlmkit.core.points:NormalisedSpace",
            provides=frozenset({"gaussian", "unit-norm"}),
            example={"dim": 6, "start": "counts", "counts": {"tokens": 5000}},
        ),
        Component(
            kind="network",
            name="transformer",
            summary="pre-norm RoPE transformer on four input streams, conditioned on the level",
            config=configs.Transformer,
            target="dlmkit_cdcd.network:Transformer",
            example={"width": 16, "blocks": 2, "heads": 2, "time_features": 8},
        ),
        Component(
            kind="objective",
            name="score-interpolation",
            summary="cross-entropy on noised positions, with self-conditioning",
            config=configs.ScoreInterpolation,
            target="dlmkit_cdcd.objective:ScoreInterpolation",
            provides=frozenset({"conditioning-dropout", "cross-entropy"}),
            requires=frozenset({"gaussian"}),
        ),
        *(
            Component("masking", name, summary, config, f"dlmkit_cdcd.masking:{target}")
            for name, target, config, summary in (
                ("none", "NoMasking", Nothing, "nothing is given"),
                ("prefix", "PrefixMasking", Nothing, "a prefix of uniform length is given"),
                ("random", "RandomMasking", Nothing, "a random subset is given"),
                ("mix", "MixedMasking", configs.Mix, "each row by one of several maskings"),
            )
        ),
    ]
