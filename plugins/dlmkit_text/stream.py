"""Text tokenised while training reads it: lanes of shards, with exact state.

The rows of a batch are dealt to lanes: row ``slot`` belongs to lane ``slot % lanes``. In every
epoch the shards are shuffled and dealt to the lanes, and each lane reads its own from beginning to
end. So what a row holds depends on the seed alone, a process reads only the lanes of its own rows,
and where a lane stands is five numbers. Where there are fewer shards than lanes, every shard is
dealt in as many parts as it takes, like cards.

Documents are shuffled in blocks of ``shuffle``, each by itself: to go on inside a block, it is read
again, so a resume is exact, where one with a rolling buffer would be approximate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch
from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit_text.codec import BATCH, Codec, Ids
from dlmkit_text.layout import Layout
from dlmkit_text.shards import TextShards
from dlmkit_text.shuffle import permuted

_DOMAIN = 0x57E4


@dataclass(frozen=True)
class Place:
    """Where a lane stands: the first id that no row holds yet.

    ``shard`` counts the lane's own in this ``epoch``, ``block`` is the first record of a block,
    ``document`` counts those of the block in their shuffled order, ``token`` their ids.
    """

    epoch: int = 0
    shard: int = 0
    block: int = 0
    document: int = 0
    token: int = 0


@dataclass(frozen=True)
class Deal:
    """How ``shards`` are dealt to ``lanes`` and shuffled."""

    shards: TextShards
    codec: Codec
    layout: Layout
    seed: int
    lanes: int
    shuffle: int

    @property
    def parts(self) -> int:
        """How many lanes read one shard."""
        return -(-self.lanes // self.shards.count)

    def hand(self, lane: int, epoch: int) -> list[tuple[int, int]]:
        """The (shard, part) that ``lane`` reads in ``epoch``, in order."""
        total = self.shards.count * self.parts
        order = permuted(np.arange(total), total, _DOMAIN, self.seed, epoch)
        return [divmod(int(i), self.parts) for i in order[lane :: self.lanes]]

    def blocks(self, shard: int, part: int, start: int) -> Iterator[tuple[int, list[str]]]:
        """(first record, the part's documents) of each block, from that at record ``start`` on."""
        records = self.shards.read(shard, start)
        size = self.shuffle * self.parts
        for first in itertools.count(start, size):
            block = enumerate(itertools.islice(records, size))
            texts, last = [], -1
            for last, text in block:
                if last % self.parts == part:
                    texts.append(text)
            if last < 0:
                return
            yield first, texts

    def documents(self, lane: int, place: Place) -> Iterator[tuple[Place, Ids]]:
        """The lane's documents, for ever, from that at ``place``, each with its place.

        Raises DataError if a whole epoch holds none.
        """
        start, any_text = place, False
        for epoch in itertools.count(place.epoch):
            for index, (shard, part) in enumerate(self.hand(lane, epoch)):
                if (epoch, index) < (start.epoch, start.shard):
                    continue
                here = (epoch, index) == (start.epoch, start.shard)
                at = replace(start, token=0) if here else Place(epoch, index)
                for document in self._shard(shard, part, at):
                    any_text = True
                    yield document
            if not any_text and epoch > start.epoch:
                raise DataError(
                    f"{self.shards.name}: lane {lane} of {self.lanes} found no training text in a "
                    "whole epoch; give more text or lower data.with.lanes"
                )

    def _shard(self, shard: int, part: int, place: Place) -> Iterator[tuple[Place, Ids]]:
        for first, block in self.blocks(shard, part, place.block):
            key = (_DOMAIN, self.seed, place.epoch, shard, first)
            order = permuted(np.arange(len(block)), len(block), *key)
            begin = place.document if first == place.block else 0
            for low in range(begin, len(block), BATCH):
                ids = self.codec.encode([block[i] for i in order[low : low + BATCH]])
                for document, encoded in enumerate(ids, low):
                    if len(encoded):
                        yield replace(place, block=first, document=document, token=0), encoded


class Lane:
    """One lane's rows, one after another. ``step`` counts the steps whose rows were taken."""

    def __init__(self, deal: Deal, lane: int, place: Place, step: int) -> None:
        self.place, self.step = place, step
        self._first = step
        self._layout = deal.layout
        self._documents = deal.documents(lane, place)
        self._rest: Ids = _NONE
        self._rows: list[Ids] = []

    def take(self, step: int, count: int) -> list[Ids]:
        """The lane's ``count`` rows of ``step``; those of the last step may be asked for again."""
        if step < max(self._first, self.step - 1):
            raise UsageError(f"a stream only goes forward: {self.step} steps on, asked for {step}")
        while self.step <= step:
            self._rows = [self._row() for _ in range(count)]
            self.step += 1
        return self._rows

    def _row(self) -> Ids:
        """The next document or part of one, or as many as fill a row."""
        length = self._layout.length
        if self._layout.padded:
            return self._pull(length, keep=self._layout.split)
        parts, missing = [], length
        while missing:
            parts.append(self._pull(missing, keep=True))
            missing -= len(parts[-1])
        return np.concatenate(parts)

    def _pull(self, most: int, keep: bool) -> Ids:
        """At most so many ids of one document; the rest of it is kept for the next pull, or not."""
        if not len(self._rest):
            at, ids = next(self._documents)
            token = self.place.token  # not 0 only where a document was left unfinished
            self._rest, self.place = ids[token:], replace(at, token=token)
        taken, self._rest = self._rest[:most], self._rest[most:] if keep else _NONE
        if len(self._rest):
            self.place = replace(self.place, token=self.place.token + len(taken))
        else:
            self.place = replace(self.place, document=self.place.document + 1, token=0)
        return taken


_NONE: Ids = np.empty(0, dtype=np.int32)


class LaneStream(Stream):
    """Rows of ``deal``, of which ``batch_size`` make a step."""

    def __init__(self, deal: Deal, batch_size: int, pad_id: int) -> None:
        self.deal, self.batch_size, self.pad_id = deal, batch_size, pad_id
        self._lanes: dict[int, Lane] = {}
        self._from: dict[int, Place] = {}
        self._begin = self._step = 0

    def read(self, step: int, slots: Tensor) -> Batch:
        lanes = self.deal.lanes
        rows = {
            lane: self._lane(lane).take(step, len(range(lane, self.batch_size, lanes)))
            for lane in sorted(set((slots % lanes).tolist()))
        }
        self._step = step + 1
        asked = [rows[slot % lanes][slot // lanes] for slot in slots.tolist()]
        return self.deal.layout.batch(asked, self.pad_id)

    def _lane(self, lane: int) -> Lane:
        if lane not in self._lanes:
            place = self._from.get(lane, Place())
            self._lanes[lane] = Lane(self.deal, lane, place, self._begin)
        return self._lanes[lane]

    def state(self) -> Mapping[str, Any]:
        """The step, the shards' files, and the places of the lanes that were read for it."""
        read = {i: lane for i, lane in self._lanes.items() if lane.step == self._step}
        places = {f"lane {i}": list(astuple(lane.place)) for i, lane in read.items()}
        return {"step": self._step, "files": self.deal.shards.files, **places}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on at ``state``.

        Raises DataError if it is of other shards, and CheckpointError if it lacks a lane.
        """
        names = {i: f"lane {i}" for i in range(self.deal.lanes)}
        missing = [name for name in ("step", "files", *names.values()) if name not in state]
        if missing:
            raise CheckpointError(f"the saved state of the data lacks {', '.join(missing)}")
        if state["files"] != self.deal.shards.files:
            raise DataError(
                f"{self.deal.shards.name}: these are not the shards that the run was trained on: "
                "names or sizes differ; put them back, or start anew with --out ANOTHER"
            )
        self._lanes = {}
        self._from = {i: Place(*state[name]) for i, name in names.items()}
        self._begin = self._step = int(state["step"])
