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
from dlmkit_glue.data import Example, TaskRows, subsample
from dlmkit_glue.encode import Encoder, Epochs
from dlmkit_glue.metrics import Predictions
from dlmkit_glue.source import StartingModel
from dlmkit_glue.tasks import Task

PRETRAINED, RANDOM, TFIDF, MAJORITY = "pretrained", "random-init", "tfidf", "majority"
PACKAGES = ("dlmkit", "torch", "numpy", "scikit-learn", "scipy", "tokenizers", "transformers")
SHARE = 0.1
"""Of the optimiser steps that warm up."""


@dataclass(frozen=True)
class TuningSettings:
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


def run(
    task: Task, rows: TaskRows, source: StartingModel, settings: TuningSettings, say: Say
) -> dict[str, Any]:
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
            pretrained = system == PRETRAINED
            assembly, before = source.build(pretrained, seed), source.steps if pretrained else 0
            done = _Tuning(task, settings, encoded, chosen, assembly, before, seed).run()
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
            "precision": source.config.train.precision,
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
    def of(task: Task, rows: TaskRows, source: StartingModel, settings: TuningSettings) -> _Encoded:
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


@dataclass(frozen=True)
class _Tuning:
    """One system with one seed: a model, of which ``before`` steps are behind it, and the training
    rows ``chosen`` for it."""

    task: Task
    settings: TuningSettings
    encoded: _Encoded
    chosen: Sequence[Example]
    assembly: Assembly
    before: int
    seed: int

    def run(self) -> Finetuned:
        verbaliser = self.encoded.verbaliser
        return self.by_head() if verbaliser is None else self.by_infill(verbaliser)

    def by_head(self) -> Finetuned:
        labels = [row.label for row in self.chosen]
        objective = head.HeadObjective(
            self.assembly.objective,
            self.task,
            self.settings.noise,
            torch.tensor(labels, device=self.assembly.context.device),
        )
        pad = self.encoded.pad
        self.train(objective, self.encoded.train(self.chosen), numbered=True)
        return Finetuned(
            {
                split: head.predict(objective, rows, pad, self.seed).numpy()
                for split, rows in self.encoded.validation.items()
            },
            {},
        )

    def by_infill(self, verbaliser: infill.Verbaliser) -> Finetuned:
        rows = [
            [*ids, *verbaliser.spelled[round(row.label)]]
            for ids, row in zip(self.encoded.train(self.chosen), self.chosen, strict=True)
        ]
        self.train(infill.objective(self.assembly, verbaliser.width), rows, numbered=False)
        parts, steps = assemble_sampling(self.assembly), self.settings.steps
        answers = {
            split: infill.generate(parts, ids, verbaliser, self.seed, steps)
            for split, ids in self.encoded.validation.items()
        }
        took = [
            {
                "spelled": answer.spelled,
                "halted": answer.halted,
                "steps": answer.steps,
                "evaluations": answer.evaluations,
            }
            for answer in answers.values()
        ]
        said = {split: answer.labels.numpy() for split, answer in answers.items()}
        return Finetuned(said, _means(took))

    def train(self, objective: Objective, rows: list[list[int]], numbered: bool) -> None:
        """Fine-tune everything by the training loop. Nothing is written."""
        settings, seed = self.settings, self.seed
        stream = Epochs(rows, settings.batch_size, self.encoded.pad, seed, numbered=numbered)
        steps = stream.steps(settings.epochs)
        config = TrainConfig(
            steps=steps,
            batch_size=stream.size,
            learning_rate=settings.learning_rate,
            warmup_steps=max(1, round(SHARE * steps)),
            ema=0.0,
            precision=self.assembly.config.train.precision,
        )
        world = Single(self.assembly.context.device)
        learner = Learner.begin(objective.train(), config, world, self.before)
        for _ in train(learner, stream, config, seed, world):
            pass
        objective.eval()


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(v[key] for v in values) / len(values) for key in values[0]}


def _exit(source: StartingModel) -> Any:
    rule = source.config.exit
    return None if rule is None else rule.model_dump(mode="json", by_alias=True)


def _words(scores: Mapping[str, float | None]) -> str:
    return ", ".join(f"{k} {'-' if v is None else f'{v:.3f}'}" for k, v in scores.items())


def check(settings: TuningSettings, source: StartingModel) -> None:
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
