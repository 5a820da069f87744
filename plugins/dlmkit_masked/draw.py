"""Which token is written: drawn in double precision, and only where one is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.candidates import TOKEN
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.tokens import categorical, in_blocks
from dlmkit.noise import Noise
from dlmkit.types import Ids, Mask, PerPosition, Query
from dlmkit_masked import configs

Rows = Float[Tensor, "*shape V"]


def likely(logits: Rows, config: configs.Draw) -> Rows:
    """``logits`` at the draw's temperature, minus infinity where a token is not drawn at all."""
    logits = logits / config.temperature if config.temperature != 1.0 else logits
    size = logits.shape[-1]
    if config.top_k is not None and config.top_k < size:
        least = logits.topk(config.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if config.top_p < 1.0:
        values, order = logits.sort(dim=-1, descending=True)
        share = values.softmax(dim=-1)
        # what comes before a token already holds top_p: the first always stays
        beyond = share.cumsum(dim=-1) - share >= config.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
    return logits


def draw(
    space: EmbeddingSpace, query: Query, chosen: Mask, noise: Noise, config: configs.Draw
) -> tuple[Ids, PerPosition]:
    """(a token at every position that is ``chosen``, its log-probability), 0 elsewhere.

    The log-probability is that of the undivided logits.
    """
    tokens = torch.zeros_like(chosen, dtype=torch.int64)
    written = torch.zeros_like(chosen, dtype=torch.float32)
    size, length = space.vocab_size, chosen.shape[1]
    for at in in_blocks(chosen, size):
        logits = space.logits(query[at][None])[0]
        if config.temperature == 0.0:
            token = logits.argmax(dim=-1)
        else:
            u = noise.uniform(TOKEN, (length, size), torch.float64, at)
            token = categorical(likely(logits, config), u)
        tokens[at] = token
        log_p = logits.float().log_softmax(dim=-1)
        written[at] = log_p.gather(-1, token[:, None])[:, 0]
    return tokens, written
