"""The kit's own parts: the smallest model that components are checked in, a component per kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import models, pre_tokenizers
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data, Stream
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.masking import Masking
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.options import Nothing as Nothing
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.core.tokenizer import PAD, UNKNOWN, Tokenizer
from dlmkit.noise import Noise
from dlmkit.plugin import PROJECT, Component
from dlmkit.registry.loading import Loaded
from dlmkit.types import Embedded, Ids, Logits, Mask, Probabilities, Query

LENGTH = 12
WORDS = ["the", "a", "cat", "dog", "bird", "sees", "hears", "finds", "and", "or", "small", "big"]


class WordStream(Stream):
    """Rows of random words, each a function of (seed, step, slot)."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed, self.length = seed, length

    def read(self, step: int, slots: Tensor) -> Batch:
        noise = Noise.keyed(self.seed, slots.long(), step)
        ids = 2 + (noise.uniform(0, (self.length,)) * len(WORDS)).long()
        return Batch(ids, torch.ones_like(ids, dtype=torch.bool))

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class Words(Data):
    """Twelve words in random order."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        self.length = context.length
        vocabulary = {word: i for i, word in enumerate((PAD, UNKNOWN, *WORDS))}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.add_special_tokens([PAD, UNKNOWN])
        self.tokenizer = Tokenizer(backend)

    def stream(self, seed: int, batch_size: int) -> Stream:
        return WordStream(seed, self.length)

    def validation(self, count: int) -> Batch:
        return WordStream(-1, self.length).read(0, torch.arange(count))

    def texts(self, split: str) -> Iterator[str]:
        batch = WordStream(-2 if split == "train" else -1, self.length).read(0, torch.arange(64))
        return iter([self.tokenizer.decode(row) for row in batch.ids.tolist()])


class Tied(EmbeddingSpace):
    """Points of norm sqrt(D) with a tied head, in Gaussian noise."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size, self.dim, self.query_dim, self.tied = context.vocab_size, 6, 6, True
        self.corruption = GaussianCorruption()
        self.weight = nn.Parameter(torch.randn(self.vocab_size, self.dim))

    def table(self) -> Tensor:
        """The embeddings of all tokens."""
        return F.normalize(self.weight, dim=-1) * math.sqrt(self.dim)

    def embed(self, ids: Ids) -> Embedded:
        return self.table()[ids]

    def logits(self, query: Query) -> Logits:
        return query @ self.table().T

    def expect(self, probabilities: Probabilities) -> Embedded:
        return probabilities @ self.table()


class Untied(Tied):
    """The same with a head of its own, which reads more channels than an embedding has."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__(config, context)
        self.query_dim, self.tied = 10, False
        self.head = nn.Linear(self.query_dim, self.vocab_size)

    def logits(self, query: Query) -> Logits:
        logits: Tensor = self.head(query)
        return logits


class Plain(NoiseSchedule):
    """Variance exploding: sigma is t."""

    t_min, t_max = 0.1, 20.0

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__()

    def level(self, t: Tensor) -> Level:
        return Level.of_ratio(t.clone())

    def inverse(self, ratio: Tensor) -> Tensor:
        return ratio


class Preserving(Plain):
    """Variance preserving: alpha is the cosine of t."""

    t_min, t_max = 0.05, 1.5

    def level(self, t: Tensor) -> Level:
        return Level(torch.cos(t), torch.sin(t))

    def inverse(self, ratio: Tensor) -> Tensor:
        return torch.atan(ratio)


class Mixing(ScoreNetwork):
    """One hidden layer a position, beside the mean of the positions that are no padding."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        self.inputs = nn.Linear(3 * space.dim + 2, 16)
        self.block = nn.Linear(32, 16)
        self.query = nn.Linear(16, space.query_dim)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        ratio = torch.log(level.like(x).ratio).expand(*x.shape[:2], 1)
        noised = (~conditioning.given)[..., None].to(x.dtype)
        features = (x * noised, conditioning.clean, previous * noised, noised, ratio)
        h = torch.tanh(self.inputs(torch.cat(features, dim=-1)))
        attend = conditioning.attend[..., None].to(h.dtype)
        mean = (h * attend).sum(dim=1, keepdim=True) / attend.sum(dim=1, keepdim=True).clamp(min=1)
        h = torch.tanh(self.block(torch.cat((h, mean.expand_as(h)), dim=-1)))
        query: Tensor = self.query(h)
        return query

    def shard_units(self) -> Sequence[nn.Module]:
        return (self.block,)


class Half(Masking):
    """The first half of each row's tokens is given."""

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        half = attend.sum(dim=1, keepdim=True) // 2
        return (attend.long().cumsum(dim=1) <= half) & attend


class NoisedCrossEntropy(RecipeObjective):
    """Cross-entropy of the tokens at noised positions."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__(context)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        logits = self.space.logits(noised.query()).transpose(1, 2)
        return self.loss(F.cross_entropy(logits, batch.ids, reduction="none"), noised)


def _part(kind: str, name: str, target: type, *provides: str) -> Component:
    words = target.__doc__ or ""
    where = f"{__name__}:{target.__name__}"
    return Component(kind, name, words.rstrip("."), Nothing, where, frozenset(provides))


KIT = Loaded(
    name=PROJECT,
    distribution=PROJECT,
    version="",
    target=__name__,
    components=(
        _part("data", "words", Words),
        _part("space", "tied", Tied, "gaussian", "tied", "unit-norm"),
        _part("space", "untied", Untied, "gaussian", "unit-norm"),
        _part("schedule", "plain", Plain),
        _part("schedule", "preserving", Preserving),
        _part("network", "mixing", Mixing),
        _part("masking", "half", Half),
        _part(
            "objective",
            "cross-entropy",
            NoisedCrossEntropy,
            "cross-entropy",
            "conditioning-dropout",
        ),
    ),
)
"""The parts as a plugin under dlmkit's own name, which no package may take."""
