"""Block after block, with and without the keys and values of finished blocks kept."""

import pytest
import torch

import dlmkit
from dlmkit.cli.app import main
from dlmkit.errors import RecipeError, UsageError
from dlmkit.model import Run

BLOCKS = {"bd3lm": 4, "sdar": 4, "llada2-mini": 32}


@pytest.fixture
def opened(golden):
    """The model of a golden folder, whose texts end nowhere."""
    return lambda family: dlmkit.load(golden(family, words=True)).with_("sample.stop=[]")


@pytest.mark.parametrize("family", sorted(BLOCKS))
def test_the_cache_changes_no_text(opened, family):
    model, block = opened(family), BLOCKS[family]
    assert model.parts.sampler.window.size == block
    most = min(model.config.length, 4 * block)
    lengths = [most, most - 1, most - 2 * block + 1]
    requests = model.requests(2, ["w5 w6 " * (block // 2) + "w7", "w3"], length=lengths)
    requests += model.requests(1, infill="___ w8 w9 ___", length=most, offset=4)
    plain = model.run(requests, Run(3, 6, 2, most))  # three texts wait for a slot
    kept = model.with_("sample.cache=exact").run(requests, Run(3, 6, 2, most))
    assert [(s.row, s.ids, s.evaluations) for s in kept] == [
        (s.row, s.ids, s.evaluations) for s in plain
    ]
    assert len({sample.ids for sample in plain}) == 5


def test_a_step_computes_two_blocks_alone(opened, monkeypatch):
    model = opened("sdar").with_("sample.cache=exact")
    network, sizes = model.assembly.network, []
    extend = network.extend

    def watched(x, *more):
        sizes.append(tuple(x.shape[:2]))
        return extend(x, *more)

    monkeypatch.setattr(network, "extend", watched)
    model.run(model.requests(1, "w5 " * 10, length=24), Run(0, 8, 1, 24))
    assert sizes[0] == (1, 24)  # the prompt, once
    assert set(sizes[1:]) == {(1, 8)}


def test_blocks_are_written_one_after_the_other_in_even_shares(opened):
    model = opened("sdar")
    mask = model.assembly.space.corruption.mask
    request = model.requests(1, "w5 w6 w7 w8 w9", length=16)  # a block and a quarter of the next
    left = [
        (step.x[0, 5:] == mask).view(-1).tolist()
        for step in model.stream(request, Run(0, 7, 1, 16))
    ]
    blocks = [[row[:3], row[3:7], row[7:]] for row in left]
    done = [[not any(part) for part in row] for row in blocks]
    assert [sum(row) for row in done] == [0, 0, 1, 1, 2, 2, 3]
    for row in blocks:
        first = next((i for i, part in enumerate(row) if any(part)), 3)
        assert all(all(part) for part in row[first + 1 :])


def test_fewer_steps_than_blocks_are_refused(golden, capsys):
    words = ["sample", str(golden("sdar", words=True)), "--length", "20", "--steps", "4"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "written in 5 windows of 4 positions, and the grid has 4 steps: ask for 5" in said


@pytest.mark.parametrize(
    ("family", "overrides", "why"),
    [
        ("llada", [], "a masked model whose network attends block by block, can keep"),
        ("sdar", ["sampler.use=masked:decoder", "sampler.with.window=4"], "window_from: row"),
        ("sdar", ["sampler.with.window=6"], "window: 4 or a multiple of it"),
        ("sdar", ["sampler.with.window=null"], "window: 4 or a multiple of it"),
        ("sdar", ["exit.use=entropy", "exit.with.threshold=0.1"], "read whole rows"),
        ("sdar", ["sample.precision=bf16"], "goes with precision: fp32"),
    ],
)
def test_where_it_would_change_a_text_it_is_refused(opened, family, overrides, why):
    with pytest.raises(RecipeError, match=why):
        opened(family).with_("sample.cache=exact", *overrides)


@pytest.mark.parametrize("cache", ["none", "exact"])
def test_a_row_ends_when_its_end_and_all_before_it_are_settled(opened, cache):
    model = opened("sdar").with_(f"sample.cache={cache}")
    requests = model.requests(4, "w5 w6", length=24)
    whole = model.run(requests, Run(1, 24, 2, 24))
    stop = {f"w{i}": i for i in range(20, 32)}
    stopping = model.with_(f"sample.stop={list(stop)}")
    ended = stopping.run(requests, Run(1, 24, 2, 24))
    for long, short in zip(whole, ended, strict=True):
        ends = [at for at in range(2, 24) if long.ids[at] in stop.values()]
        assert short.ids == long.ids[: ends[0] + 1 if ends else 24]
        blocks = -(-len(short.ids) // 4)
        assert short.steps <= 4 * blocks
        assert short.halted == ("end of text" if short.steps < 24 else None)
    assert any(short.halted for short in ended)
    assert len({s.steps for s in ended}) > 1


def test_an_end_between_gaps_ends_nothing(opened):
    model = opened("sdar")
    stop = f"sample.stop={[f'w{i}' for i in range(20, 60)]}"
    (sample,) = model.with_(stop).run(
        model.requests(1, infill="___ w8 w9", length=12), Run(1, 12, 1, 12)
    )
    assert len(sample.ids) == 12
    assert any(20 <= i < 60 for i in sample.ids)


def test_rows_that_ask_for_nothing_new_keep_their_memory_finite(opened):
    model = opened("bd3lm").with_("sample.cache=exact")
    steps = list(model.stream(model.requests(1, length=5), Run(0, 6, 1)))
    assert all(torch.isfinite(step.prediction.query).all() for step in steps)
    with pytest.raises(UsageError, match="written in 2 windows"):
        list(model.stream(model.requests(1, length=5), Run(0, 1, 1)))
