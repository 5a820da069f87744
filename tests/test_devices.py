"""Which device is chosen: one place decides, and torch says what there is."""

import pytest
import torch

from dlmkit import devices
from dlmkit.errors import UsageError


def test_auto_is_the_accelerator_of_the_machine(accelerator: torch.device):
    assert devices.choose() == accelerator
    assert devices.choose("pretend") == accelerator
    assert devices.choose("cpu") == torch.device("cpu")
    assert devices.label(accelerator) == "pretend:0 (computes on the CPU)"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_auto_is_the_cpu_without_an_accelerator():
    assert devices.choose() == torch.device("cpu")
    assert devices.label(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", "", "cpu cuda"])
def test_a_device_that_cannot_be_used_is_refused_with_its_name(name: str):
    with pytest.raises(UsageError, match=f"--device {name}: torch"):
        devices.choose(name)


def test_a_process_of_torchrun_takes_its_own_device(
    accelerator: torch.device, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(devices, "_failure", lambda device, dtype: None)
    assert devices.choose() == torch.device("pretend", 3)


def test_an_accelerator_without_64_bit_floats_is_passed_over(
    accelerator: torch.device, monkeypatch: pytest.MonkeyPatch
):
    def failure(device: torch.device, dtype: torch.dtype) -> str | None:
        return "no float64" if dtype == torch.float64 else None

    monkeypatch.setattr(devices, "_failure", failure)
    assert devices.choose() == torch.device("cpu")
    with pytest.raises(UsageError, match="--device pretend: torch cannot use it here: no float64"):
        devices.choose("pretend")


def test_an_accelerator_that_fails_is_an_error_and_not_the_cpu(
    accelerator: torch.device, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(devices, "_failure", lambda device, dtype: "no driver")
    with pytest.raises(UsageError, match="--device auto: torch finds pretend:0 and cannot use it"):
        devices.choose()
