"""The data component `chain`: texts of a Markov chain, one id a token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data, Stream
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import PAD, UNKNOWN, Tokenizer
from dlmkit.errors import DataError, UsageError
from dlmkit.noise import Noise
from dlmkit.testing.markov import MarkovChain
from dlmkit_markov.configs import MarkovText

_TRAIN, _VALIDATION = 0x3A21, 0x3A22
_TEXTS = {"train": 10_000, "validation": 2_000}


def tokenizer(tokens: int) -> Tokenizer:
    """``<pad>`` at id 0, ``tokens`` numbered words, ``<unk>``; spaces stand between them."""
    width = len(str(tokens - 1))
    words = [PAD, *(f"w{i:0{width}}" for i in range(tokens)), UNKNOWN]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([PAD, UNKNOWN])
    return Tokenizer(backend)


def padded(chain: MarkovChain) -> MarkovChain:
    """``chain`` over the tokenizer's ids: nothing leads to the special ones but they themselves."""
    size = len(chain.initial) + 2
    initial, transition = chain.initial.new_zeros(size), torch.eye(size).to(chain.transition)
    initial[1:-1], transition[1:-1, 1:-1] = chain.initial, chain.transition
    return MarkovChain(initial, transition)


class MarkovStream(Stream):
    """Row ``slot`` of ``step`` is item ``step * batch_size + slot``."""

    def __init__(self, data: MarkovData, seed: int, batch_size: int) -> None:
        self.data = data
        self.seed = seed
        self.batch_size = batch_size

    def read(self, step: int, slots: Tensor) -> Batch:
        return self.data.batch(self.seed, step * self.batch_size + slots, _TRAIN)

    def state(self) -> Mapping[str, Any]:
        """Empty: a row follows from its step and slot."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore. Raises UsageError if there is."""
        if state:
            raise UsageError(f"this data keeps no state, but a checkpoint has {sorted(state)}")


class MarkovData(Data):
    """Endless texts of one chain. ``chain`` is over its own tokens: id i + 1 is token i."""

    oracle_quota = "markov:middle"
    """What `dlmkit bench sampler --decoders` shows as the oracle of these texts."""

    def __init__(self, config: MarkovText, context: BuildContext) -> None:
        self.chain = MarkovChain.random(
            config.tokens, config.sharpness, config.chain_seed, config.successors
        )
        self.tokenizer = tokenizer(config.tokens)
        self.length = context.length
        self.seed = context.seed

    def stream(self, seed: int, batch_size: int) -> MarkovStream:
        return MarkovStream(self, seed, batch_size)

    def validation(self, count: int) -> Batch:
        """Rows of their own, the same in every run whatever its seed."""
        return self.batch(0, torch.arange(count), _VALIDATION)

    def texts(self, split: str) -> Iterator[str]:
        """10,000 rows of the training stream or 2,000 of the validation rows, as text."""
        if split not in _TEXTS:
            raise DataError(f"there is no split {split!r}; there are {list(_TEXTS)}")
        seed, domain = (self.seed, _TRAIN) if split == "train" else (0, _VALIDATION)
        for ids in self.batch(seed, torch.arange(_TEXTS[split]), domain).ids.tolist():
            yield self.tokenizer.decode(ids)

    def batch(self, seed: int, items: Tensor, domain: int) -> Batch:
        """The texts of ``items``: each depends on the seed, its number and the domain alone."""
        ids = 1 + self.chain.draw(Noise.keyed(seed, items, 0).fork(domain), self.length)
        return Batch(ids, torch.ones(ids.shape, dtype=torch.bool))
