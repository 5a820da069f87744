"""Checks of data and of metrics."""

from __future__ import annotations

import json
import math
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dlmkit.core.data import Data, Stream
from dlmkit.core.metric import Metric
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.testing.compare import agree, require
from dlmkit.testing.parts import LENGTH
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

DATA, METRIC = "data", "metric"
SIZE = 6


def read(stream: Stream, step: int, *slots: int) -> Batch:
    """Some rows of a step."""
    return stream.read(step, torch.tensor(slots or tuple(range(SIZE))))


@check(DATA)
def rows_fit(subject: Subject) -> None:
    """Rows are int64 ids of the vocabulary, of the recipe's length; padding follows and is <pad>"""
    data = subject.built
    for batch in (read(data.stream(0, SIZE), 3), data.validation(SIZE)):
        require(batch.ids.shape == batch.attend.shape, "ids and attend differ in shape")
        require(batch.ids.shape[1] == LENGTH, f"rows of {batch.ids.shape[1]}, not {LENGTH}")
        require(batch.ids.dtype == torch.int64, f"the ids are {batch.ids.dtype}")
        inside = (batch.ids >= 0) & (batch.ids < data.tokenizer.vocab_size)
        require(inside.all(), "an id lies outside of the vocabulary")
        starts = batch.attend.long().diff(dim=1) > 0
        require(not starts.any() and batch.attend[:, 0].all(), "padding stands before a token")
        padded = batch.ids[~batch.attend]
        require((padded == data.tokenizer.pad_id).all(), "padding holds another id than pad_id")


@check(DATA)
def slots_are_independent(subject: Subject) -> None:
    """A row depends on its step and slot, not on which other slots this process reads"""
    whole = read(subject.built.stream(0, SIZE), 2)
    stream = subject.built.stream(0, SIZE)
    other = subject.built.stream(0, SIZE)
    first, second = read(stream, 2, 0, 2, 4), read(other, 2, 1, 3, 5)
    ids = torch.empty_like(whole.ids)
    ids[0::2], ids[1::2] = first.ids, second.ids
    agree(ids, whole.ids, "rows read by one process and by two")


@check(DATA)
def streams_repeat(subject: Subject) -> None:
    """One seed gives one stream, and another seed another order"""
    streams = [subject.built.stream(seed, SIZE) for seed in (0, 0, 1)]
    first, again, other = ([read(s, step).ids for step in range(3)] for s in streams)
    agree(again, first, "two streams of one seed")
    same = all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    require(not same, "seeds 0 and 1 give the same rows")


@check(DATA)
def steps_differ(subject: Subject) -> None:
    """Another step brings other rows"""
    stream = subject.built.stream(0, SIZE)
    batches = [read(stream, step).ids for step in range(3)]
    same = torch.equal(batches[0], batches[1]) and torch.equal(batches[1], batches[2])
    require(not same, "three steps brought the same rows")


@check(DATA)
def resumes(subject: Subject) -> None:
    """A stream restored from its state, as JSON, goes on exactly there"""
    stream = subject.built.stream(0, SIZE)
    for step in range(3):
        read(stream, step)
    try:
        state = json.loads(json.dumps(stream.state()))
    except TypeError as error:
        require(False, f"its state is not JSON: {error}")
    restored = subject.built.stream(0, SIZE)
    restored.restore(state)
    for step in range(3, 6):
        agree(
            read(restored, step).ids, read(stream, step).ids, f"rows of step {step} after a resume"
        )


@check(DATA)
def validation_is_fixed(subject: Subject) -> None:
    """Validation rows are always the same, and no more than asked for"""
    first, again = subject.built.validation(SIZE), subject.build().validation(SIZE)
    agree(first, again, "two validations")
    count = len(first.ids)
    require(0 < count <= SIZE, f"asked for {SIZE} rows it gave {count}")


@check(DATA)
def texts_survive_the_tokenizer(subject: Subject) -> None:
    """The texts of both splits encode, and decode to themselves"""
    data: Data = subject.built
    for split in ("train", "validation"):
        texts = [text for text in islice(data.texts(split), 20) if text]
        require(texts, f"the {split} split has no text")
        for text in texts[:5]:
            back = data.tokenizer.decode(data.tokenizer.encode(text))
            require(back == text, f"{text[:60]!r} came back as {back[:60]!r}")


@check(DATA)
def tokenizer_is_saved(subject: Subject) -> None:
    """Its tokenizer, saved and loaded, encodes alike"""
    data: Data = subject.built
    require(isinstance(data.tokenizer, Tokenizer), "tokenizer is no Tokenizer")
    text = next(text for text in data.texts("train") if text)
    with tempfile.TemporaryDirectory() as folder:
        data.tokenizer.save(Path(folder))
        again = Tokenizer.load(Path(folder))
    require(again.encode(text) == data.tokenizer.encode(text), "it encodes otherwise once loaded")
    require(again.vocab_size == data.tokenizer.vocab_size, "its vocabulary changes its size")


def fitted(subject: Subject) -> tuple[Metric, list[str]]:
    """A fresh metric fitted to the data beside it, and texts of that data to measure."""
    data: Data = subject.parts.part("data")
    metric: Metric = subject.build()
    metric.fit(data)
    return metric, [text for text in islice(data.texts("validation"), 40) if text][:16]


def equal(a: Any, b: Any) -> bool:
    """Whether two results hold the same numbers, to the last few digits."""
    return a.keys() == b.keys() and all(
        math.isclose(a[key], b[key], rel_tol=1e-9, abs_tol=1e-12)
        or (math.isnan(a[key]) and math.isnan(b[key]))
        for key in a
    )


@check(METRIC)
def gives_named_numbers(subject: Subject) -> None:
    """It gives numbers under names, finite for text like the data's"""
    metric, texts = fitted(subject)
    numbers = metric.measure(texts)
    require(numbers, "it gives no number")
    for name, value in numbers.items():
        require(isinstance(name, str) and name.strip(), f"{name!r} is no name")
        require(isinstance(value, int | float), f"{name} is a {type(value).__name__}")
        require(math.isfinite(value), f"{name} is {value} for the data's own text")


@check(METRIC)
def names_are_free(subject: Subject) -> None:
    """Its names are none of those that a record already has"""
    metric, texts = fitted(subject)
    taken = sorted({"kind", "step"} & set(metric.measure(texts)))
    require(not taken, f"a record already has {', '.join(taken)}")


@check(METRIC)
def stays_in_bounds(subject: Subject) -> None:
    """No number lies outside of what `bounds` says it can be, of few texts either"""
    metric, texts = fitted(subject)
    for some in (texts, texts[:1], [*texts, *texts]):
        for name, value in metric.measure(some).items():
            low, high = metric.bounds(name.removeprefix("human_"))
            fits = low <= value <= high or not math.isfinite(value)
            require(
                fits, f"{name} is {value} for {len(some)} texts, and its bounds {low} and {high}"
            )


@check(METRIC)
def measures_alike(subject: Subject) -> None:
    """The same texts give the same numbers, whatever was measured before, and stay as they were"""
    metric, texts = fitted(subject)
    before = list(texts)
    first = metric.measure(texts)
    require(texts == before, "it changed the list of texts")
    metric.measure(texts[:1] * 3)
    torch.manual_seed(2)
    require(equal(metric.measure(texts), first), "a second measurement gave other numbers")


@check(METRIC)
def bears_empty_texts(subject: Subject) -> None:
    """An empty text among others, which a model may write, is no error"""
    metric, texts = fitted(subject)
    metric.measure(["", *texts])
    metric.measure([""])
