"""The metric `mauve`: divergence frontier between texts and held-out text (2102.01454)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric, Numbers
from dlmkit.errors import DataError, PluginError
from dlmkit_metrics import pretrained
from dlmkit_metrics.configs import Mauve
from dlmkit_text.cut import held_out, stretches

PACKAGES = ("mauve-text", "faiss-cpu", "scikit-learn")
READ = 10_000_000


class MauveMetric(Metric):
    """MAUVE of mean-pooled encoder features: 1 if both sides look alike, near 0 if not.

    Its authors advise some 5,000 texts a side; fewer raise the value. Compare values of equal
    numbers of texts, and read ``human_mauve`` first: it is what real text of this amount gets.
    """

    def __init__(self, config: Mauve, context: BuildContext) -> None:
        self.config = config
        self.compute = _compute_mauve()

    @cached_property
    def encoder(self) -> pretrained.Reader:
        """Loaded when it is first needed. Raises DataError if it cannot be had."""
        return pretrained.load(self.config.encoder, "encoder", "AutoModel", self.config)

    def fit(self, data: Data) -> None:
        """Load the encoder. Raises DataError without it."""
        self.data = data
        self.encoder  # noqa: B018  (loads it before any text is drawn)

    def pinned(self) -> Mapping[str, Any]:
        """The encoder's hash or commit, and the versions of what computes the frontier."""
        versions = {package: metadata.version(package) for package in PACKAGES}
        return {"encoder": self.encoder.identity, "versions": versions}

    def measure(self, texts: Sequence[str]) -> Numbers:
        """``mauve`` against as much validation text, and ``human_mauve`` of as much training text,
        from all over it: its first documents alone are of few matters."""
        reference = self._reference(texts)
        human = self._features(stretches(_training(self.data), texts))
        return {
            "mauve": self._between(self._features(texts), reference),
            "human_mauve": self._between(human, reference),
        }

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`measure`, without intervals: leaving out a text moves clusters as a whole, so
        what it changes says nothing of how uncertain the number is."""
        return Measured(self.measure(texts), None)

    def alone(self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None) -> Measured:
        mauve = self._between(self._features(texts), self._reference(texts))
        return Measured({"mauve": mauve}, None)

    def _reference(self, texts: Sequence[str]) -> Tensor:
        if len(texts) < 4:
            raise DataError(
                f"mauve: {len(texts)} texts are too few to be clustered; give 4 or more"
            )
        return self._features(held_out(self.data, texts))

    def _features(self, texts: Sequence[str]) -> Tensor:
        return self.encoder.vectors(texts, self.config.context, self.config.batch_size)

    def _between(self, features: Tensor, reference: Tensor) -> float:
        buckets = self.config.buckets or max(2, len(features) // 10)
        computed = self.compute(
            p_features=reference.numpy(),
            q_features=features.numpy(),
            num_buckets=buckets,
            mauve_scaling_factor=self.config.scale,
            seed=self.config.seed,
            verbose=False,
        )
        return float(computed.mauve)


def _training(data: Data) -> Iterator[str]:
    """Training documents, of a longer text the first ``READ`` characters."""
    characters = 0
    for document in data.texts("train"):
        if characters >= READ:
            return
        characters += len(document)
        yield document
    if not characters:
        raise DataError("mauve: there is no training text to compare held-out text with")


def _compute_mauve() -> Callable[..., Any]:
    try:
        from mauve import compute_mauve
    except ImportError as error:
        raise PluginError(
            f"the metric mauve needs the package mauve-text, which is GPL-3 and not installed "
            f"with dlmkit ({error}): pip install 'dlmkit[mauve]'"
        ) from error
    compute: Callable[..., Any] = compute_mauve
    return compute
