"""Labels as text: a word at the end of the row, generated from noise by the sampling loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlmkit.core.masking import Masking
from dlmkit.core.objective import Objective
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError
from dlmkit.noise import Noise
from dlmkit.recipe.assemble import Assembly
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import stream
from dlmkit.types import Mask
from dlmkit_glue.encode import Encoder, by_length
from dlmkit_glue.tasks import Task


@dataclass(frozen=True)
class Verbaliser:
    """The words of a task as ids, padded to one length. Class i is spelled ``spelled[i]``."""

    words: tuple[str, ...]
    spelled: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(task: Task, tokenizer: Tokenizer) -> Verbaliser:
        """Raises DataError where the tokenizer cannot spell the words or tell them apart."""
        encoder = Encoder(tokenizer, 1 << 20)
        ids = [encoder.spell(word) for word in task.words]
        width = max(map(len, ids))
        spelled = tuple((*word, *[tokenizer.pad_id] * (width - len(word))) for word in ids)
        if not all(ids) or encoder.tally.unknown or len(set(spelled)) < len(spelled):
            raise DataError(
                f"the model's tokenizer cannot spell the labels of {task.name} "
                f"({', '.join(task.words)}): take --way head"
            )
        return Verbaliser(task.words, spelled)

    @property
    def width(self) -> int:
        """Tokens of a label."""
        return len(self.spelled[0])

    def nearest(self, ids: Sequence[int]) -> tuple[int, bool]:
        """The class whose word shares most tokens with ``ids``, and whether it is that word."""
        shared = [sum(map(int.__eq__, ids, word)) for word in self.spelled]
        best = max(range(len(shared)), key=shared.__getitem__)
        return best, shared[best] == self.width


class LastTokens(Masking):
    """Every token is given but the last ``count`` of the row."""

    def __init__(self, count: int) -> None:
        self.count = count

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        place = torch.arange(attend.shape[1], device=attend.device)
        return attend & (place < attend.sum(dim=1, keepdim=True) - self.count)


def objective(assembly: Assembly, count: int) -> Objective:
    """The recipe's own objective over the same space, network and schedule, for last tokens."""
    parts = {**assembly.context.parts, "masking": LastTokens(count)}
    context = replace(assembly.context, parts=parts)
    built: Objective = assembly.registry.build("objective", assembly.config.objective, context)
    return built.to(context.device)


@dataclass(frozen=True)
class Said:
    """What was generated: labels (float64), and means over rows of what it took.

    ``spelled`` is the share of rows that are exactly a label's word (others count as the nearest
    one), ``halted`` the share that an exit rule ended.
    """

    labels: Tensor
    spelled: float
    halted: float
    steps: float
    evaluations: float


def generate(
    parts: SamplingParts,
    rows: Sequence[Sequence[int]],
    verbaliser: Verbaliser,
    seed: int,
    steps: int,
    size: int = 64,
) -> Said:
    """Fill in the label of every row; row i depends on (``seed``, i) alone."""
    samples = []
    for chosen in by_length(rows, 8 * size):
        requests = [Request(i, (*rows[i], *[None] * verbaliser.width)) for i in chosen]
        length = max(len(request.tokens) for request in requests)
        turns = stream(parts, requests, seed=seed, steps=steps, batch_size=size, length=length)
        samples += [sample for turn in turns for sample in turn.samples]
    samples.sort(key=lambda sample: sample.row)
    labels = [verbaliser.nearest(sample.ids[-verbaliser.width :]) for sample in samples]
    count = len(samples)
    return Said(
        torch.tensor([float(label) for label, _ in labels], dtype=torch.float64),
        sum(exact for _, exact in labels) / count,
        sum(sample.halted is not None for sample in samples) / count,
        sum(sample.steps for sample in samples) / count,
        sum(sample.evaluations for sample in samples) / count,
    )
