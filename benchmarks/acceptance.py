"""Is a model worth shipping? It stands beside exact n-gram models of its own text.

    python benchmarks/acceptance.py MODEL --out FILE.json             # a run, or a shipped name
    python benchmarks/acceptance.py MODEL --out FILE.json --quick     # little of all: does it run

On held-out text that no one trained on:

- by noise level, the model's cross-entropy beside those of the exact Bayes denoisers that know
  tokens one by one, by pairs and by threes. The last one's probabilities are interpolated with
  those of pairs (`dlmkit.exact.smoothing`), by weights that leaving one token out chooses.
- free texts beside those of bigram and trigram samplers of the same tokens (relative frequencies,
  `ngram_texts.py`), under a character 6-gram judge (`text:ngram-judge`), where all have the
  entropy of human text: a score temperature moves the model's, a softmax temperature the others'.
  Entropies are those of characters pooled over as many texts of as many tokens.
- half of the tokens given at random places, the rest filled in: by the model, in one evaluation at
  the highest noise and in a whole run of its sampler, and by the chains' exact posteriors.

Intervals: 95 %, by leaving out texts. The first 20 texts of the seed are written as they are. A
picture is drawn beside FILE.json, for light and for dark pages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import infilling
import torch
from ngram_texts import NgramSampler

from dlmkit import documents
from dlmkit.bench.subject import Subject, open_subject
from dlmkit.core.data import Data
from dlmkit.core.metric import Metric
from dlmkit.core.objective import Batch
from dlmkit.errors import DlmkitError, UsageError
from dlmkit.evaluation import acceptance
from dlmkit.evaluation.acceptance import Point
from dlmkit.evaluation.conditions import conditions
from dlmkit.evaluation.measure import Intervals, gauges, pinned
from dlmkit.exact.context_gain import Frequencies, level_scores, sigmas
from dlmkit.model import Model, Run
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import assemble_sampling
from dlmkit.report import png
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.training.memory import keep_freed
from dlmkit.types import Ids
from dlmkit_text.symbols import cutter

METRICS = (Part(use="text:ngram-judge"), Part(use="text:ngram-entropy"))
TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1)
SOFTMAX = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
ORDERS = {"bigram": 2, "trigram": 3}
COUNTED = 2_000_000
"""Tokens of training text behind the exact denoisers, at most."""
SHOWN = 20
QUICK = {"rows": 16, "count": SHOWN, "infilled": 16, "temperatures": [0.8, 1.0]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code, which is that of the error if any."""
    options = parser().parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK)
    keep_freed()
    stem = options.out.with_suffix("")
    pictures = {theme: Path(f"{stem}{end}") for theme, end in acceptance.PICTURES.items()}
    try:
        documents.check_new(options.out, *pictures.values())
        document = acceptance.ACCEPTANCE.sealed(Acceptance.of(options).document())
        documents.write_new(options.out, documents.text(document))
        for theme, path in pictures.items():
            documents.write_new(path, png(acceptance.draw(document, theme)))
    except DlmkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(acceptance.markdown(document))
    print(f"\naccepted: {'yes' if acceptance.passed(document) else 'no'}; wrote {options.out}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", metavar="MODEL", help="a run's folder, a checkpoint or a name")
    made.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="a new file")
    made.add_argument(
        "-n", "--count", type=texts, default=64, help="texts a writer and temperature"
    )
    made.add_argument("--rows", type=int, default=256, help="held-out rows a noise level")
    made.add_argument("--infilled", type=int, default=128, help="held-out rows to fill in")
    made.add_argument(
        "--temperatures",
        type=temperatures,
        default=TEMPERATURES,
        help="of the model's score, in ascending order",
    )
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    made.add_argument("--quick", action="store_true", help="little of all; its figures say nothing")
    return made


def temperatures(words: str) -> list[float]:
    """Numbers separated by commas."""
    return [float(word) for word in words.split(",")]


def texts(word: str) -> int:
    """A number of texts: at least those that are shown."""
    if int(word) < SHOWN:
        raise argparse.ArgumentTypeError(f"{word} texts are too few: {SHOWN} are shown")
    return int(word)


@dataclass(frozen=True)
class Acceptance:
    """A model with all that it is measured by."""

    options: argparse.Namespace
    subject: Subject
    model: Model
    frequencies: Frequencies
    metrics: Mapping[str, Metric]
    pinned: Mapping[str, Any]
    intervals: Intervals

    @staticmethod
    def of(options: argparse.Namespace) -> Acceptance:
        """Raises UsageError for a vocabulary that is too large for the trigram denoiser."""
        subject = open_subject(options.model, options.set)
        tokens = min(COUNTED, once(subject.data))
        frequencies = Frequencies.count(subject.data, tokens, rows=64, order=3)
        if frequencies.second is None:
            raise UsageError(
                f"{options.model}: {subject.data.tokenizer.vocab_size} tokens are too many for the "
                "exact trigram denoiser; acceptance is for vocabularies near a hundred"
            )
        found = gauges(subject.build, METRICS, subject.data)
        return Acceptance(
            options,
            subject,
            Model(None, subject.assembly, assemble_sampling(subject.assembly)),
            frequencies,
            {gauge.label: gauge.metric for gauge in found},
            {gauge.label: pinned(gauge) for gauge in found},
            Intervals(),
        )

    def document(self) -> dict[str, Any]:
        """All of it, as JSON types."""
        options, data = self.options, self.subject.data
        under = conditions(self.model, self.model.requests(1), None)
        subject = {"name": self.subject.name, "sha256": under.pop("model")}
        say("cross-entropy by noise level")
        levels = self.levels()
        curves = {"model": self.free(), **self.chains()}
        writers = {
            name: {t: self.point(drawn) for t, drawn in curve.items()}
            for name, curve in curves.items()
        }
        human = self.point(self.decoded(data.validation(options.count).ids))
        own = curves["model"].get(1.0) or self.write(self.model, SHOWN)
        return {
            "subject": subject,
            "protocol": {
                "sampling": under,
                "rows": options.rows,
                "texts": options.count,
                "infilled": options.infilled,
                "seed": options.seed,
                "data": {"use": self.model.config.data.use, "read_as": data.describe()},
                "metrics": self.pinned,
                "intervals": self.intervals.pinned(),
                "versions": documents.versions(),
            },
            "levels": levels,
            "frontier": acceptance.frontier(writers, human, self.intervals),
            "infilling": self.infilling(),
            "samples": own[:SHOWN],
        }

    def levels(self) -> list[dict[str, Any]]:
        """The model beside the exact denoisers, level by level."""
        assembly, batch = self.model.assembly, self.subject.data.validation(self.options.rows)
        parts = self.model.parts.denoise, assembly.space, assembly.schedule, batch
        return [
            acceptance.level(
                float(sigma),
                level_scores(
                    *parts, self.frequencies, sigma, index=index, seed=self.options.seed, rows=16
                ),
                batch.attend.sum(dim=1).double(),
                self.intervals,
            )
            for index, sigma in enumerate(sigmas(assembly.schedule))
        ]

    def free(self) -> dict[float, list[str]]:
        """The model's texts by score temperature."""
        drawn = {}
        for t in self.options.temperatures:
            say(f"{self.options.count} texts at score temperature {t:g}")
            part = Part(use="samplers:score-temperature", options={"temperature": t})
            moved = self.model.with_parts(guidance=[*self.model.config.guidance, part])
            drawn[t] = self.write(self.model if t == 1.0 else moved, self.options.count)
        return drawn

    def write(self, model: Model, count: int) -> list[str]:
        """``count`` texts of the seed."""
        length = model.config.length
        return self.decoded(self.run(model, unconditional(count, length), None))

    def run(self, model: Model, requests: Sequence[Request], steps: int | None) -> Ids:
        """The tokens of texts as long as the model's, in the order of their index."""
        samples = model.run(requests, Run(self.options.seed, steps, self.options.batch_size))
        return torch.tensor([sample.ids for sample in samples])

    def decoded(self, ids: Ids) -> list[str]:
        """Rows of tokens as text."""
        return [self.subject.data.tokenizer.decode(row) for row in ids.tolist()]

    def chains(self) -> dict[str, dict[float, list[str]]]:
        """Texts of the n-gram samplers by softmax temperature."""
        data, options = self.subject.data, self.options
        cut, length = cutter("tokens", data.tokenizer), self.model.config.length
        return {
            name: {t: sampler.sample(options.count, length, options.seed, t) for t in SOFTMAX}
            for name, order in ORDERS.items()
            for sampler in [NgramSampler(data.texts("train"), order, cut)]
        }

    def point(self, drawn: Sequence[str]) -> Point:
        """The numbers of texts, and what their intervals are made of."""
        return Point.of(self.metrics.values(), drawn, self.intervals)

    def infilling(self) -> dict[str, Any]:
        """Each writer's answers to the same half-given rows."""
        options, batch = self.options, self.subject.data.validation(self.options.infilled)
        given = infilling.half_given(batch, options.seed)
        filled = infilling.by_chains(batch, given, self.frequencies, options.seed)
        say(f"{options.infilled} texts to fill in")
        requests = requests_of(batch, given)
        once, whole = (self.run(self.model, requests, steps) for steps in (1, None))
        judge = self.metrics["text:ngram-judge"]
        points = {}
        for name, one in {"model": infilling.Filled(once, whole), **filled}.items():
            shares = infilling.accuracy(
                {"likeliest": one.likeliest, "drawn": one.drawn}, batch, given
            )
            points[name] = Point.of([judge], self.decoded(one.drawn), self.intervals, shares)
        human = Point.of([judge], self.decoded(batch.ids), self.intervals)
        return acceptance.infilled(points, human, self.intervals)


def once(data: Data) -> int:
    """How many tokens the training text has: what is read twice would be trusted too much."""
    return sum(len(data.tokenizer.encode(text)) + 1 for text in data.texts("train"))


def requests_of(batch: Batch, given: torch.Tensor) -> list[Request]:
    """Rows to be filled in where they are not ``given``."""
    rows = zip(batch.ids.tolist(), given.tolist(), strict=True)
    return [
        Request(i, tuple(v if known else None for v, known in zip(ids, mask, strict=True)))
        for i, (ids, mask) in enumerate(rows)
    ]


def say(words: str) -> None:
    """Talk goes to stderr, results to stdout."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
