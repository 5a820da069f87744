"""Is a model worth shipping? It stands beside exact n-gram models of its own text.

On held-out text that no one trained on:

- by noise level, the model's cross-entropy beside those of the exact Bayes denoisers that know
  tokens one by one, by pairs and, where the vocabulary is small enough, by threes. Pairs and
  threes are interpolated with what is shorter (`dlmkit.exact.smoothing`), by weights that leaving
  one token out chooses.
- free texts beside those of bigram and trigram samplers of the same tokens, and of other pieces
  where they are asked for (relative frequencies, :mod:`dlmkit_acceptance.ngram_texts`), where all
  have the entropy of human text: under a character 6-gram judge (`text:ngram-judge`) and, if one
  is named, a language model (`metrics:ar-nll`). A score temperature moves the model's, a softmax
  temperature the others'. Entropies are those of characters pooled over as many texts of about as
  many characters. Beside them stands how much of the texts the training text holds.
- half of the tokens given at random places, the rest filled in: by the model, in one evaluation at
  the highest noise and in a whole run of its sampler, and by the chains' exact posteriors.

Intervals: 95 %, by leaving out texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dlmkit import devices, documents
from dlmkit.core.data import Data
from dlmkit.core.metric import Metric
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import UsageError
from dlmkit.evaluation.conditions import conditions
from dlmkit.evaluation.measure import Gauge, Intervals, gauges, pinned
from dlmkit.exact.context_gain import Denoised, Frequencies, sigmas
from dlmkit.model import Model, Run, open_model
from dlmkit.plugin import Part
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.types import Ids
from dlmkit_acceptance import document as acceptance
from dlmkit_acceptance import infilling
from dlmkit_acceptance.command import SHOWN
from dlmkit_acceptance.document import LANGUAGE_MODEL, QUALITY, Point
from dlmkit_acceptance.ngram_texts import NgramSampler
from dlmkit_text.configs import TextTokens
from dlmkit_text.pieces import train
from dlmkit_text.symbols import Cut, cutter

JUDGE, LANGUAGE, MAUVE = "text:ngram-judge", "metrics:ar-nll", "metrics:mauve"
METRICS = (JUDGE, "text:ngram-entropy", "metrics:copied", "metrics:self-bleu")
ORDERS = {"bigram": 2, "trigram": 3}
COUNTED = 2_000_000
"""Tokens of training text behind the exact denoisers, at most."""

LARGEST = 4096
"""The largest vocabulary that the exact bigram denoiser is made for: L V^2 products a row."""


@dataclass(frozen=True)
class AcceptancePlan:
    """How much is measured, and by whom."""

    judge: str | None
    encoder: str | None
    pieces: tuple[int, ...]
    texts: int
    rows: int
    infilled: int
    temperatures: tuple[float, ...]
    softmax: tuple[float, ...]
    batch_size: int | None
    seed: int

    def little(self) -> AcceptancePlan:
        """So little that it says nothing."""
        few = {"rows": 16, "texts": SHOWN, "infilled": 16, "temperatures": (0.8, 1.0)}
        return replace(self, **few, softmax=(0.8, 1.0))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Acceptance:
    """A model with all that it is measured by; ``say`` is told what is under way."""

    name: str
    plan: AcceptancePlan
    model: Model
    frequencies: Frequencies
    gauges: Sequence[Gauge]
    say: Callable[[str], object]
    intervals: Intervals = field(default_factory=Intervals)

    @staticmethod
    def of(
        reference: str,
        plan: AcceptancePlan,
        overrides: Sequence[str],
        device: str,
        say: Callable[[str], object],
    ) -> Acceptance:
        """The model that ``reference`` means, with metrics fitted to its text.

        Raises UsageError for a vocabulary too large for the exact bigram denoiser, and what
        opening the model and fitting the metrics raise.
        """
        chosen = devices.choose(device)
        model = open_model(reference, overrides, device=chosen)
        size = model.data.tokenizer.vocab_size
        if size > LARGEST:
            raise UsageError(
                f"{reference}: {size:,} tokens are too many for the exact bigram denoiser; "
                f"expected a model of at most {LARGEST:,}"
            )
        here = {"device": str(chosen)}
        parts = [Part(use=name) for name in METRICS]
        if plan.judge is not None:
            parts.append(Part(use=LANGUAGE, options={"judge": plan.judge, **here}))
        if plan.encoder is not None:
            parts.append(Part(use=MAUVE, options={"encoder": plan.encoder, **here}))
        fitted = gauges(model.assembly.build, parts, model.data)
        say("counting tokens")
        tokens = min(COUNTED, tokens_of(model.data))
        counted = Frequencies.count(model.data, tokens, order=3, largest=LARGEST, interpolate=True)
        return Acceptance(reference, plan, model, counted, fitted, say)

    @property
    def data(self) -> Data:
        """The model's text."""
        return self.model.data

    @property
    def metrics(self) -> dict[Metric, str]:
        """Each with what stands before the names of its numbers."""
        return {
            gauge.metric: LANGUAGE_MODEL if gauge.part.use == LANGUAGE else ""
            for gauge in self.gauges
        }

    def metric(self, use: str) -> Metric:
        """The fitted metric ``use``."""
        return next(gauge.metric for gauge in self.gauges if gauge.part.use == use)

    def document(self) -> dict[str, Any]:
        """All of it, as JSON types."""
        plan = self.plan
        under = conditions(self.model, self.model.requests(1), None)
        subject = {"name": self.name, "sha256": under.pop("model")}
        self.say("cross-entropy by noise level")
        levels = self.levels()
        curves = {"model": self.free(), **self.chains()}
        writers = {name: self.points(name, curve) for name, curve in curves.items()}
        human = self.human(self.decoded(self.data.validation(plan.texts).ids))
        texts = curves["model"].get(1.0) or self.write(self.model, SHOWN)
        judged = {gauge.label: pinned(gauge) for gauge in self.gauges}
        return {
            "subject": subject,
            "protocol": {
                "sampling": under,
                "rows": plan.rows,
                "texts": plan.texts,
                "infilled": plan.infilled,
                "seed": plan.seed,
                "language_model": judged[LANGUAGE]["judge"]["name"] if plan.judge else None,
                "data": {"use": self.model.config.data.use, "read_as": self.data.describe()},
                "metrics": judged,
                "intervals": self.intervals.pinned(),
                "versions": documents.versions(),
            },
            "levels": levels,
            "frontier": acceptance.frontier(writers, human, self.intervals),
            "infilling": self.infilling(),
            "samples": texts[:SHOWN],
        }

    def levels(self) -> list[dict[str, Any]]:
        """The model beside the exact denoisers, level by level."""
        assembly, batch = self.model.assembly, self.data.validation(self.plan.rows)
        device = assembly.context.device
        there = Batch(batch.ids.to(device), batch.attend.to(device))
        denoised = Denoised(
            self.model.parts.denoise,
            assembly.space,
            assembly.schedule,
            self.frequencies,
            self.plan.seed,
            rows=16,
        )
        return [
            acceptance.level(
                float(sigma),
                denoised.scores(there, sigma, index),
                batch.attend.sum(dim=1).double(),
                self.intervals,
            )
            for index, sigma in enumerate(sigmas(assembly.schedule))
        ]

    def free(self) -> dict[float, list[str]]:
        """The model's texts by score temperature."""
        drawn = {}
        for t in self.plan.temperatures:
            self.say(f"{self.plan.texts} texts at score temperature {t:g}")
            part = Part(use="samplers:score-temperature", options={"temperature": t})
            moved = self.model.with_parts(guidance=[*self.model.config.guidance, part])
            drawn[t] = self.write(self.model if t == 1.0 else moved, self.plan.texts)
        return drawn

    def write(self, model: Model, count: int) -> list[str]:
        """``count`` texts of the seed."""
        return self.decoded(self.run(model, unconditional(count, model.config.length), None))

    def run(self, model: Model, requests: Sequence[Request], steps: int | None) -> Ids:
        """The tokens of texts as long as the model's, in the order of their index."""
        samples = model.run(requests, Run(self.plan.seed, steps, self.plan.batch_size))
        return torch.tensor([sample.ids for sample in samples])

    def decoded(self, ids: Ids) -> list[str]:
        """Rows of tokens as text."""
        return [self.data.tokenizer.decode(row) for row in ids.tolist()]

    def chains(self) -> dict[str, dict[float, list[str]]]:
        """Texts of the n-gram samplers by softmax temperature: of the model's own tokens, then of
        other pieces, about as many characters long."""
        texts = [*self.data.texts("train")]
        cuts: dict[str, Cut] = {"": cutter("tokens", self.data.tokenizer)}
        for size in self.plan.pieces:
            self.say(f"learning {size:,} pieces")
            options = TextTokens(kind="pieces", size=size, lowercase=False, fold=False)
            learned = Tokenizer(train(texts, options))
            cuts[f" of {size:,} pieces"] = cutter("tokens", learned)
        tokens = sum(len(cuts[""](text)) for text in self.data.texts("validation"))
        drawn = {}
        for words, cut in cuts.items():
            other = sum(len(cut(text)) for text in self.data.texts("validation"))
            length = max(2, round(self.model.config.length * other / tokens))
            for name, order in ORDERS.items():
                self.say(f"texts of a {name} sampler{words}")
                drawn[name + words] = self.drawn(NgramSampler(texts, order, cut), length)
        return drawn

    def drawn(self, sampler: NgramSampler, length: int) -> dict[float, list[str]]:
        """A sampler's texts by softmax temperature."""
        count, seed = self.plan.texts, self.plan.seed
        return {t: sampler.sample(count, length, seed, t) for t in self.plan.softmax}

    def points(self, name: str, curve: Mapping[float, Sequence[str]]) -> dict[float, Point]:
        """A writer's numbers by temperature."""
        self.say(f"judging the texts: {name}")
        by_temperature = {
            t: Point.of(self.metrics, drawn, self.intervals) for t, drawn in curve.items()
        }
        judged = all(LANGUAGE_MODEL + QUALITY in point.values for point in by_temperature.values())
        if self.plan.judge is not None and not judged:
            raise UsageError(
                f"--judge {self.plan.judge}: it cannot read whole texts of {name}, which are "
                "longer than its context; expected a judge with a longer one"
            )
        return by_temperature

    def human(self, drawn: Sequence[str]) -> Point:
        """Held-out text, whose MAUVE is that of training text: of itself it would be 1."""
        known = {m: b for m, b in self.metrics.items() if m is not self._mauve()}
        point = Point.of(known, drawn, self.intervals)
        if mauve := self._mauve():
            value = mauve.evaluate(drawn).numbers["human_mauve"]
            values, bounds = {**point.values, "mauve": value}, {**point.bounds, "mauve": (0.0, 1.0)}
            point = replace(point, values=values, bounds=bounds)
        return point

    def _mauve(self) -> Metric | None:
        return None if self.plan.encoder is None else self.metric(MAUVE)

    def infilling(self) -> dict[str, Any]:
        """Each writer's answers to the same half-given rows."""
        plan, batch = self.plan, self.data.validation(self.plan.infilled)
        given = infilling.half_given(batch, plan.seed)
        self.say(f"{plan.infilled} texts to fill in")
        filled = infilling.by_chains(batch, given, self.frequencies, plan.seed)
        requests = requests_of(batch, given)
        once, whole = (self.run(self.model, requests, steps) for steps in (1, None))
        judge = {self.metric(JUDGE): ""}
        points = {}
        for name, written in {"model": infilling.Filled(once, whole), **filled}.items():
            shares = infilling.accuracy(
                {"likeliest": written.likeliest, "drawn": written.drawn}, batch, given
            )
            points[name] = Point.of(judge, self.decoded(written.drawn), self.intervals, shares)
        human = Point.of(judge, self.decoded(batch.ids), self.intervals)
        return acceptance.infilled(points, human, self.intervals)


def tokens_of(data: Data) -> int:
    """How many tokens the training text has: what is read twice would be trusted too much."""
    return sum(len(data.tokenizer.encode(text)) + 1 for text in data.texts("train"))


def requests_of(batch: Batch, given: torch.Tensor) -> list[Request]:
    """Rows to be filled in where they are not ``given``."""
    rows = zip(batch.ids.tolist(), given.tolist(), strict=True)
    return [
        Request(i, tuple(v if known else None for v, known in zip(ids, mask, strict=True)))
        for i, (ids, mask) in enumerate(rows)
    ]
