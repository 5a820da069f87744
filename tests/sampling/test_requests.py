"""Requests as templates of tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmkit.errors import UsageError
from dlmkit.sampling.requests import Request, template, unconditional

CPU = torch.device("cpu")
PIECES = st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=2, max_size=4)


def test_a_prompt_stands_first():
    assert Request.prompt(3, [7, 8], 4) == Request(3, (7, 8, None, None))


def test_one_gap_takes_what_is_left():
    assert Request.infill(0, [[1], [2, 3]], 6).tokens == (1, None, None, None, 2, 3)


def test_several_gaps_share_what_is_left():
    assert Request.infill(0, [[], [1], []], 4).tokens == (None, None, 1, None)


@given(PIECES, st.integers(0, 20))
def test_infilling_keeps_its_pieces_in_order_and_fills_the_length(pieces, extra):
    known = [token for piece in pieces for token in piece]
    length = len(known) + extra
    tokens = Request.infill(0, pieces, length).tokens
    assert len(tokens) == length
    assert [token for token in tokens if token is not None] == known
    gaps = [
        len(run) for run in "".join("_" if t is None else "x" for t in tokens).split("x") if run
    ]
    assert extra < len(pieces) - 1 or max(gaps) >= extra // (len(pieces) - 1)


def test_unconditional_numbers_its_rows():
    asked = unconditional(3, 2, first=5)
    assert [request.row for request in asked] == [5, 6, 7]
    assert all(request.tokens == (None, None) for request in asked)


def test_template():
    asked = template([Request(4, (None, 3)), Request.prompt(9, [5, 0], 3)], 3, CPU)
    assert asked.row.tolist() == [4, 9]
    assert asked.ids.tolist() == [[0, 3, 0], [5, 0, 0]]
    assert asked.given.tolist() == [[False, True, False], [True, True, False]]
    assert asked.attend.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("size", [0, 5])
def test_texts_of_no_or_too_many_tokens_are_refused(size):
    with pytest.raises(UsageError, match=f"text 2 has {size} tokens; this model writes 1 to 4"):
        template([Request.free(2, size)], 4, CPU)
