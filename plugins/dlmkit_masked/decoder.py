"""The decoder of masked models: order, quota, draw and remasking, one step at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit.core.cache import Window
from dlmkit.core.candidates import Candidates, ranks
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.order import Order
from dlmkit.core.quota import Quota
from dlmkit.core.remask import Remask
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace, masked_share
from dlmkit.types import Index, Mask, PerPosition, Rows
from dlmkit_masked import configs
from dlmkit_masked.draw import draw


class DecoderMemory(NamedTuple):
    """What a row remembers: the log-probability that each token was drawn with, and the memories
    of its quota and remasking."""

    written: PerPosition
    quota: Any
    remask: Any


class Decoder(Sampler):
    """Uncovers masked tokens by the parts of a recipe.

    Which positions are written is decided on the prediction; then their tokens are drawn. At the
    grid's last step all that is masked is written, and with windows at the last step of each of
    their shares of the grid all that is masked in it.
    """

    accepts = "quota: {use: masked:rule, with: {rule: ...}}"

    def __init__(self, config: configs.Decoder, context: BuildContext) -> None:
        self.space: TokenSpace = context.part("space")
        self.mask = self.space.corruption.mask
        self.order: Order = context.build("order", config.order)
        self.quota: Quota = context.build("quota", config.quota)
        self.remask: Remask | None = (
            None if config.remask is None else context.build("remask", config.remask)
        )
        self.draw, self.stretch = config.draw, None
        if config.window is not None:
            self.stretch = Window(config.window, config.window_from == "row")
            if self.remask is None:  # else what was written before the window may go back
                self.window = self.stretch
        schedule = context.part("schedule")
        ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
        with torch.no_grad():
            self.least, self.most = masked_share(schedule.level(ends)).tolist()

    def init(self, x: Tensor) -> DecoderMemory:
        written = torch.zeros_like(x, dtype=torch.float32)
        remask = () if self.remask is None else self.remask.init(x)
        return DecoderMemory(written, self.quota.init(x), remask)

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: DecoderMemory
    ) -> tuple[Tensor, Prediction, DecoderMemory]:
        masked = (x == self.mask) & step.generated
        prediction = denoise(x, self._level(step, masked, state), step.previous)
        candidates = self._candidates(x, masked, prediction, step, state)
        still_open = candidates.open
        rank = ranks(self.order.scores(candidates), still_open, step.noise)
        accepted, quota = self.quota.accept(rank, candidates, state.quota)
        accepted, back, remask = self._remask(candidates, rank, accepted & still_open, state.remask)
        ends = step.last if self.stretch is None else candidates.left == 1
        accepted = torch.where(
            ends[:, None], masked if self.stretch is None else still_open, accepted
        )
        token, log_p = draw(self.space, prediction.query, accepted, step.noise, self.draw)
        x = torch.where(accepted, token, torch.where(back, self.mask, x))
        written = torch.where(accepted, log_p, state.written)
        return x, prediction, DecoderMemory(written, quota, remask)

    def ended(self, x: Tensor, generated: Mask, state: DecoderMemory) -> Rows | None:
        if self.remask is not None:
            return None
        masked: Mask = (x == self.mask) & generated
        return ~masked.any(dim=1)

    def _level(self, step: Step, masked: Mask, state: DecoderMemory) -> Level:
        wanted = step.generated.sum(dim=1).clamp(min=1)
        share = (masked.sum(dim=1) / wanted).to(step.here.sigma.dtype)
        sigma = self.quota.share(share, state.quota)
        if sigma is None:
            return step.here
        sigma = sigma.clamp(self.least, self.most)
        return Level(1.0 - sigma, sigma)

    def _candidates(
        self, x: Tensor, masked: Mask, prediction: Prediction, step: Step, state: DecoderMemory
    ) -> Candidates:
        still_open, left, steps = self._window(masked, step)
        return Candidates(
            space=self.space,
            prediction=prediction,
            ids=x,
            masked=masked,
            open=still_open,
            settled=step.generated & ~masked,
            written=state.written,
            step=step,
            left=left,
            steps=steps,
        )

    def _window(self, masked: Mask, step: Step) -> tuple[Mask, Index, Index]:
        """(positions that may be written, steps left for them, steps there are for them).

        Stretches of the window share the grid's steps evenly.
        """
        whole = torch.full_like(step.index, step.steps)
        if self.stretch is None:
            return masked, whole - step.index, whole
        number = self.stretch.numbers(step.generated)
        still_open = masked & self.stretch.now(masked, step.generated)
        now = torch.where(still_open, number, 0).amax(dim=1, keepdim=True)
        wanted = step.generated.long()
        some = torch.zeros_like(number).scatter_add(1, number.clamp(min=0), wanted) > 0
        count = some.sum(dim=1).clamp(min=1)
        done = (some.cumsum(dim=1).gather(1, now)[:, 0] - 1).clamp(min=0)
        before, after = (
            (whole * windows + count - 1).div(count, rounding_mode="floor")
            for windows in (done, done + 1)
        )
        left = (after - step.index).clamp(min=1)
        return still_open, left, torch.maximum(after - before, left)

    def _remask(
        self, candidates: Candidates, rank: Tensor, accepted: Mask, memory: Any
    ) -> tuple[Mask, Mask, Any]:
        """(positions written, positions that go back, the rule's new memory)."""
        if self.remask is None:
            return accepted, torch.zeros_like(accepted), memory
        back, memory = self.remask.back(candidates, accepted, memory)
        back = back & candidates.settled & ~candidates.step.last[:, None]
        if self.remask.replaces:
            more = rank.masked_fill(accepted, rank.shape[1])
            place = more.argsort(dim=1).argsort(dim=1)
            extra = (place < back.sum(dim=1)[:, None]) & candidates.open
            accepted = accepted | extra
        return accepted, back, memory
