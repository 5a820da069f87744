"""The figure scripts' own arithmetic, and the loops they compare with."""

import argparse

import end_to_end
import equivalence
import gpu
import likelihoods
import pytest
import refill
import torch
from likelihoods import Gap, entropy_gap, nll_gap, scorer

from dlmkit.bench.cases import Case
from dlmkit.bench.measure import Outcome, Work
from dlmkit.bench.parts import parts_of
from dlmkit.exact.intervals import Interval
from dlmkit.model import Model
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.snapshot import Sample


def euler(toy: Model, steps: int, count: int = 6) -> Outcome:
    case = Case("euler", "warped", steps, 4)
    return Work(parts_of(toy, case), unconditional(count, 6), 3, steps, 4, 6).run()


def test_the_plain_program_writes_what_the_loop_writes(toy: Model):
    usual = end_to_end.plain(toy, 6, 9, 3, "warped")
    assert torch.equal(usual.ids(6), euler(toy, 9).ids(6))
    assert usual.executed == 54


def test_gaps_of_a_run_from_itself_are_zero(toy: Model):
    run = euler(toy, 5)
    score = scorer(toy)(likelihoods.decoded(toy, run))
    for gap in (nll_gap(score, score), entropy_gap(run, run, 2)):
        assert gap == Gap(0.0, Interval(0.0, 0.0))
        assert gap.equivalent
        assert gap.no_worse


def test_nll_is_nats_over_units():
    a = torch.tensor([[2.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    assert nll_gap(a, b).value == pytest.approx(0.5)


def test_the_markov_score_is_the_chains_likelihood(toy: Model):
    ids = toy.data.validation(5).ids
    nats, units = scorer(toy)([toy.assembly.tokenizer.decode(row) for row in ids.tolist()]).T
    torch.testing.assert_close(nats / units, toy.data.chain.nll(ids - 1))


def test_two_one_sided_tests():
    assert Gap(0.0, Interval(-0.019, 0.019)).equivalent
    assert not Gap(0.0, Interval(-0.021, 0.019)).equivalent
    assert Gap(-0.1, Interval(-0.12, -0.08)).no_worse
    assert not Gap(0.0, Interval(-0.01, 0.03)).no_worse


def test_entropy_of_pooled_tokens():
    def outcome(*texts: tuple[int, ...]) -> Outcome:
        return Outcome(tuple(Sample(i, ids, 1, 1, None) for i, ids in enumerate(texts)), 2)

    varied, same = outcome((1, 2), (2, 1)), outcome((1, 1), (1, 1))
    assert entropy_gap(varied, same, 1).value == pytest.approx(0.6931, abs=1e-4)


def test_refill_and_barrier_print_their_figures(toy: Model, capsys: pytest.CaptureFixture[str]):
    options = argparse.Namespace(
        steps=6, batch_size=3, exit="oracle", count=7, seed=0, rounds=1, model="markov"
    )
    found = refill.measure(options, toy)
    assert found["saving"] == pytest.approx(found["refill"]["counted"])
    assert 1.0 <= found["barrier"]["counted"] <= found["saving"]
    assert "barrier" in capsys.readouterr().out


def test_a_verdict_of_equivalence(toy: Model, capsys: pytest.CaptureFixture[str]):
    cases = {name: Case("euler", "warped", 5, 4) for name in ("tested", "reference")}
    runs = dict.fromkeys(cases, euler(toy, 5))
    assert equivalence.compare(toy, cases, runs)["equivalent"]
    assert "verdict: equivalent" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure this machine's GPU")
def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert gpu.main() == 0
    assert capsys.readouterr().out.startswith("not measured: ")


def test_the_gpu_figures_run_at_toy_size(monkeypatch: pytest.MonkeyPatch):
    """Their logic, on the CPU: what a GPU alone can do is left to one."""
    size = {"width": 8, "blocks": 1, "heads": 2, "dim": 8, "vocab": 16, "length": 8}
    monkeypatch.setattr(gpu, "SIZE", size)
    monkeypatch.setattr(gpu, "WAYS", {"graph": Inference()})
    monkeypatch.setattr(gpu, "BF16", torch.float32)
    monkeypatch.setattr(gpu, "best", lambda call, rounds=1: float(bool(call())) or 1.0)
    cpu = torch.device("cpu")
    assert set(gpu.latency(cpu)) == {"graph"}
    assert gpu.refill(cpu)["saving"] == pytest.approx(64 / 36.85, rel=0.02)
    assert "refused" in gpu.vocabulary_step(cpu)["flash-cuda 8"]
    monkeypatch.setattr(gpu, "work", lambda parts, texts, batch, steps, graphs: _Done())
    assert gpu.utilisation(cpu, 1e9)["32"]["texts_per_second"] == 256.0


class _Done:
    def run(self) -> bool:
        return True
