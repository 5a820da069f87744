"""Attention backends: parity with a plain softmax, padding, and refusal with reasons."""

import sys

import pytest
import torch

from dlmkit.errors import PluginError
from dlmkit.kernels.attention import BACKENDS, Flex, Sdpa, probe, reference, resolve_attention

CPU = torch.device("cpu")


def heads(seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 4, 2, 9, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_reference_is_softmax_attention_written_out() -> None:
    q, k, v = heads()
    attend = torch.arange(9) < torch.tensor([9, 1, 4, 7])[:, None]
    mixed = reference(q, k, v, attend)
    for row, count in enumerate((9, 1, 4, 7)):
        weights = torch.exp(torch.einsum("hqc,hkc->hqk", q[row], k[row, :, :count]) / 8**0.5)
        expected = torch.einsum("hqk,hkc->hqc", weights, v[row, :, :count])
        torch.testing.assert_close(mixed[row], expected / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("backend", [Sdpa, Flex])
@pytest.mark.parametrize("padded", [False, True])
def test_backends_agree_with_the_reference(backend: type, padded: bool) -> None:
    q, k, v = heads(1)
    attend = torch.arange(9) < torch.tensor([9, 1, 4, 7])[:, None] if padded else None
    torch.testing.assert_close(backend(CPU)(q, k, v, attend), reference(q, k, v, attend))


def test_padding_cannot_be_seen() -> None:
    q, k, v = heads(2)
    attend = torch.arange(9) < torch.tensor([5, 5, 5, 5])[:, None]
    other_k, other_v = k.clone(), v.clone()
    other_k[:, :, 5:], other_v[:, :, 5:] = 7.0, -3.0
    attention = resolve_attention("auto", CPU, torch.float64, 8)
    assert torch.equal(attention(q, k, v, attend), attention(q, other_k, other_v, attend))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_auto_is_sdpa_and_works(dtype: torch.dtype) -> None:
    attention = resolve_attention("auto", CPU, dtype, 16)
    assert attention.name == "sdpa"
    assert "cpu" in attention.kernel


class ForwardAlone(Sdpa):
    """Attends as it should and has no backward pass."""

    name = "forward-alone"

    def forward(self, q, k, v, attend):
        return super().forward(q, k, v, attend).detach()


def test_a_named_backend_that_cannot_train_here_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BACKENDS, "flex", ForwardAlone)  # torch's own: by its version
    with pytest.raises(PluginError, match=r"flex does not work on cpu.*require grad(?s:.*)auto"):
        resolve_attention("flex", CPU, torch.float32, 16)


def test_a_missing_package_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    with pytest.raises(PluginError, match=r"dlmkit\[xformers\]") as error:
        resolve_attention("xformers", CPU, torch.float32, 16)
    assert error.value.exit_code == 4


class Wrong(Sdpa):
    """Attends to padding."""

    def forward(self, q, k, v, attend):  # type: ignore[no-untyped-def]
        return super().forward(q, k, v, None)


def test_the_probe_notices_a_backend_that_ignores_padding() -> None:
    with pytest.raises(RuntimeError, match="differs from plain softmax"):
        probe(Wrong(CPU), CPU, torch.float32, 16)
