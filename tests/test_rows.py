"""take, where, put and cat act on every tensor of a nested value, row by row."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dlmkit import rows
from dlmkit.testing import pretend


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass(frozen=True)
class Box:
    inside: Any
    other: Any


def tensors(count):
    shapes = st.lists(st.integers(1, 3), max_size=2)
    dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool])

    def fill(shape, dtype, seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 2**20, (count, *shape), generator=generator).to(dtype)

    return st.builds(fill, shapes, dtypes, st.integers(0, 2**20))


def values(count):
    def nest(inner):
        return st.one_of(
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
            st.builds(Pair, inner, inner),
            st.builds(Box, inner, inner),
        )

    return st.recursive(st.one_of(tensors(count), st.none()), nest, max_leaves=5)


def leaves(value):
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Box):
        return leaves(value.inside) + leaves(value.other)
    parts = value.values() if isinstance(value, dict) else value
    return [leaf for part in parts for leaf in leaves(part)]


def shape_of(value):
    """The nesting, tensors left out."""
    if isinstance(value, dict):
        return (dict, {key: shape_of(part) for key, part in value.items()})
    if isinstance(value, tuple):
        return (type(value), [shape_of(part) for part in value])
    if isinstance(value, Box):
        return (Box, shape_of(value.inside), shape_of(value.other))
    return type(value)


def same(a, b):
    return shape_of(a) == shape_of(b) and all(map(torch.equal, leaves(a), leaves(b)))


COUNT = 4
INDEX = st.lists(st.integers(0, COUNT - 1), max_size=6).map(lambda i: torch.tensor(i).long())
MASK = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT).map(torch.tensor)


@given(values(COUNT), INDEX)
def test_take_indexes_every_tensor(value, index):
    taken = rows.take(value, index)
    assert shape_of(taken) == shape_of(value)
    assert all(torch.equal(t, v[index]) for t, v in zip(leaves(taken), leaves(value), strict=True))


@given(values(COUNT), MASK)
def test_take_by_mask_is_take_by_position(value, mask):
    assert same(rows.take(value, mask), rows.take(value, mask.nonzero()[:, 0]))


@given(values(COUNT), MASK)
def test_where_chooses_rows(value, mask):
    other = rows.take(value, torch.arange(COUNT).flip(0))
    chosen = rows.where(mask, value, other)
    for row in range(COUNT):
        source = value if mask[row] else other
        assert same(rows.take(chosen, torch.tensor([row])), rows.take(source, torch.tensor([row])))


@given(values(COUNT), st.permutations(range(COUNT)), st.integers(0, COUNT))
def test_put_then_take_gives_back(value, order, size):
    index = torch.tensor(order[:size]).long()
    new = rows.take(value, torch.arange(COUNT).flip(0)[:size])
    copy = rows.take(value, torch.arange(COUNT))
    result = rows.put(value, index, new)
    assert same(rows.take(result, index), new)
    kept = torch.tensor(order[size:]).long()
    assert same(rows.take(result, kept), rows.take(value, kept))
    assert same(value, copy), "put changed its argument"


@given(values(COUNT), st.integers(0, COUNT))
def test_cat_joins_what_take_parted(value, cut):
    index = torch.arange(COUNT)
    assert same(rows.cat([rows.take(value, index[:cut]), rows.take(value, index[cut:])]), value)


def test_none_and_empty_values_pass():
    assert rows.take(None, torch.tensor([0])) is None
    assert rows.take(3, torch.tensor([0])) == 3  # a size, the same for all rows
    assert rows.where(torch.tensor([True]), (), ()) == ()


@pytest.mark.parametrize("value", ["text", 0.5, [torch.zeros(2)]])
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match="cannot hold"):
        rows.take(value, torch.tensor([0]))


def test_unequal_tuples_are_refused():
    with pytest.raises(ValueError, match="zip"):
        rows.where(torch.tensor([True]), (torch.zeros(1),), (torch.zeros(1), torch.zeros(1)))


def test_put_keeps_the_dtype():
    result = rows.put(torch.zeros(2), torch.tensor([1]), torch.ones(1, dtype=torch.float64))
    assert result.dtype == torch.float32
    assert result.tolist() == [0.0, 1.0]


def test_merge_and_part_are_inverse():
    """Positions as rows of their own, and back."""
    value = (torch.arange(12).view(2, 3, 2), Pair(torch.arange(6.0).view(2, 3), None))
    flat = rows.merge(value)
    assert [leaf.shape for leaf in (flat[0], flat[1].a)] == [(6, 2), (6,)]
    again = rows.part(flat, 3)
    assert torch.equal(again[0], value[0])
    assert torch.equal(again[1].a, value[1].a)
    assert rows.merge(()) == rows.part((), 3) == ()


def test_places_are_where_a_mask_holds_and_on_an_accelerator_all_without_a_wait(accelerator):
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert [index.tolist() for index in rows.places(mask)] == [[0, 0, 1], [0, 2, 2]]
    there = mask.to(accelerator)
    with pretend.counted() as seen:
        found = rows.places(there)
    assert seen.waits == 0
    assert [index.tolist() for index in found] == [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
