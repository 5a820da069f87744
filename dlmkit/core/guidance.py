"""Guidance: wrappers of a denoiser that change what samplers step towards."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from dlmkit.core.denoise import Denoise


class Guidance(ABC):
    """Wraps a denoiser. Statistics and decoding keep reading the inner prediction."""

    @abstractmethod
    def wrap(self, denoise: Denoise) -> Denoise:
        """A denoiser around ``denoise``; the first guidance of a recipe is the innermost."""

    def start(self, x: Tensor) -> Tensor:
        """What sampling starts from in place of ``x``, drawn from the prior: ``x`` itself."""
        return x
