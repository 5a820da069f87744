"""The test-bed of :mod:`dlmkit.testing.markov` as parts of a recipe."""

from __future__ import annotations

from dlmkit.core.context import BuildContext
from dlmkit.errors import RecipeError
from dlmkit.testing.markov import MarkovNetwork, MarkovSpace
from dlmkit_markov import configs
from dlmkit_markov.data import MarkovData, padded


def chain_of(context: BuildContext) -> MarkovData:
    """The recipe's chain. Raises RecipeError if the model is assembled without its data."""
    data = context.parts.get("data")
    if not isinstance(data, MarkovData):
        raise RecipeError(
            "markov: the exact posterior is computed from the data markov:chain, and this model "
            f"was assembled {'without data' if data is None else 'with ' + type(data).__name__}"
        )
    return data


def space(config: configs.MarkovSpace, context: BuildContext) -> MarkovSpace:
    """Embeddings of norm sqrt(D), float64."""
    return MarkovSpace(context.vocab_size, config.dim, config.seed)


def network(config: configs.ExactNetwork, context: BuildContext) -> MarkovNetwork:
    """The exact posterior of the recipe's chain in the recipe's space."""
    return MarkovNetwork(padded(chain_of(context).chain), context.part("space"))
