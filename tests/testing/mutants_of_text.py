"""Seeded bugs in maskings, data, metrics, trackers, and in declarations of any kind."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import Any

import torch
from mutants import mutant as declare
from pydantic import Field, PrivateAttr, field_serializer

from dlmkit.core.metric import Metric
from dlmkit.core.objective import Batch
from dlmkit.core.tracker import Tracker
from dlmkit.noise import Noise
from dlmkit.plugin import Config
from dlmkit.testing import parts
from dlmkit_cdcd.masking import RandomMasking

mutant = partial(declare, module=__name__)


# maskings


class Mask(RandomMasking):
    def draw(self, attend, noise):
        return self.change(super().draw(attend, noise), attend, noise)


@mutant("masking", "deterministic", "no-global-randomness", "rows-independent")
class MaskRemembers(Mask):
    """Every other call gives nothing."""

    calls = 0

    def change(self, given, attend, noise):
        self.calls += 1
        return given & (self.calls % 2 == 0)


@mutant("masking", "no-global-randomness")
class MaskDraws(Mask):
    """A generator is asked and its answer thrown away."""

    def change(self, given, attend, noise):
        torch.rand(1)
        return given


@mutant("masking", "inputs-untouched")
class MaskWrites(Mask):
    """Given positions are taken out of attend in place."""

    def change(self, given, attend, noise):
        attend &= ~given
        return given


@mutant("masking", "rows-independent")
class MaskShares(Mask):
    """A row is given something only if the batch is large."""

    def change(self, given, attend, noise):
        return given & (len(given) > 2)


@mutant("masking", "gives-a-mask")
class MaskOfNumbers(Mask):
    """It gives the positions as numbers."""

    def change(self, given, attend, noise):
        return given.long()


@mutant("masking", "keeps-a-noised-position")
class GivesAll(Mask):
    """Every tenth row is given entirely."""

    def change(self, given, attend, noise):
        return torch.where((noise.uniform(9) < 0.1)[:, None], attend, given)


@mutant("masking", "padding-is-not-given")
class GivesPadding(Mask):
    """Padding counts as given."""

    def change(self, given, attend, noise):
        return given | ~attend


@mutant("masking", "depends-on-its-noise-alone")
class MaskByContent(Mask):
    """The mask is drawn by the row's place in the batch, kept in the rule's own noise."""

    def draw(self, attend, noise):
        place = (noise.key == noise.key[:1]).long().cumsum(dim=0) - 1
        place = torch.where(noise.key == noise.key[:1], place.clamp(min=0), 0)
        return super().draw(attend, Noise(noise.key + place * (place < len(attend))))

    def change(self, given, attend, noise):
        return given


# data


class WordsBut(parts.Words):
    stream_class: type[parts.WordStream] = parts.WordStream

    def stream(self, seed, batch_size):
        return self.stream_class(seed, self.length)


class Shorter(parts.WordStream):
    def read(self, step, slots):
        batch = super().read(step, slots)
        attend = batch.attend.clone()
        attend[:, :1] = False
        return Batch(batch.ids, attend)


@mutant("data", "rows-fit")
class PadsLeft(WordsBut):
    """Padding stands on the left."""

    stream_class = Shorter


class ByCall(parts.WordStream):
    def read(self, step, slots):
        return super().read(step, torch.arange(len(slots)))


@mutant("data", "slots-are-independent")
class RowsByPlace(WordsBut):
    """Rows are numbered by this process, not by slot of the global batch."""

    stream_class = ByCall


class OneOrder(parts.WordStream):
    def __init__(self, seed, length):
        super().__init__(0, length)


@mutant("data", "streams-repeat")
class IgnoresTheSeed(WordsBut):
    """Every seed gives the same order."""

    stream_class = OneOrder


class OneBatch(parts.WordStream):
    def read(self, step, slots):
        return super().read(0, slots)


@mutant("data", "steps-differ")
class AlwaysTheFirst(WordsBut):
    """Every step brings the first step's rows."""

    stream_class = OneBatch


class Moving(parts.WordStream):
    position = 0

    def read(self, step, slots):
        self.position += 1
        return super().read(self.position, slots)


@mutant("data", "resumes")
class ForgetsItsPlace(WordsBut):
    """The stream moves on by itself and its state does not say how far."""

    stream_class = Moving


@mutant("data", "validation-is-fixed")
class ValidationMoves(parts.Words):
    """Every validation is of other rows."""

    def validation(self, count):
        noise = torch.tensor([random.SystemRandom().randrange(2**31)])
        return parts.WordStream(int(noise), self.length).read(0, torch.arange(count))


@mutant("data", "texts-survive-the-tokenizer")
class TextsAsTheyCame(parts.Words):
    """Texts are given before they are made what the tokenizer sees."""

    def texts(self, split):
        return (f"{text}  " for text in super().texts(split))


class Doubled(parts.Tokenizer):
    def encode(self, text):
        return super().encode(text)[::-1]

    def decode(self, ids):
        return super().decode(ids[::-1])


@mutant("data", "tokenizer-is-saved")
class TokenizerInCode(parts.Words):
    """What the tokenizer does is in code, which no tokenizer.json holds."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.tokenizer = Doubled(self.tokenizer.backend)


# metrics


class Words(Metric):
    """The words a text has on average."""

    def __init__(self, config, context):
        pass

    def fit(self, data):
        pass

    def measure(self, texts):
        words = sum(len(text.split()) for text in texts)
        return self.change({"words": words / max(len(texts), 1)}, texts)

    def change(self, found, texts):
        return found


@mutant("metric", "gives-named-numbers")
class GivesText(Words):
    """A value is text."""

    def change(self, found, texts):
        return {"words": float("inf")}


@mutant("metric", "names-are-free")
class TakesStep(Words):
    """It names a number step."""

    def change(self, found, texts):
        return {**found, "step": 1.0}


@mutant("metric", "stays-in-bounds")
class BelievesInShares(Words):
    """It takes a mean for a share."""

    def bounds(self, name):
        return 0.0, 1.0


@mutant("metric", "measures-alike")
class AddsUp(Words):
    """What was measured before is counted again."""

    total = 0

    def change(self, found, texts):
        self.total += len(texts) == 3
        return {"words": found["words"] + self.total}


@mutant("metric", "bears-empty-texts")
class DividesByWords(Words):
    """It divides by the number of words of each text."""

    def change(self, found, texts):
        return {"length": max(len(text) / len(text.split()) for text in texts)}


# trackers


class Quiet(Tracker):
    """Writes a line a record."""

    def __init__(self, config, context):
        pass

    def open(self, folder, recipe):
        self.stream = (folder / "log.txt").open("a")

    def log(self, record):
        self.stream.write(f"{record['kind']} {record['step']}\n")

    def close(self):
        self.stream.close()


@mutant(
    "tracker",
    "takes-every-record",
    "leaves-the-run-alone",
    "records-are-left-alone",
    "resumes-a-run",
)
class NeedsALoss(Quiet):
    """It asks every record for its loss."""

    def log(self, record):
        super().log(record)
        self.stream.write(str(record["loss"]))


@mutant("tracker", "resumes-a-run")
class OnlyOnce(Quiet):
    """It refuses a folder that it has written to before."""

    def open(self, folder, recipe):
        self.stream = (folder / "log.txt").open("x")


@mutant("tracker", "closes-without-records")
class OpensLate(Quiet):
    """It opens its file at the first record, and closes it whatever came."""

    def open(self, folder, recipe):
        self.folder = folder

    def log(self, record):
        if not hasattr(self, "stream"):
            super().open(self.folder, {})
        super().log(record)


@mutant("tracker", "records-are-left-alone", "leaves-the-run-alone", "resumes-a-run")
class PopsTheKind(Quiet):
    """It takes the kind out of the record."""

    def log(self, record):
        super().log(record)
        record.pop("kind")


@mutant(
    "tracker",
    "leaves-the-run-alone",
    "records-are-left-alone",
    "resumes-a-run",
    "takes-every-record",
)
class WritesTheRecipe(Quiet):
    """It writes a file that the run has written."""

    def open(self, folder, recipe):
        super().open(folder, recipe)
        (folder / "recipe.yaml").write_text("mine")


# declarations


class Bare(Config):
    """Options without a description."""

    size: int = 3


class Needs(Config):
    """An option without default or example."""

    size: int = Field(description="how large")


class Loses(Config):
    """An option that is written otherwise than it is read."""

    size: float = Field(1.0, description="how large")

    @field_serializer("size")
    def _write(self, size: float) -> float:
        return size + 1.0


class Closes(Config):
    """Options that hold on to a lock once they are made."""

    size: int = Field(3, description="how large")
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


@mutant("masking", "options-are-described", config=Bare)
class Undescribed(RandomMasking):
    """An option says nothing of itself."""


@mutant("masking", "example-is-valid", config=Needs)
class NoExample(RandomMasking):
    """An option has neither a default nor an example."""


@mutant("masking", "options-round-trip", config=Loses)
class WritesOtherwise(RandomMasking):
    """Its options come back from a recipe as others."""


@mutant("masking", "options-are-picklable", "options-round-trip", config=Closes)
class HoldsALock(RandomMasking):
    """Its options cannot be sent to a worker."""


@mutant(
    "masking",
    "target-imports",
    "builds",
    target="nowhere_at_all:Masking",
)
class NotThere(RandomMasking):
    """Its target is in a module that does not exist."""


@mutant(
    "masking",
    "builds",
)
class NoMasking:
    """It builds something else."""

    def __init__(self, config, context):
        self.draw = RandomMasking(config, context).draw


@mutant("masking", "expected-failures-exist", expected_failures={"gives-a-maks": "known"})
class ExpectsNothing(RandomMasking):
    """An expected failure names no check."""


@mutant("masking", "deterministic", expected_failures={"deterministic": "it is said to be"})
class PassesAllTheSame(RandomMasking):
    """An expected failure passes."""
