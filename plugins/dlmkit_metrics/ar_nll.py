"""The metric `ar-nll`: likelihood under a causal language model, and what it cannot see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric, Numbers
from dlmkit.errors import DataError, UsageError
from dlmkit_metrics import pretrained
from dlmkit_metrics.configs import ArNll
from dlmkit_text.cut import held_out
from dlmkit_text.pooling import Pool, entropy

Rows = Sequence[Sequence[int]]


class ArNllMetric(Metric):
    """Nats a token of every text by itself, under a causal language model.

    Low values mean likely text, not good text: one sentence for ever scores best. So entropy,
    length and distinct-n of the same tokens stand beside it, and all of them for human text.
    """

    def __init__(self, config: ArNll, context: BuildContext) -> None:
        self.config = config

    @cached_property
    def judge(self) -> pretrained.Reader:
        """Loaded when it is first needed. Raises DataError if it cannot be had."""
        return pretrained.load(self.config.judge, "judge", "AutoModelForCausalLM", self.config)

    def fit(self, data: Data) -> None:
        """Load the judge; check that it can read the run's ids where it is to.

        Raises DataError, and UsageError for options that this judge cannot serve.
        """
        self.data = data
        self.begin = self._begin()
        limit = getattr(self.judge.model.config, "max_position_embeddings", None)
        if limit is not None and (self.config.context or 0) > limit:
            raise UsageError(
                f"ar-nll: context: {self.config.context} is more than the {limit} tokens that "
                f"{self.config.judge} can read"
            )
        self.context: int | None = self.config.context or limit
        if not self.config.retokenise:
            self._require_same_vocabulary()

    def _begin(self) -> list[int]:
        if self.config.begin == "none":
            return []
        token = getattr(self.judge.tokenizer, f"{self.config.begin}_token_id")
        if token is None:
            raise UsageError(
                f"ar-nll: begin: {self.config.begin}, but {self.config.judge} has no such token; "
                f"give another, or none"
            )
        return [int(token)]

    def _require_same_vocabulary(self) -> None:
        theirs = {index: piece for piece, index in self.judge.tokenizer.get_vocab().items()}
        for index, piece in enumerate(self.data.tokenizer.pieces()):
            if theirs.get(index) != piece:
                raise UsageError(
                    f"ar-nll: retokenise: false needs one vocabulary, but id {index} is {piece!r} "
                    f"to the model and {theirs.get(index)!r} to {self.config.judge}; leave the "
                    f"option out to have texts cut by the judge's tokenizer"
                )

    def pinned(self) -> Mapping[str, Any]:
        """The judge's hash or commit, and the context that it was given."""
        return {"judge": self.judge.identity, "context": self.context, "begin_ids": self.begin}

    def measure(self, texts: Sequence[str]) -> Numbers:
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """These numbers, and ``human_*`` of as much validation text:

        nll_per_token      nats of all scored tokens over their number
        nll_per_character  the same nats over the characters of the texts they were scored in, if
                           none was cut: this compares judges of different vocabularies
        entropy            entropy of a text's own tokens (unigrams) in nats, mean over texts
        entropy_pooled     entropy of the tokens of all texts together, in nats
        distinct_n         distinct n-grams of all texts together over their number
        tokens             mean tokens of a text, as scored or unscored
        cut, unscored      shares of texts longer than the context, and with no scored token
        """
        measured = self.alone(texts, ids)
        human = held_out(self.data, texts)
        beside = self._score(human, self._human(human)).numbers(range(len(human)))
        return Measured(
            {**measured.numbers, **{f"human_{key}": value for key, value in beside.items()}},
            measured.again,
        )

    def alone(self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None) -> Measured:
        if not self.config.retokenise and ids is None:
            raise UsageError(
                "ar-nll: retokenise: false needs the ids that the model wrote, and of these "
                "texts only characters are known"
            )
        scored = self._score(texts, self._cut(texts) if self.config.retokenise else ids or ())
        return Measured(scored.numbers(range(len(texts))), scored.numbers)

    def bounds(self, name: str) -> tuple[float, float]:
        share = name.startswith("distinct_") or name in ("cut", "unscored")
        return 0.0, 1.0 if share else math.inf

    def _cut(self, texts: Sequence[str]) -> Rows:
        rows: Rows = self.judge.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=self.config.specials == "text",
            verbose=False,
        )["input_ids"]
        return rows

    def _human(self, texts: Sequence[str]) -> Rows:
        return self._cut(texts) if self.config.retokenise else [*map(self._own, texts)]

    def _own(self, text: str) -> list[int]:
        """The run's own tokens, unknown ones kept."""
        tokens: list[int] = self.data.tokenizer.backend.encode(text, add_special_tokens=False).ids
        return tokens

    def _score(self, texts: Sequence[str], rows: Rows) -> Scored:
        room = None if self.context is None else self.context - len(self.begin)
        kept = [list(row[:room]) for row in rows]
        cut = [len(row) > len(short) for row, short in zip(rows, kept, strict=True)]
        nats = self._nats(kept)
        scored = [max(0, len(row) - 1 + len(self.begin)) for row in kept]
        return Scored(
            np.array([nats, scored, [*map(len, texts)], [*map(len, kept)], cut], dtype=np.float64),
            {n: Pool(kept, n) for n in {1, *self.config.orders}},
            np.array([entropy(Pool([row], 1).counts([0])) if row else 0.0 for row in kept]),
            self.config.orders,
        )

    def _nats(self, rows: Rows) -> list[float]:
        """Of each row, summed over its scored tokens, in float64."""
        nats: list[float] = []
        size = self.config.batch_size
        for first in range(0, len(rows), size):
            nats += self._batch([[*self.begin, *row] for row in rows[first : first + size]])
        return nats

    @torch.no_grad()
    def _batch(self, rows: Rows) -> list[float]:
        width = max(map(len, rows))
        if width < 2:
            return [0.0] * len(rows)
        device = self.judge.model.device
        lengths = torch.tensor([*map(len, rows)], device=device)
        mask = torch.arange(width, device=device) < lengths[:, None]
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        if int(ids.max()) >= self.judge.model.get_input_embeddings().num_embeddings:
            raise DataError(
                f"the judge {self.config.judge} has a tokenizer of another model: it gives id "
                f"{int(ids.max())}, and there are "
                f"{self.judge.model.get_input_embeddings().num_embeddings} embeddings"
            )
        logits: Tensor = self.judge.model(input_ids=ids, attention_mask=mask.long()).logits
        nats = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none")
        total: list[float] = torch.where(mask[:, 1:], nats, 0.0).double().sum(dim=1).tolist()
        return total


@dataclass(frozen=True)
class Scored:
    """What is known of each text: rows nats, scored tokens, characters, tokens and cut."""

    table: np.ndarray[Any, np.dtype[np.float64]]
    pools: Mapping[int, Pool]
    entropies: np.ndarray[Any, np.dtype[np.float64]]
    orders: Sequence[int]

    def numbers(self, chosen: Sequence[int]) -> dict[str, float]:
        """Of the texts ``chosen``; what cannot be said of them is left out."""
        index = np.asarray(chosen, dtype=np.int64)
        nats, scored, characters, tokens, cut = self.table[:, index]
        values: dict[str, float] = {}
        if scored.sum():
            values["nll_per_token"] = math.fsum(nats) / scored.sum()
            if not cut.any():
                values["nll_per_character"] = math.fsum(nats) / characters[scored > 0].sum()
        for n, pool in self.pools.items():
            counts = pool.counts(chosen)
            if n == 1 and len(counts):
                values["entropy"] = float(self.entropies[index].mean())
                values["entropy_pooled"] = entropy(counts)
            if n in self.orders and len(counts):
                values[f"distinct_{n}"] = len(counts) / float(counts.sum())
        values["tokens"] = float(tokens.mean())
        return {**values, "cut": float(cut.mean()), "unscored": float((scored == 0).mean())}
