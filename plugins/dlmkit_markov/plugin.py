"""What the plugin `markov` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit.core.options import Nothing
from dlmkit_markov import configs

api = 2

CHAIN = frozenset({"markov-chain"})


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="data",
            name="chain",
            summary="endless texts of a random Markov chain with known entropy",
            config=configs.MarkovText,
            target="dlmkit_markov.data:MarkovData",
            provides=CHAIN,
        ),
        Component(
            kind="space",
            name="fixed",
            summary="fixed random embeddings; the query is the logits themselves",
            config=configs.FixedEmbeddings,
            target="dlmkit_markov.model:space",
            provides=frozenset({"gaussian", "markov-space"}),
        ),
        Component(
            kind="network",
            name="exact",
            summary="the chain's exact posterior by forward-backward; nothing to train",
            config=Nothing,
            target="dlmkit_markov.model:network",
            requires=CHAIN | {"markov-space"},
        ),
        Component(
            kind="space",
            name="masked",
            summary="token ids with a mask state, for the exact posterior under masks",
            config=Nothing,
            target="dlmkit_markov.model:masked_space",
            provides=frozenset({"masked", "token-ids", "markov-masks"}),
            expected_failures={"gradient-reaches-the-table": "nothing of it is trained"},
        ),
        Component(
            kind="network",
            name="exact-masked",
            summary="the chain's exact posterior given the uncovered tokens; nothing to train",
            config=Nothing,
            target="dlmkit_markov.model:masked_network",
            requires=CHAIN | {"markov-masks"},
            expected_failures={
                "gradients-reach-all": "nothing of it is trained",
                "shard-units-are-its-own": "it has no parameters to shard",
            },
        ),
        Component(
            kind="schedule",
            name="exact-warp",
            summary="variance exploding, times warped by the exact cross-entropy",
            config=configs.ExactWarp,
            target="dlmkit_markov.schedule:ExactWarp",
            requires=CHAIN | {"markov-space"},
        ),
        Component(
            kind="quota",
            name="middle",
            summary="the middle of every gap: of a chain, all that may be written at once",
            config=Nothing,
            target="dlmkit_markov.quota:Middle",
            requires=CHAIN | {"masked"},
            expected_failures={"follows-the-order": "of a gap the middle comes first, always"},
        ),
        Component(
            kind="metric",
            name="exact",
            summary="exact likelihood and transitions against the chain, with intervals",
            config=configs.ExactMetric,
            target="dlmkit_markov.metric:ExactScore",
            requires=CHAIN,
        ),
    ]
