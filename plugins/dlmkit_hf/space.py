"""The word embeddings of an encoder as the points of a space, fixed, as in SED (2211.04236)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.errors import RecipeError
from dlmkit.kernels.vocabulary import Tables
from dlmkit.types import Embedded, Ids, Logits, Probabilities, Query
from dlmkit_hf import configs, pretrained


class WordEmbeddings(EmbeddingSpace):
    """Points e_v / ``scale`` with one ``scale`` for all, so that their mean square is 1.

    The points are not trained, so cross-entropy cannot blow them up. The head is tied. Rebuilt
    from a checkpoint, or for a fresh start, the points are random until weights are loaded.
    """

    scale: Tensor
    weight: Tensor

    def __init__(self, config: configs.WordEmbeddings, context: BuildContext) -> None:
        super().__init__()
        table = pretrained.words(config, context)
        if len(table) < context.vocab_size:
            raise RecipeError(
                f"space: the encoder has {len(table)} word embeddings and the tokenizer "
                f"{context.vocab_size} tokens; take the encoder's own tokenizer: "
                "data.with.tokenizer: {kind: pretrained, name: ...}"
            )
        table = table[: context.vocab_size]
        self.vocab_size, self.dim = table.shape
        self.query_dim, self.tied = self.dim, True
        self.corruption = GaussianCorruption()
        self.register_buffer("scale", table.square().mean().sqrt())
        self.register_buffer("weight", table / self.scale)

    def embed(self, ids: Ids) -> Embedded:
        return F.embedding(ids, self.weight)

    def logits(self, query: Query) -> Logits:
        return query @ self.weight.T

    def expect(self, probabilities: Probabilities) -> Embedded:
        return probabilities @ self.weight

    def tables(self) -> Tables:
        return Tables(self.weight, self.weight)

    @torch.no_grad()
    def start(self, inputs: nn.Linear) -> None:
        """Set ``inputs``, over the four streams, to give back e_v of a clean or a given token."""
        eye = torch.eye(self.dim) * self.scale
        nothing = torch.zeros(self.dim, self.dim)
        inputs.weight.copy_(torch.cat((eye, eye, nothing[:, :1], nothing), dim=1))
