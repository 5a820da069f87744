"""Traces hold the full run, and their file is whole or refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dlmkit.core.context import BuildContext
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.exits import trace_file
from dlmkit.exits.scores import angle
from dlmkit.exits.trace import Trace, TraceRecorder
from dlmkit.exits.trace_file import load_trace, save_trace
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.sampling.runner import generate, stream
from dlmkit.testing.markov import MarkovChain, markov_denoise

V, L, D, N = 5, 4, 6, 8
DENOISE = markov_denoise(MarkovChain.random(V), D)
REGISTRY = Registry.load(third_party=False)
REQUESTS = [*unconditional(4, L, first=10), Request(3, (2, None, None)), Request(4, (None, 1, 4))]


def build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), BuildContext(length=L))


def parts(exit_rule=None, sampler="heun"):
    return SamplingParts(
        space=DENOISE.space,
        schedule=build("schedule", "variance-exploding", t_min=0.1, t_max=10.0),
        denoise=DENOISE,
        sampler=build("sampler", sampler),
        grid=build("grid", "karras"),
        exit=exit_rule,
        statistics={name: build("statistic", name) for name in ("entropy", "kl")},
    )


def record(batch_size=3, **kept):
    recorder = TraceRecorder(parts(), REQUESTS, steps=N, length=L, **kept)
    settings = {"seed": 0, "steps": N, "batch_size": batch_size, "length": L}
    for _ in recorder.watch(stream(parts(), REQUESTS, **settings)):
        pass
    return recorder.trace({"seed": 0, "note": "naïve"})


@pytest.fixture(scope="module")
def trace():
    return record(positions=["entropy"], norms=True)


def same(a: Trace, b: Trace) -> bool:
    def equal(x, y):
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(equal(x[k], y[k]) for k in x)
        return x.dtype == y.dtype and torch.equal(x, y)

    names = ("row", "ids", "given", "attend", "statistics", "evaluations", "positions", "norms")
    return a.about == b.about and all(equal(getattr(a, n), getattr(b, n)) for n in names)


def test_a_trace_is_the_full_run(trace):
    samples = generate(parts(), REQUESTS, seed=0, steps=N, batch_size=2, length=L)
    order = trace.row.argsort()
    assert trace.row.tolist() == [request.row for request in REQUESTS]
    for place, sample in zip(order.tolist(), samples, strict=True):
        assert tuple(trace.full[place][trace.attend[place]].tolist()) == sample.ids
        assert int(trace.evaluations[-1]) == sample.evaluations == 2 * N - 1
    assert trace.evaluations.tolist() == [*range(2, 2 * N, 2), 2 * N - 1]
    assert not trace.ids[~trace.attend[:, None].expand_as(trace.ids)].any()
    assert (trace.ids[4, :, 0] == 2).all()


def test_it_agrees_with_every_step_of_the_same_run(trace):
    seen = 0
    for step in stream(parts(), REQUESTS, seed=0, steps=N, batch_size=3, length=L):
        ids = DENOISE.space.decode(step.x, step.prediction.query)
        assert step.statistics.keys() == trace.statistics.keys()
        for slot in step.live.nonzero()[:, 0].tolist():
            place = trace.row.tolist().index(int(step.row[slot]))
            at, free = int(step.statistics["step"][slot]) - 1, trace.generated[place]
            assert torch.equal(trace.ids[place, at][free].long(), ids[slot][free])
            for name, values in step.statistics.items():
                assert torch.equal(trace.statistics[name][place, at], values[slot])
            norm = step.x[slot][free].norm(dim=-1).mean()
            torch.testing.assert_close(trace.norms["x"][place, at], norm)
            seen += 1
    assert seen == N * len(REQUESTS)


def test_a_step_comes_from_where_the_last_one_went():
    before = {}
    for step in stream(parts(), REQUESTS, seed=0, steps=N, batch_size=3, length=L):
        for slot in step.live.nonzero()[:, 0].tolist():
            row = int(step.row[slot])
            assert row not in before or torch.equal(step.origin[slot], before[row])
            before[row] = step.x[slot].clone()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_angle_of_the_score(batch_size):
    """By the arc cosine, over every row's own list of scores."""
    kept = {}
    for step in stream(parts(), REQUESTS, seed=0, steps=N, batch_size=6, length=L):
        score = (step.prediction.x0_mean - step.origin) / step.statistics["sigma"][0] ** 2
        for slot, row in enumerate(step.row.tolist()):
            kept.setdefault(row, []).append(score[slot])
    trace = record(batch_size, norms=True)
    assert torch.isinf(trace.norms["score_angle"][:, 0]).all()
    for place, row in enumerate(trace.row.tolist()):
        ways = torch.stack(kept[row])[:, trace.generated[place]].flatten(1)
        cosine = torch.cosine_similarity(ways[1:], ways[:-1], dim=1).clamp(max=1.0)
        expected = torch.rad2deg(torch.arccos(cosine))
        measured = trace.norms["score_angle"][place, 1:].double()
        torch.testing.assert_close(measured, expected.double(), atol=1e-3, rtol=1e-5)


def test_angles_of_known_size():
    one, other = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert float(angle(one, other)) == pytest.approx(45.0)
    assert float(angle(one, -one)) == pytest.approx(180.0)
    small = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert float(angle(small, small * torch.tensor([5.0, -5.0]))) == pytest.approx(
        2e-9 * 180 / torch.pi, rel=1e-6
    )


def test_positions_average_to_the_statistic(trace):
    values = torch.where(trace.generated[:, None], trace.positions["entropy"].double(), 0.0)
    mean = values.sum(dim=2) / trace.generated.sum(dim=1)[:, None]
    torch.testing.assert_close(mean, trace.statistics["entropy"], atol=2e-3, rtol=2e-3)


def test_slots_do_not_matter():
    alone, together = record(batch_size=1), record(batch_size=6)
    assert torch.equal(alone.ids, together.ids)
    torch.testing.assert_close(alone.statistics, together.statistics)


def test_what_is_not_asked_for_is_not_kept():
    assert record().positions == record().norms == {}


def test_refusals():
    make = lambda p, **kept: TraceRecorder(p, REQUESTS, steps=N, length=L, **kept)  # noqa: E731
    with pytest.raises(UsageError, match="without rules that exit or freeze"):
        make(parts(build("exit", "fixed", step=2)))
    with pytest.raises(UsageError, match=r"no statistic 'margin'.*there: entropy, kl"):
        make(parts(), positions=["margin"])
    with pytest.raises(UsageError, match="'kl' compares two steps"):
        make(parts(), positions=["kl"])


def test_take_keeps_whole_texts(trace):
    some = trace.take(torch.tensor([4, 1]))
    assert some.row.tolist() == [3, 11]
    assert torch.equal(some.ids, trace.ids[[4, 1]])
    assert torch.equal(some.statistics["kl"], trace.statistics["kl"][[4, 1]])
    assert torch.equal(some.evaluations, trace.evaluations)


def test_a_file_gives_the_trace_back(trace, tmp_path):
    save_trace(trace, tmp_path / "a.trace")
    assert same(load_trace(tmp_path / "a.trace"), trace)
    assert [path.name for path in tmp_path.iterdir()] == ["a.trace"]
    with pytest.raises(UsageError, match="exists already"):
        save_trace(trace, tmp_path / "a.trace")
    with pytest.raises(UsageError, match="there is no folder"):
        save_trace(trace, tmp_path / "away" / "a.trace")


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 3), st.data())
def test_packing_loses_nothing(texts, steps, length, data):
    size = texts * steps * length
    flat = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    ids = torch.tensor(flat, dtype=torch.int16).view(texts, steps, length)
    changed, tokens = trace_file._packed(ids)
    assert len(changed) == -(-size // 8)
    assert torch.equal(trace_file._unpacked(changed, tokens, (texts, steps, length)), ids)


def test_tokens_that_stay_cost_a_bit_each():
    ids = torch.zeros((10, 80, 16), dtype=torch.int16)
    changed, tokens = trace_file._packed(ids)
    assert (len(changed), len(tokens)) == (10 * 80 * 16 // 8, 10 * 16)


def test_every_damage_is_noticed(trace, tmp_path):
    save_trace(trace, tmp_path / "a.trace")
    whole = (tmp_path / "a.trace").read_bytes()
    broken = tmp_path / "b.trace"
    for place in range(0, len(whole), 97):
        broken.write_bytes(whole[:place])
        with pytest.raises(CheckpointError, match="truncated"):
            load_trace(broken)
        changed = bytearray(whole)
        changed[place] ^= 1
        broken.write_bytes(bytes(changed))
        with pytest.raises((CheckpointError, UsageError)):
            load_trace(broken)
    changed = bytearray(whole)
    changed[-1] ^= 1
    broken.write_bytes(bytes(changed))
    with pytest.raises(CheckpointError, match="sha256 is not the recorded one"):
        load_trace(broken)


def test_what_is_no_trace(tmp_path):
    with pytest.raises(UsageError, match="there is no trace"):
        load_trace(tmp_path / "nowhere")
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="no trace of dlmkit's"):
        load_trace(tmp_path / "model.safetensors")
