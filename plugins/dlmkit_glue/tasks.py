"""The nine tasks of GLUE (1804.07461): columns, labels, metrics and splits. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlmkit.errors import UsageError
from dlmkit.registry.declarations import did_you_mean


@dataclass(frozen=True)
class Task:
    """One task, in the column names of ``nyu-mll/glue``.

    ``words`` spell the labels in order, for label generation (our choice; no two of one task
    begin alike). ``metrics`` are keys of :data:`dlmkit_glue.metrics.METRICS`. ``regression``
    labels are real numbers from 0 to 5, and the words stand for the whole ones.
    """

    name: str
    columns: tuple[str, ...]
    words: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    splits: tuple[str, ...] = ("validation",)
    regression: bool = False

    @property
    def classes(self) -> int:
        """How many numbers a head puts out."""
        return 1 if self.regression else len(self.words)

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what is reported: the metrics, of each split if there are several."""
        if len(self.splits) == 1:
            return self.metrics
        return tuple(f"{metric}_{self.suffix(s)}" for s in self.splits for metric in self.metrics)

    def suffix(self, split: str) -> str:
        """``matched`` of ``validation_matched``."""
        return split.removeprefix("validation").lstrip("_")


_TWO = ("sentence1", "sentence2")
_MNLI = ("validation_matched", "validation_mismatched")
_BOTH = ("accuracy", "f1")

_TASKS = (
    Task("cola", ("sentence",), ("wrong", "good"), ("matthews", "accuracy")),
    Task("sst2", ("sentence",), ("bad", "good")),
    Task("mrpc", _TWO, ("no", "yes"), _BOTH),
    Task("qqp", ("question1", "question2"), ("no", "yes"), _BOTH),
    Task(
        "stsb",
        _TWO,
        ("none", "little", "some", "half", "most", "all"),
        ("pearson", "spearman"),
        regression=True,
    ),
    Task("mnli", ("premise", "hypothesis"), ("yes", "maybe", "no"), splits=_MNLI),
    Task("qnli", ("question", "sentence"), ("yes", "no")),
    Task("rte", _TWO, ("yes", "no")),
    Task("wnli", _TWO, ("no", "yes")),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _TASKS}


def task(name: str) -> Task:
    """The task ``name``. Raises UsageError if GLUE has none of that name."""
    if name not in TASKS:
        raise UsageError(
            f"{name!r} is no task of GLUE: expected {', '.join(TASKS)}{did_you_mean(name, TASKS)}"
        )
    return TASKS[name]
