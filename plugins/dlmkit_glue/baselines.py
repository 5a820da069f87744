"""What needs no network: TF-IDF with a linear model, and the most frequent answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlmkit_glue.data import Example, TaskRows
from dlmkit_glue.metrics import Predictions, labels
from dlmkit_glue.tasks import Task


def tfidf(task: Task, rows: TaskRows, train: Sequence[Example], seed: int) -> Predictions:
    """Words and pairs of words by TF-IDF; logistic regression, or ridge regression of numbers.

    The texts of a pair are joined. Where nothing can be learned (one label, or no word occurs
    twice), this is :func:`majority`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    truth = labels(train)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    try:
        features = vectoriser.fit_transform(_joined(train))
    except ValueError:  # what it says when no term is left
        return majority(task, rows, train, seed)
    if len(set(truth)) == 1:
        return majority(task, rows, train, seed)
    linear = Ridge() if task.regression else LogisticRegression(C=4.0, max_iter=2000)
    linear.fit(features, truth)
    return {
        split: linear.predict(vectoriser.transform(_joined(part)))
        for split, part in rows.validation.items()
    }


def majority(task: Task, rows: TaskRows, train: Sequence[Example], seed: int) -> Predictions:
    """The most frequent label of ``train`` (the mean of numbers), whatever the text."""
    truth = labels(train)
    classes, counts = np.unique(truth, return_counts=True)
    answer = truth.mean() if task.regression else classes[counts.argmax()]
    return {split: np.full(len(part), answer) for split, part in rows.validation.items()}


def _joined(rows: Sequence[Example]) -> list[str]:
    return [" ".join(row.texts) for row in rows]
