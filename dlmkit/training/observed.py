"""What the passes of all processes found in one step, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.objective import Batch, LossParts, Slots
from dlmkit.training.draws import dealt
from dlmkit.training.parallel import World
from dlmkit.types import Index, PerRow, Rows

_SUMS, _COLUMNS = 3, 5
"""Of the first row that a process sends, and of those of its batch."""


@dataclass(frozen=True)
class Observed:
    """One step of the global batch: its sums, and its rows in order of their slots.

    ``loss_sum`` is over ``count`` noised positions, ``tokens`` counts what is not padding. The
    rows, as a learned schedule sees them, stand in this order whatever the processes and passes,
    so that the schedule's sums round alike.
    """

    loss_sum: Tensor
    count: Tensor
    tokens: Tensor
    slot: Index
    t: PerRow
    loss: PerRow
    pdf: PerRow
    unconditional: Rows


@dataclass(frozen=True)
class Gathering:
    """How the rows of a step come together: the ``slots`` of each pass of this process, on the
    device, and how many rows each process has."""

    slots: Sequence[Tensor]  # (B,) for each pass
    rows: Sequence[int]
    world: World

    @staticmethod
    def of(passes: Sequence[Slots], world: World) -> Gathering:
        """Of the ``passes`` that this process makes in every step."""
        slots = [part.index(world.device) for part in passes]
        return Gathering(slots, dealt(passes[0].batch, world.size), world)

    def observed(self, parts: Sequence[LossParts], batch: Batch) -> Observed:
        """What the ``parts`` of this process's ``batch``, one per pass, come to in all processes.

        Collective. Sums and rows travel together, so that it is one collective per step.
        """
        loss_sum = torch.stack([part.loss_sum.detach().double() for part in parts]).sum()
        count = torch.stack([part.count.double() for part in parts]).sum()
        tokens = torch.full_like(count, int(batch.attend.sum()))
        sums = F.pad(torch.stack((loss_sum, count, tokens)), (0, _COLUMNS - _SUMS))
        rows = [
            torch.stack([column.double() for column in columns], dim=1)
            for slots, part in zip(self.slots, parts, strict=True)
            for columns in [(slots, part.t, part.per_row, part.pdf, part.unconditional)]
        ]
        counts = [1 + count for count in self.rows]
        received = self.world.gather(torch.cat((sums[None], *rows)), counts)
        totals = torch.stack([table[0, :_SUMS] for table in received]).sum(dim=0)
        table = torch.cat([table[1:] for table in received])
        slot, t, loss, pdf, unconditional = table[table[:, 0].argsort()].unbind(dim=1)
        loss_sum, count, tokens = totals
        rest = slot.long(), t, loss, pdf, unconditional.bool()
        return Observed(loss_sum, count, tokens, *rest)


def complaint(step: int, loss: float, norm: float, seen: Observed) -> str:
    """Which rows a loss that is not finite comes from, in words."""
    bad = (~seen.loss.isfinite()).nonzero()[:, 0].tolist()
    rows = ", ".join(f"{int(seen.slot[i])} (t = {float(seen.t[i]):.4g})" for i in bad[:16])
    what = f"rows of its batch with a non-finite loss: {rows}"
    if len(bad) > 16:
        what += f" and {len(bad) - 16} more of {len(seen.loss)}"
    if not bad:
        worst = int(seen.loss.argmax())
        what = (
            f"every row's loss is finite (the largest is {float(seen.loss[worst]):.4g}, row "
            f"{int(seen.slot[worst])} at t = {float(seen.t[worst]):.4g}): the gradient overflowed"
        )
    return f"step {step}: the loss is {loss:.4g} and its gradient's norm {norm:.4g}; {what}"
