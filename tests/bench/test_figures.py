"""The script of one GPU's figures, where there is none."""

import gpu
import pytest
import torch

from dlmkit.sampling.inference import Inference


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
