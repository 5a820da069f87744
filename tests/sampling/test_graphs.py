"""A recorded turn: a tape of operations, replayed over the same memory, stands for a CUDA graph."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlmkit.core.context import BuildContext
from dlmkit.errors import RecipeError
from dlmkit.model import load_model
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling import graphs, slots
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import stream
from dlmkit.testing import pretend
from dlmkit.testing.markov import MarkovChain, markov_denoise

from . import conftest

V, L, N = 7, 5, 8
CHAIN = MarkovChain.random(V)
mixed = partial(conftest.mixed, CHAIN, L)
DENOISE = markov_denoise(CHAIN, 8)
REGISTRY = Registry.load(third_party=False)
CONTEXT = BuildContext(length=L, vocab_size=V, parts={"space": DENOISE.space})
ENTROPY = {"use": "entropy", "with": {"threshold": 0.15}}
JEFFREYS = {"use": "jeffreys", "with": {"threshold": 0.005}}
RULES = {
    "entropy": ENTROPY,
    "jeffreys": JEFFREYS,
    "any": {"use": "any", "with": {"rules": [ENTROPY, JEFFREYS]}},
    "patience": {"use": "patience", "with": {"rule": ENTROPY, "steps": 2}},
}
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"}


def build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), CONTEXT)


def markov_parts(sampler, exit=None, freeze=None, denoise=DENOISE):
    """The exact model, with rules that end its texts at different steps."""
    rules = {
        key: build("exit", RULES[name]["use"], **RULES[name]["with"])
        for key, name in (("exit", exit), ("freeze", freeze))
        if name is not None
    }
    needed = sorted({name for rule in rules.values() for name in rule.needs})
    times = {"t_min": 0.05, "t_max": 20.0, "density": "log-uniform"}
    return SamplingParts(
        denoise.space,
        build("schedule", "variance-exploding", **times),
        denoise,
        build("sampler", sampler),
        build("grid", "warped"),
        statistics={name: build("statistic", name) for name in needed},
        **rules,
    )


class Tape(TorchDispatchMode):
    """Writes down operations with their tensors; a replay does them again in the same memory.

    As a CUDA graph does: nothing of Python runs again, and what the host reads cannot be recorded.
    """

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in READS:
            raise RuntimeError(f"{func} is not permitted when a stream is capturing")
        out = func(*args, **(kwargs or {}))
        if not all(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """The tapes that stand for CUDA graphs, one per recording."""
    made = []

    def record(call):
        call()
        with Tape() as tape:
            result = call()
        made.append(tape)
        return result, tape.replay

    monkeypatch.setattr(graphs, "record", record)
    return made


def recorded(parts):
    return replace(parts, inference=replace(parts.inference, cuda_graphs=True))


def run(parts, requests, batch_size, length, steps, width=slots.halves):
    """Every turn's numbers, and all samples."""
    turns = stream(
        parts, requests, seed=3, steps=steps, batch_size=batch_size, length=length, width=width
    )
    floats, samples = [], []
    for step in turns:  # kept to the end: a replay must not write over what was yielded
        values = [step.row, step.live, step.done, step.x, step.origin[step.live]]
        values += [value[step.live] for value in step.statistics.values()]
        values += [step.prediction.query[step.live], step.prediction.x0_step[step.live]]
        floats.append((values, step.evaluations))
        samples += step.samples
    return floats, samples


def same(found, expected):
    assert found[1] == expected[1]
    assert len(found[0]) == len(expected[0])
    for (values, evaluations), (others, count) in zip(found[0], expected[0], strict=True):
        assert evaluations == count
        assert all(torch.equal(a, b) for a, b in zip(values, others, strict=True))


@pytest.mark.parametrize("exit", [None, "entropy", "any", "patience"])
@pytest.mark.parametrize("sampler", ["euler", "ancestral", "heun", "unipc", "dpm-2m-sde"])
def test_replayed_turns_give_the_same_texts_bit_for_bit(tapes, sampler, exit):
    """With refill, exits, settled positions and compaction by halves."""
    for freeze in (None, "jeffreys"):
        parts, queue = markov_parts(sampler, exit, freeze), mixed(11)
        expected = run(parts, queue, 4, L, N)
        tapes.clear()
        same(run(recorded(parts), queue, 4, L, N), expected)
        assert 1 <= len(tapes) <= 3, "one per width: 4, 2 and 1"


def test_replayed_turns_of_the_model_that_ships(tapes):
    guidance = '[{"use":"classifier-free","with":{"scale":1.5}},{"use":"clamped"}]'
    overrides = [f"guidance={guidance}", "exit.use=entropy", "exit.with.threshold=1.75"]
    model = load_model("ddlm-mini", overrides)
    length = model.config.length
    queue = [Request.prompt(i, [i + 3] * (i % 3), length - i) for i in range(5)]
    expected = run(model.parts, queue, 2, length, 10)
    same(run(recorded(model.parts), queue, 2, length, 10), expected)
    assert tapes


@pytest.mark.parametrize(
    "rules", [(), ("exit.use=entropy", "exit.with.threshold=1.0", "freeze.use=entropy",
                   "freeze.with.threshold=1.0")],
)  # fmt: skip
@pytest.mark.parametrize("sampler", ["ancestral", "heun", "edm-churn", "unipc"])
def test_a_recorded_turn_reads_and_copies_nothing(accelerator, monkeypatch, sampler, rules):
    counts = []

    def record(call):
        with pretend.counted() as seen, Tape() as tape:
            result = call()
        counts.append((seen.waits, seen.copies))
        return result, tape.replay

    monkeypatch.setattr(graphs, "record", record)
    model = load_model("ddlm-mini", [f"sampler.use={sampler}", *rules], device=accelerator)
    length = model.config.length
    queue = [Request.free(i, length) for i in range(3)]
    found = run(recorded(model.parts), queue, 2, length, 5)
    assert counts
    assert set(counts) == {(0, 0)}
    on_cpu = load_model("ddlm-mini", [f"sampler.use={sampler}", *rules]).parts
    assert found[1] == run(on_cpu, queue, 2, length, 5)[1]


def test_a_part_that_reads_is_named_as_the_reason(tapes):
    class Reads(type(DENOISE)):
        def __call__(self, x, level, previous, conditioning):
            assert float(x.sum()) < 1e9
            return super().__call__(x, level, previous, conditioning)

    denoise = Reads(DENOISE.space, DENOISE.network)
    parts = recorded(markov_parts("euler", denoise=denoise))
    with pytest.raises(RecipeError, match=r"sample\.cuda_graphs: a step .* cannot be recorded"):
        run(parts, mixed(2), 2, L, N)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_cuda_graphs_give_the_same_texts(dtype):
    model = load_model("ddlm-mini", device="cuda")
    plain = replace(model.parts, inference=Inference(dtype=dtype))
    queue = [Request.free(i, model.config.length) for i in range(11)]
    expected = run(plain, queue, 4, model.config.length, 6)
    same(run(recorded(plain), queue, 4, model.config.length, 6), expected)
