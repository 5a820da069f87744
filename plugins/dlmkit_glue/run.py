"""One task: every system with every seed, and the record of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from dlmkit import devices
from dlmkit.core.objective import Objective
from dlmkit.errors import UsageError
from dlmkit.recipe.assemble import Assembly, assemble_sampling
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.loop import Learner, train
from dlmkit.training.parallel import Single
from dlmkit_glue import baselines, head, infill, metrics
from dlmkit_glue.compare import compared, summary
from dlmkit_glue.data import Example, Rows, subsample
from dlmkit_glue.encode import Encoder, Epochs
from dlmkit_glue.metrics import Predictions
from dlmkit_glue.source import Source
from dlmkit_glue.tasks import Task

PRETRAINED, RANDOM, TFIDF, MAJORITY = "pretrained", "random-init", "tfidf", "majority"
PACKAGES = ("dlmkit", "torch", "numpy", "scikit-learn", "scipy", "tokenizers", "transformers")
SHARE = 0.1
"""Of the optimiser steps that warm up."""


@dataclass(frozen=True)
class Settings:
    """How systems are fine-tuned; both kinds of start alike.

    ``way`` is head or infill. ``noise`` (sigma / alpha; 0: the text is given) is the head's,
    ``steps`` the grid of label generation.
    """

    way: str
    seeds: int
    max_train: int | None
    epochs: float
    batch_size: int
    learning_rate: float
    noise: float
    steps: int


@dataclass(frozen=True)
class Finetuned:
    """What one system with one seed says, and what label generation took, by name."""

    said: Predictions
    generation: Mapping[str, float]


Say = Callable[[str], None]


def run(task: Task, rows: Rows, source: Source, settings: Settings, say: Say) -> dict[str, Any]:
    """The record: every system's figures, the difference that pretraining makes, and how."""
    truth = {split: metrics.labels(part) for split, part in rows.validation.items()}
    said: dict[str, list[Predictions]] = {s: [] for s in (PRETRAINED, RANDOM, TFIDF, MAJORITY)}
    generation: dict[str, list[Mapping[str, float]]] = {PRETRAINED: [], RANDOM: []}
    encoded = _Encoded.of(task, rows, source, settings)
    for seed in range(settings.seeds):
        chosen = subsample(rows.train, settings.max_train, seed)
        said[TFIDF].append(baselines.tfidf(task, rows, chosen, seed))
        said[MAJORITY].append(baselines.majority(task, rows, chosen, seed))
        for system in (PRETRAINED, RANDOM):
            done = _finetune(task, chosen, source, settings, encoded, system == PRETRAINED, seed)
            said[system].append(done.said)
            generation[system].append(done.generation)
            say(f"seed {seed}, {system}: {_words(metrics.score(task, truth, done.said))}")
    table = []
    for system, predictions in said.items():
        row = {"system": system, **summary(task, truth, predictions)}
        if settings.way == "infill" and system in generation:
            row["generation"] = _means(generation[system])
        table.append(row)
    return {
        "task": task.name,
        "way": settings.way,
        "rows": table,
        "difference": {
            "of": f"{PRETRAINED} - {RANDOM}",
            **compared(task, truth, said[PRETRAINED], said[RANDOM]),
        },
        "model": {
            "name": source.name,
            "sha256": source.digest,
            "length": source.config.length,
            "exit": _exit(source),
        },
        "data": {
            "source": rows.source,
            "train": len(rows.train),
            "train_used": min(settings.max_train or len(rows.train), len(rows.train)),
            **{split: len(part) for split, part in rows.validation.items()},
            "scores": "validation splits; the labels of the test split are hidden",
        },
        "text": asdict(encoded.encoder.tally),
        "settings": asdict(settings),
        "software": {
            "python": platform.python_version(),
            "device": str(source.device),
            **{package: metadata.version(package) for package in PACKAGES},
        },
    }


@dataclass(frozen=True)
class _Encoded:
    """All texts as ids, cut to leave room for a label where one is generated."""

    encoder: Encoder
    ids: Mapping[int, list[int]]
    validation: Mapping[str, list[list[int]]]
    verbaliser: infill.Verbaliser | None
    pad: int

    @staticmethod
    def of(task: Task, rows: Rows, source: Source, settings: Settings) -> _Encoded:
        """Training rows are encoded once, those that some seed draws."""
        tokenizer = source.tokenizer
        verbaliser = infill.Verbaliser.of(task, tokenizer) if settings.way == "infill" else None
        room = source.config.length - (verbaliser.width if verbaliser else 0)
        encoder = Encoder(tokenizer, room)
        drawn = {
            id(row): row
            for seed in range(settings.seeds)
            for row in subsample(rows.train, settings.max_train, seed)
        }
        ids = {key: encoder(row) for key, row in drawn.items()}
        validation = {split: [*map(encoder, part)] for split, part in rows.validation.items()}
        return _Encoded(encoder, ids, validation, verbaliser, tokenizer.pad_id)

    def train(self, chosen: Sequence[Example]) -> list[list[int]]:
        return [self.ids[id(row)] for row in chosen]


def _finetune(
    task: Task,
    chosen: Sequence[Example],
    source: Source,
    settings: Settings,
    encoded: _Encoded,
    pretrained: bool,
    seed: int,
) -> Finetuned:
    assembly = source.build(pretrained, seed)
    way = _by_infill if encoded.verbaliser else _by_head
    before = source.steps if pretrained else 0
    return way(task, chosen, assembly, settings, encoded, seed, before)


def _by_head(
    task: Task,
    chosen: Sequence[Example],
    assembly: Assembly,
    settings: Settings,
    encoded: _Encoded,
    seed: int,
    before: int,
) -> Finetuned:
    labels = torch.tensor([row.label for row in chosen], device=assembly.context.device)
    objective = head.HeadObjective(assembly.objective, task, settings.noise, labels)
    stream = Epochs(encoded.train(chosen), settings.batch_size, encoded.pad, seed, numbered=True)
    _train(objective, stream, settings, seed, assembly, before)
    return Finetuned(
        {
            split: head.predict(objective, rows, encoded.pad, seed).numpy()
            for split, rows in encoded.validation.items()
        },
        {},
    )


def _by_infill(
    task: Task,
    chosen: Sequence[Example],
    assembly: Assembly,
    settings: Settings,
    encoded: _Encoded,
    seed: int,
    before: int,
) -> Finetuned:
    verbaliser = encoded.verbaliser
    assert verbaliser is not None
    rows = [
        [*ids, *verbaliser.spelled[round(row.label)]]
        for ids, row in zip(encoded.train(chosen), chosen, strict=True)
    ]
    objective = infill.objective(assembly, verbaliser.width)
    stream = Epochs(rows, settings.batch_size, encoded.pad, seed, numbered=False)
    _train(objective, stream, settings, seed, assembly, before)
    parts = assemble_sampling(assembly)
    answers = {
        split: infill.generate(parts, ids, verbaliser, seed, settings.steps)
        for split, ids in encoded.validation.items()
    }
    took = [
        {
            "spelled": said.spelled,
            "halted": said.halted,
            "steps": said.steps,
            "evaluations": said.evaluations,
        }
        for said in answers.values()
    ]
    return Finetuned({split: said.labels.numpy() for split, said in answers.items()}, _means(took))


def _train(
    objective: Objective,
    stream: Epochs,
    settings: Settings,
    seed: int,
    assembly: Assembly,
    before: int,
) -> None:
    """Fine-tune everything, which has ``before`` steps behind it, by the training loop. Nothing
    is written."""
    steps = stream.steps(settings.epochs)
    config = TrainConfig(
        steps=steps,
        batch_size=stream.size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, round(SHARE * steps)),
        ema=0.0,
    )
    world = Single(assembly.context.device)
    learner = Learner.begin(objective.train(), config, world, before)
    for _ in train(learner, stream, config, seed, world):
        pass
    objective.eval()


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(v[key] for v in values) / len(values) for key in values[0]}


def _exit(source: Source) -> Any:
    rule = source.config.exit
    return None if rule is None else rule.model_dump(mode="json", by_alias=True)


def _words(scores: Mapping[str, float | None]) -> str:
    return ", ".join(f"{k} {'-' if v is None else f'{v:.3f}'}" for k, v in scores.items())


def check(settings: Settings, source: Source) -> None:
    """Raise UsageError for a noise level that the model's schedule does not reach."""
    schedule = source.build(False, 0).schedule
    times = torch.tensor([schedule.t_min, schedule.t_max], device=devices.of(schedule))
    ends = schedule.level(times)
    low, high = ends.ratio.tolist()
    if settings.way == "head" and settings.noise and not low <= settings.noise <= high:
        raise UsageError(
            f"--noise {settings.noise:g}: this model's noise levels lie between {low:.4g} and "
            f"{high:.4g}; 0 reads the text as it is"
        )
