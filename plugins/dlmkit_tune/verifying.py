"""Texts of the decoder itself, drafted by slots: speculative sampling with one network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit.core.cache import Window
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.tokens import TokenSpace, categorical
from dlmkit.types import Ids, Index, Mask, Rows
from dlmkit_masked.draw import likely
from dlmkit_tune import configs
from dlmkit_tune.drafter import Drafter
from dlmkit_tune.drafting import Drafts

DRAFT, ACCEPT, TOKEN = range(3)


class Verifying(Sampler):
    """Writes drafts as far as the decoder accepts them, and a token of its own behind them.

    A token x drafted from q is accepted with the chance min(1, p(x) / q(x)), p what the decoder
    says of its place; in place of the first that is not, one is drawn from max(p - q, 0),
    normalised, and behind drafts that all are, one from p. So texts have the decoder's own
    distribution, whatever q (2211.17192, theorem 1; 2302.01318). One pass of K + 1 tokens and of
    the slots behind each of them (quadratic decoding, 2507.11851) verifies and drafts again: it
    writes 1 to K + 1 tokens.
    """

    window = Window(1, aligned=False)  # a step writes a token at least
    gaps = False

    def __init__(self, config: configs.Verifying, context: BuildContext) -> None:
        self.space: TokenSpace = context.part("space")
        self.network: Drafter = context.part("network")
        self.mask, self.draw = self.space.corruption.mask, config.draw

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        before: Drafts = step.previous
        row = torch.arange(len(x), device=x.device)
        slots, size = before.slots.shape[2], before.tokens.shape[2]
        place = torch.arange(slots + 1, device=x.device)
        masked = (x == self.mask) & step.generated
        first = torch.where(masked.any(dim=1), masked.int().argmax(dim=1), x.shape[1])
        ahead = torch.arange(x.shape[1], device=x.device) - first[:, None]
        # of the blocks that the last pass drafted, the one that began at the last token
        known = before.slots[row, (first - 1 - before.end + slots).clamp(0, slots)]
        last = x.gather(1, (first - 1).clamp(min=0)[:, None])[:, 0]
        u = step.noise.uniform(DRAFT, (slots, size), torch.float64)
        q, draft = self._drafted(known, last, u)
        tried = masked & (ahead < slots) & (first > 0)[:, None]
        count = tried.sum(dim=1)
        tried_x = torch.where(tried, draft.gather(1, ahead.clamp(0, slots - 1)), x)
        prediction = denoise(tried_x, step.here, step.previous)
        after: Drafts = prediction.feedback
        said = (first - after.end + slots)[:, None] + place
        p = self._log_p(after.tokens[row[:, None], said.clamp(0, slots)])
        chance = (p[:, :-1] - q).gather(-1, draft[..., None])[..., 0]
        u = step.noise.uniform(ACCEPT, (slots,), torch.float64)
        agreed = (u.log() < chance) & (place[:-1] < count[:, None])
        accepted = agreed.long().cumprod(dim=1).sum(dim=1)
        rest = p[row, accepted].exp()
        refused = (accepted < count)[:, None]
        rest = rest - torch.where(refused, q[row, accepted.clamp(max=slots - 1)].exp(), 0.0)
        noise = step.noise.uniform(TOKEN, (size,), torch.float64)
        token = categorical(rest.clamp(min=0.0).log(), noise)
        written = torch.where(tried & (ahead < accepted[:, None]), tried_x, x)
        written = torch.where(masked & (ahead == accepted[:, None]), token[:, None], written)
        return written, prediction, state

    def _drafted(self, known: Tensor, last: Index, u: Tensor) -> tuple[Tensor, Ids]:
        """What a block is drawn from, (B, K, V), and drawn, (B, K), behind the tokens ``last``."""
        said, drawn = [], [last]
        for slot in range(known.shape[1]):
            before = self.space.table(drawn[-1])
            said.append(self._log_p(self.network.say(known[:, slot], before)))
            drawn.append(categorical(said[-1], u[:, slot]))
        return torch.stack(said, dim=1), torch.stack(drawn[1:], dim=1)

    def ended(self, x: Tensor, generated: Mask, state: Any) -> Rows | None:
        masked: Mask = (x == self.mask) & generated
        return ~masked.any(dim=1)

    def _log_p(self, logits: Tensor) -> Tensor:
        """What is drawn from, in float64: at temperature 0 the likeliest is certain."""
        if self.draw.temperature == 0.0:
            certain = torch.full_like(logits, -torch.inf, dtype=torch.float64)
            return certain.scatter(-1, logits.argmax(dim=-1, keepdim=True), 0.0)
        return likely(logits.double(), self.draw).log_softmax(dim=-1)
