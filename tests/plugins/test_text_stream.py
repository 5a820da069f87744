"""Streamed text: every document once an epoch, exact state, rows that no process changes."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmkit.core.data import united
from dlmkit.core.objective import Batch
from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit_text.codec import Codec, encoded
from dlmkit_text.layout import Layout
from dlmkit_text.shards import TextShards, hold_out
from dlmkit_text.stream import Deal, LaneStream, Place
from dlmkit_text.vocabulary import byte_level

TOKENIZER = byte_level(["the lamps of the old harbour"] * 3, 270)
PACKED, SPLIT, CUT = Layout(8, False, False), Layout(8, True, True), Layout(8, True, False)


class Memory(TextShards):
    """Shards of lists, which remember from where they were read, and how far."""

    def __init__(self, shards: Sequence[Sequence[str]]) -> None:
        self.shards, self.count, self.name = shards, len(shards), "memory"
        self.identity = self.files = str(sum(map(len, shards)))
        self.reads: list[list[int]] = []

    def read(self, shard: int, start: int = 0) -> Iterator[str]:
        self.reads.append([shard, start, 0])
        for text in self.shards[shard][start:]:
            self.reads[-1][2] += 1
            yield text


def sharded(*sizes: int) -> Memory:
    names = (f"document {i} of the harbour{'s' * (i % 5)}" for i in itertools.count())
    return Memory([list(itertools.islice(names, size)) for size in sizes])


def deal(shards: TextShards, layout: Layout = PACKED, lanes: int = 3, shuffle: int = 4) -> Deal:
    return Deal(shards, Codec(TOKENIZER), layout, 7, lanes, shuffle)


def stream(
    shards: TextShards, layout: Layout = PACKED, batch: int = 6, **options: int
) -> LaneStream:
    return LaneStream(deal(shards, layout, **options), batch, TOKENIZER.pad_id)


def epoch(dealt: Deal, lane: int, number: int) -> list[str]:
    found = dealt.documents(lane, Place(number))
    own = itertools.takewhile(lambda pair: pair[0].epoch == number, found)
    return [TOKENIZER.decode(ids.tolist()) for _, ids in own]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(8, 30), min_size=1, max_size=5), st.integers(1, 8), st.integers(1, 9))
def test_the_lanes_read_every_document_once_an_epoch(sizes: list[int], lanes: int, shuffle: int):
    shards = sharded(*sizes)
    dealt = deal(shards, lanes=lanes, shuffle=shuffle)
    orders = [[epoch(dealt, lane, number) for lane in range(lanes)] for number in (0, 1)]
    for order in orders:
        assert sorted(itertools.chain(*order)) == sorted(itertools.chain(*shards.shards))
    assert orders[0] != orders[1] or lanes == len(sizes) == 1


def test_shards_and_documents_are_shuffled_as_the_seed_says():
    shards = sharded(*[20] * 6)
    orders = [
        epoch(Deal(shards, Codec(TOKENIZER), PACKED, seed, 1, shuffle), 0, 0)
        for seed, shuffle in ((0, 4), (0, 4), (1, 4), (0, 1))
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != orders[2]
    in_order = [list(group) for _, group in itertools.groupby(orders[3], _shard_of(shards))]
    assert sorted(in_order) == sorted(map(list, shards.shards))
    assert in_order != list(shards.shards)
    blocks = zip(*[iter(orders[0])] * 4, strict=True)
    assert all(len(set(map(_shard_of(shards), block))) == 1 for block in blocks)


def _shard_of(shards: Memory):
    return {text: i for i, own in enumerate(shards.shards) for text in own}.__getitem__


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.sampled_from([PACKED, SPLIT, CUT]), st.integers(1, 12))
def test_the_rows_of_a_lane_are_its_documents_in_order(lanes: int, layout: Layout, batch: int):
    lanes = min(lanes, batch)
    dealt = deal(sharded(9, 13, 8), layout, lanes=lanes)
    rows = stream(dealt.shards, layout, batch, lanes=lanes)
    batches = [rows.read(step, torch.arange(batch)) for step in range(7)]
    for lane in range(lanes):
        own = slice(lane, None, lanes)
        ids = [row[keep] for b in batches for row, keep in _rows(b, own)]
        documents = itertools.islice(dealt.documents(lane, Place()), 7 * batch * 8)
        expected = layout.rows(ids for _, ids in documents)
        wanted = [row.tolist() for row in itertools.islice(expected, len(ids))]
        assert [row.tolist() for row in ids] == wanted
    for b in batches:
        assert bool((b.ids[~b.attend] == TOKENIZER.pad_id).all())
        assert layout is not PACKED or bool(b.attend.all())


def _rows(batch: Batch, own: slice) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(batch.ids[own], batch.attend[own], strict=True)


@pytest.mark.parametrize("layout", [PACKED, SPLIT, CUT])
@pytest.mark.parametrize("lanes", [1, 2, 4, 6])
def test_processes_partition_the_rows_and_their_states_unite(layout: Layout, lanes: int):
    whole = stream(sharded(9, 13, 8), layout, lanes=lanes)
    expected = [whole.read(step, torch.arange(6)) for step in range(9)]
    saved = None
    for step, size in zip(range(9), (1, 1, 2, 2, 3, 3, 6, 2, 1), strict=True):
        ranks = [stream(sharded(9, 13, 8), layout, lanes=lanes) for _ in range(size)]
        states: list[Mapping[str, Any]] = []
        for rank, own in enumerate(ranks):
            if saved is not None:
                own.restore(json.loads(saved))
            slots = torch.arange(rank, 6, size)
            got = own.read(step, slots)
            assert torch.equal(got.ids, expected[step].ids[slots])
            assert torch.equal(got.attend, expected[step].attend[slots])
            states.append(own.state())
        saved = json.dumps(union := united(states))
        assert all(union[key] == value for state in states for key, value in state.items())


def test_a_process_reads_only_the_shards_of_its_rows():
    shards = sharded(*[10] * 8)
    own = stream(shards, batch=8, lanes=4)
    for step in range(4):
        own.read(step, torch.tensor([1, 5]))
    read = {shard for shard, *_ in shards.reads}
    assert read <= {shard for shard, _ in own.deal.hand(1, 0)}


def test_a_resume_reads_no_more_than_a_block_again():
    shards = sharded(400)
    first = stream(shards, lanes=1, shuffle=16, batch=2)
    for step in range(60):
        before = first.read(step, torch.arange(2))
    state = first.state()
    block = state["lane 0"][2]
    assert block > 16
    again = stream(fresh := sharded(400), lanes=1, shuffle=16, batch=2)
    again.restore(state)
    assert torch.equal(again.read(60, torch.arange(2)).ids, first.read(60, torch.arange(2)).ids)
    (_, start, records) = fresh.reads[0]
    assert (start, records <= 32) == (block, True)
    assert not torch.equal(before.ids, again.read(61, torch.arange(2)).ids)


def test_a_step_may_be_asked_for_in_parts_but_not_a_past_one():
    own = stream(sharded(9, 13, 8))
    whole = stream(sharded(9, 13, 8)).read(0, torch.arange(6))
    for slot in (5, 0, 3):
        assert torch.equal(own.read(0, torch.tensor([slot])).ids[0], whole.ids[slot])
    own.read(4, torch.arange(6))
    with pytest.raises(UsageError, match="only goes forward"):
        own.read(2, torch.arange(6))


def test_other_slots_after_a_resume():
    own = stream(sharded(9, 13, 8))
    own.read(0, torch.arange(6))
    state = own.state()
    expected = [own.read(step, torch.arange(6)).ids for step in (1, 2, 3)]
    own = stream(sharded(9, 13, 8))
    own.restore(state)
    for step, slots in ((1, [0]), (2, [1, 4]), (3, [5, 0, 2])):
        assert torch.equal(own.read(step, torch.tensor(slots)).ids, expected[step - 1][slots])


def test_a_state_without_a_lane_or_of_other_shards_is_refused():
    own = stream(sharded(9, 13, 8))
    own.read(0, torch.tensor([0, 3]))
    with pytest.raises(CheckpointError, match="lacks lane 1, lane 2"):
        stream(sharded(9, 13, 8)).restore(own.state())
    own.read(0, torch.arange(6))
    stream(sharded(9, 13, 8)).restore(own.state())
    with pytest.raises(DataError, match="not the shards that the run was trained on"):
        stream(sharded(9, 13, 9)).restore(own.state())


def test_an_epoch_without_text_ends_in_an_error():
    with pytest.raises(DataError, match="lane 0 of 1 found no training text"):
        stream(Memory([["", " "], ["\n"]]), lanes=1).read(0, torch.arange(6))


def test_held_out_documents_are_in_no_row_and_nothing_else_is_missing():
    shards = sharded(40, 40)
    train, validation = hold_out(shards, 0.3)
    read = [epoch(deal(part, lanes=1), 0, 0) for part in (train, validation)]
    assert sorted(read[0] + read[1]) == sorted(itertools.chain(*shards.shards))
    assert 8 < len(read[1]) < 40
    assert list(validation.all()) == [t for t in itertools.chain(*shards.shards) if t in read[1]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 9))
def test_rows_hold_the_tokens_of_their_documents(sizes: list[int], length: int):
    counter = itertools.count()
    documents = [
        np.fromiter(itertools.islice(counter, size), dtype=np.int32, count=size) for size in sizes
    ]
    packed = [*itertools.chain(*Layout(length, False, False).rows(documents))]
    assert packed == list(range(sum(sizes) // length * length))
    split = Layout(length, True, True)
    assert [*itertools.chain(*split.rows(documents))] == list(range(sum(sizes)))
    for ids in documents:
        starts = [row[0] for row in split.rows([ids])]
        assert starts == list(range(ids[0], ids[0] + len(ids), length))
    cut = list(Layout(length, True, False).rows(documents))
    assert [row.tolist() for row in cut] == [ids[:length].tolist() for ids in documents]


def test_what_is_encoded_at_once_changes_nothing():
    documents = [text for part in sharded(90).shards for text in part] + ["", "  "]
    codec = Codec(TOKENIZER)
    single = [codec.encode([text])[0] for text in documents]
    assert [ids.tolist() for ids in encoded(codec, documents)] == [
        ids.tolist() for ids in single if len(ids)
    ]
    assert all(ids[-1] == TOKENIZER.separator_id for ids in single if len(ids))
