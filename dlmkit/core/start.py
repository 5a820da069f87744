"""Weights that start from the training text, where others start from random numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from dlmkit.core.data import Data


class TextStart(nn.Module, ABC):
    """A part of a model, such as its space, whose first weights come from the training text.

    They are weights like any others afterwards: what loads, resumes or exports a model reads them
    from its files, and needs no text.
    """

    @abstractmethod
    def start_from(self, data: Data) -> None:
        """Give weights and buffers their first values, from the text and what they hold already.

        Called once, on the CPU, when a model is built that will be trained from its beginning; of
        many processes in the first, whose values the others then get. Equal text gives equal
        values, and no global generator is moved. Raises DataError if the text cannot give them.
        """


def text_starts(model: nn.Module) -> list[TextStart]:
    """The parts of ``model`` that start from the text, each before what it is a part of."""
    return [module for module in reversed([*model.modules()]) if isinstance(module, TextStart)]
