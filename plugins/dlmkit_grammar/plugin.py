"""What the plugin `grammar` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit_grammar import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="data",
            name="grammar",
            summary="sentences of a toy grammar: endless, 144 ids, exact entropy rate",
            config=configs.GrammarRows,
            target="dlmkit_grammar.data:GrammarData",
            provides=frozenset({"grammar"}),
        ),
        Component(
            kind="metric",
            name="grammar",
            summary="validity, agreement and exact likelihood under the toy grammar",
            config=configs.GrammarMetric,
            target="dlmkit_grammar.metric:GrammarScore",
            requires=frozenset({"grammar"}),
        ),
    ]
