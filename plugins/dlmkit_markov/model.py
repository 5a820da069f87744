"""The test-bed of :mod:`dlmkit.testing.markov` as parts of a recipe."""

from __future__ import annotations

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.options import Nothing, Tokens
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.testing.markov import MarkovNetwork, MarkovSpace, MaskedMarkovNetwork
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


def space(config: configs.FixedEmbeddings, context: BuildContext) -> MarkovSpace:
    """Embeddings of norm sqrt(D), float64."""
    return MarkovSpace(context.vocab_size, config.dim, config.seed)


def network(config: Nothing, context: BuildContext) -> MarkovNetwork:
    """The exact posterior of the recipe's chain in the recipe's space."""
    return MarkovNetwork(padded(chain_of(context).chain), context.part("space"))


def masked_space(config: Nothing, context: BuildContext) -> TokenSpace:
    """Ids under masks, float64; the network reads one channel of a token, its id plus 1."""
    space = TokenSpace(Tokens(dim=1), context).double().requires_grad_(False)
    ids = torch.arange(1, 1 + len(space.table.weight)).to(space.table.weight)
    space.table.weight.copy_(ids[:, None])
    return space


def masked_network(config: Nothing, context: BuildContext) -> MaskedMarkovNetwork:
    """The exact posterior of the recipe's chain given the tokens that no mask covers."""
    return MaskedMarkovNetwork(padded(chain_of(context).chain), context.part("space"))
