"""GLUE's metrics, by scikit-learn and scipy (extra: glue)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dlmkit.errors import PluginError
from dlmkit_glue.data import Example
from dlmkit_glue.tasks import Task

Values = NDArray[np.float64]
Predictions = Mapping[str, Values]
"""What a system says of every validation row, by split."""


def require() -> None:
    """Raise PluginError unless the extra is installed."""
    try:
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise PluginError(
            f"dlmkit glue needs scikit-learn and scipy ({error}): pip install 'dlmkit[glue]'"
        ) from error


def accuracy(truth: Values, said: Values) -> float:
    """The share of rows that are right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(truth, said))


def f1(truth: Values, said: Values) -> float:
    """F1 of class 1; 0 if it is never said."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, said, zero_division=0))


def matthews(truth: Values, said: Values) -> float:
    """Matthews' correlation; 0 if only one class is said."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(truth, said))


def pearson(truth: Values, said: Values) -> float:
    """Linear correlation; not a number if either side is constant."""
    from scipy.stats import pearsonr

    return float(pearsonr(truth, said).statistic)


def spearman(truth: Values, said: Values) -> float:
    """Rank correlation; not a number if either side is constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(truth, said).statistic)


METRICS: Mapping[str, Callable[[Values, Values], float]] = {
    function.__name__: function for function in (accuracy, f1, matthews, pearson, spearman)
}


def labels(rows: Sequence[Example]) -> Values:
    """The labels of ``rows``."""
    return np.array([row.label for row in rows])


def score(task: Task, truth: Predictions, said: Predictions) -> dict[str, float | None]:
    """The task's figures, in the order of ``task.figures``; None where one is undefined."""
    values = [
        _defined(METRICS[name], truth[split], said[split])
        for split in task.splits
        for name in task.metrics
    ]
    return dict(zip(task.figures, values, strict=True))


def _defined(
    metric: Callable[[Values, Values], float], truth: Values, said: Values
) -> float | None:
    if len(truth) < 2 and metric in (pearson, spearman):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant input: the value says it
        value = metric(truth, said)
    return value if np.isfinite(value) else None
