"""A score network around an encoder of transformers, as SSD-LM and TESS start from RoBERTa.

SSD-LM: Han et al. 2022 (2210.17432); TESS: Karimi Mahabadi et al. 2023 (2305.08379).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.layers import TimeFeatures, streams
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.errors import DataError
from dlmkit.types import Embedded, Query
from dlmkit_hf import configs, pretrained
from dlmkit_hf.blocks import blocks_of
from dlmkit_hf.space import WordEmbeddings


class HfEncoder(ScoreNetwork):
    """Four input streams, projected to the width of the encoder's word embeddings, which they
    replace; the encoder's blocks; a projection to queries, which starts at zero.

    The streams are those of CDCD's transformer: noisy x, clean embeddings, the mask, the previous
    prediction. The level is added to every position behind the projection (as Diffusion-LM and
    SSD-LM do), from a layer that starts at zero, so that the encoder starts as it was trained.
    The projection starts with the scale of the word embeddings that it stands for; in a space of
    the word embeddings themselves it starts by giving them back, so that clean text is read as
    the encoder was trained to read it. All of this is our choice. Dropout is off: every draw of a
    run is keyed, and torch's dropout is not.
    """

    def __init__(self, config: configs.HfEncoder, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        self.encoder, scale = pretrained.encoder(config, context)
        self.described = self.encoder.config
        embedded, hidden = scale.numel(), self.described.hidden_size
        _check_length(self.described, context.length)
        self.inputs = nn.Linear(3 * space.dim + 1, embedded)
        with torch.no_grad():
            # two of the streams have unit variance where the third is zero
            self.inputs.weight.normal_().mul_(scale[:, None] * (2 * space.dim + 1) ** -0.5)
            self.inputs.bias.zero_()
        if isinstance(space, WordEmbeddings) and space.dim == embedded:
            space.start(self.inputs)
        self.time = TimeFeatures(config.time_features, config.time_bandwidth)
        self.shift = nn.Linear(config.time_features, embedded)
        self.query = nn.Linear(hidden, space.query_dim, bias=False)
        for layer in (self.shift, self.query):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        h = self.inputs(streams(x, conditioning, previous)) + self.shift(self.time(level))
        out = self.encoder(inputs_embeds=h, attention_mask=conditioning.attend.long())
        query: Tensor = self.query(out.last_hidden_state)
        return query

    def shard_units(self) -> Sequence[nn.Module]:
        return blocks_of(self.encoder, self.described.num_hidden_layers)

    def save(self, folder: Path) -> None:
        """The encoder's architecture: with it, no hub is needed to build it again."""
        pretrained.save(self.described, folder)


def _check_length(config: Any, length: int) -> None:
    """Raise DataError if an encoder has fewer position embeddings than a text has tokens."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return
    # RoBERTa and its kin count positions from the padding id on
    offset = config.pad_token_id + 1 if config.model_type in pretrained.OFFSET else 0
    if length > limit - offset:
        raise DataError(
            f"network: {config.model_type} has {limit - offset} position embeddings, and texts are "
            f"to have {length} tokens; lower length"
        )
