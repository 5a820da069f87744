"""The pretend accelerator behaves as CUDA does: what mixes, what waits, what is copied."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dlmkit.testing import pretend

FACTORIES: dict[str, Callable[[torch.device], Tensor]] = {
    "tensor": lambda d: torch.tensor([1.0, 2.0], device=d),
    "as_tensor": lambda d: torch.as_tensor([1, 2], device=d),
    "arange": lambda d: torch.arange(3, device=d),
    "linspace": lambda d: torch.linspace(0, 1, 3, device=d),
    "logspace": lambda d: torch.logspace(0, 1, 3, device=d),
    "arange of floats": lambda d: torch.arange(0.5, 2.0, 0.5, device=d),
    "eye": lambda d: torch.eye(3, device=d),
    "full": lambda d: torch.full((2,), 3.0, device=d),
    "zeros": lambda d: torch.zeros(2, device=d),
    "scalar_tensor": lambda d: torch.scalar_tensor(2.0, device=d),
    "tril_indices": lambda d: torch.tril_indices(2, 2, device=d),
    "hann_window": lambda d: torch.hann_window(4, device=d),
    "randperm": lambda d: torch.randperm(5, device=d),
    "randint": lambda d: torch.randint(9, (3,), device=d),
    "rand": lambda d: torch.rand(3, device=d),
    "generator": lambda d: torch.randn(3, device=d, generator=torch.Generator(d).manual_seed(3)),
    "zeros_like": lambda d: torch.zeros_like(torch.ones(2), device=d),
    "new_tensor": lambda d: torch.ones(2, device=d).new_tensor([1, 2]),
    "new_zeros": lambda d: torch.ones(2, device=d).new_zeros(3),
    "new_full": lambda d: torch.ones(2, device=d).new_full((3,), 2),
    "new_ones": lambda d: torch.ones(2, device=d).new_ones(3),
    "to": lambda d: torch.ones(2).to(d),
    "type": lambda d: torch.ones(2, device=d).to(torch.float64),
    "pickled": lambda d: pickle.loads(pickle.dumps(torch.ones(2, device=d))),
    "copied": lambda d: copy.deepcopy(torch.ones(2, device=d)),
}


@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)
def test_what_is_made_on_the_device_is_there_and_holds_the_cpus_numbers(
    make: Callable[[torch.device], Tensor], accelerator: torch.device
):
    torch.manual_seed(0)
    expected = make(torch.device("cpu"))
    torch.manual_seed(0)
    made = make(accelerator)
    assert made.device == accelerator
    assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(made.cpu(), expected)


def test_tensors_are_made_under_a_dispatch_mode_too(accelerator: torch.device):
    with FlopCounterMode(display=False):
        made = torch.tensor([[1], [2]], device=accelerator)
    assert made.tolist() == [[1], [2]]


def test_a_view_shares_its_storage_and_a_copy_does_not(accelerator: torch.device):
    x = torch.ones(4, device=accelerator)
    held = [t.untyped_storage().data_ptr() for t in (x, x[1:], x.clone())]
    assert held[0] == held[1] != held[2]


def test_a_parameter_of_two_modules_stays_one_when_they_are_moved(accelerator: torch.device):
    table, head, plain = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False), nn.Linear(3, 5)
    head.weight = table.weight
    both = nn.ModuleList([table, nn.Sequential(plain, head)])
    numbers = table.weight.detach().clone()
    for device in (accelerator, torch.device("cpu"), accelerator):
        both.to(device)
        assert head.weight is table.weight
        assert head.weight is not plain.weight
        assert (head.weight.device, len(list(both.parameters()))) == (device, 3)
    assert torch.equal(head.weight.detach().cpu(), numbers)


def test_a_device_context_makes_tensors_there(accelerator: torch.device):
    with accelerator:
        made = [torch.tensor([1.0]), torch.arange(3), torch.zeros(2), torch.linspace(0, 1, 3)]
    assert {tensor.device for tensor in made} == {accelerator}


MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda x, y: x + y,
    "in place": lambda x, y: y.add_(x),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "cat": lambda x, y: torch.cat([x, y]),
    "matmul": lambda x, y: x @ y,
    "gather": lambda x, y: x.gather(0, y.long()),
    "a CPU tensor by an index of the device": lambda x, y: y[x.long()],
    "assigned values": lambda x, y: x.index_put((torch.arange(3),), y),
    "searchsorted": lambda x, y: torch.searchsorted(y, x),
    "equal": torch.equal,
    "0-dim in cat": lambda x, y: torch.stack([x[0], y[0]]),
    "attention": lambda x, y: F.scaled_dot_product_attention(
        *(t.expand(1, 1, 3, 3) for t in (x, x)), y.expand(1, 1, 3, 3)
    ),
    "generator": lambda x, y: torch.rand(3, device=x.device, generator=torch.Generator()),
    "numpy": lambda x, y: x.numpy(),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_tensors_of_two_devices_do_not_meet(
    mix: Callable[[Tensor, Tensor], object], accelerator: torch.device
):
    with pytest.raises((RuntimeError, TypeError)):
        mix(torch.ones(3, device=accelerator), torch.ones(3))


def test_the_message_says_what_met_what(accelerator: torch.device):
    with pytest.raises(pretend.MixedDevices, match=r"aten::add got \(3,\) on pretend:0, \(2, 3\)"):
        torch.ones(3, device=accelerator) + torch.ones(2, 3)


def test_as_on_cuda_scalars_and_indices_of_the_cpu_mix_in(accelerator: torch.device):
    x = torch.ones(3, device=accelerator)
    assert (x + torch.tensor(2.0)).tolist() == [3.0] * 3
    assert x[torch.tensor([0, 1])].tolist() == [1.0] * 2
    x[1:] = torch.zeros(2)
    assert x.tolist() == [1.0, 0.0, 0.0]


COUNTED: dict[str, tuple[Callable[[Tensor], object], tuple[int, int, int]]] = {
    "a launch": (lambda x: x + 1, (1, 0, 0)),
    "views are free": (lambda x: x[1:].view(1, -1).expand(2, -1).T, (0, 0, 0)),
    "an empty tensor is free": (torch.empty_like, (0, 0, 0)),
    "made of numbers": (lambda x: torch.tensor([1.0], device=x.device), (0, 1, 1)),
    "filled with a number": (lambda x: torch.full((3,), 1.0, device=x.device), (1, 0, 0)),
    "item": (lambda x: x[0].item(), (0, 1, 0)),
    "as a condition": (lambda x: bool(x[0]), (0, 1, 0)),
    "tolist": (lambda x: x.tolist(), (0, 1, 1)),
    "to the CPU": (lambda x: x.cpu(), (0, 1, 1)),
    "to the CPU, later": (lambda x: x.to("cpu", non_blocking=True), (0, 0, 1)),
    "another type": (lambda x: x.double(), (1, 0, 0)),
    "nonzero": (lambda x: x.nonzero(), (1, 1, 0)),
    "a boolean index": (lambda x: x[x > 0], (2, 1, 0)),
    "an index of the CPU": (lambda x: x[torch.tensor([1])], (1, 1, 1)),
    "where with a number": (lambda x: torch.where(x > 0, x, 0.0), (3, 0, 0)),
    "where with a 0-dim CPU tensor": (
        lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
        (2, 1, 1),
    ),
    "masked_fill with a number": (lambda x: x.masked_fill(x > 0, 0.0), (2, 0, 0)),
    "synchronize": (lambda x: torch.accelerator.synchronize(), (0, 1, 0)),
}


@pytest.mark.parametrize(("call", "expected"), COUNTED.values(), ids=COUNTED)
def test_launches_waits_and_copies_are_counted(
    call: Callable[[Tensor], object], expected: tuple[int, int, int], accelerator: torch.device
):
    x = torch.ones(3, device=accelerator)
    with pretend.counted() as seen:
        call(x)
    call(x)
    assert (seen.launches, seen.waits, seen.copies) == expected


def test_sites_say_where(accelerator: torch.device):
    x = torch.ones(3, device=accelerator, requires_grad=True)
    with pretend.counted(sites=True) as seen:
        x.sum().backward()
        float(x.detach()[0])
    assert seen.sites is not None
    (wait,) = (site for site in seen.sites if site.kind == "wait")
    assert (wait.file, wait.function) == (__file__, "test_sites_say_where")
    assert str(seen).splitlines()[0] == f"{seen.launches} launches, 1 waits, 0 copies"
    assert "backward" in str(seen)
    assert sum(seen.at("launch").values()) == seen.launches


def _trained(device: torch.device | str, how: str) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).to(device)
    averaged = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=how == "fused")
    x = torch.randn(4, 7, 16, generator=torch.Generator().manual_seed(1)).to(device)
    attend = (torch.arange(7) < torch.tensor([[7], [5], [3], [7]])).to(device)

    def forward(x: Tensor) -> Tensor:
        out: Tensor = model(x, src_key_padding_mask=~attend)
        return out

    for _ in range(2):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=how == "autocast"):
            y = checkpoint(forward, x, use_reentrant=False) if how == "checkpoint" else forward(x)
            loss = y[attend].float().square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_([*averaged.parameters()], [*model.parameters()], 0.1)
    return [p.detach().cpu() for p in (*model.parameters(), *averaged.parameters())]


@pytest.mark.parametrize("how", ["plain", "fused", "checkpoint", "autocast"])
def test_training_gives_the_cpus_weights_bit_for_bit(how: str, accelerator: torch.device):
    expected, found = _trained("cpu", how), _trained(accelerator, how)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_autocast_casts_as_cudas(accelerator: torch.device):
    x = torch.ones(2, 2, device=accelerator)
    with torch.autocast(accelerator.type, torch.bfloat16):
        low = x @ x
        assert low.dtype == torch.bfloat16
        assert low.softmax(dim=-1).dtype == torch.float32
        assert torch.cat([low, x]).dtype == torch.float32
        assert (x.double() + 1).dtype == torch.float64


def test_attention_is_one_launch(accelerator: torch.device):
    q = torch.ones(1, 1, 4, 8, device=accelerator)
    with pretend.counted() as seen:
        F.scaled_dot_product_attention(q, q, q)
    assert seen.launches == 1


def test_blocks_nest(accelerator: torch.device):
    with pretend.accelerator():
        pass
    assert torch.accelerator.is_available()


AFTER = """
import torch
torch.ones(1, requires_grad=True).sum().backward()
from dlmkit.testing import pretend
try:
    pretend.set_up()
except RuntimeError as error:
    assert "before the first backward pass" in str(error), error
    assert not torch.accelerator.is_available()
    (torch.ones(1, requires_grad=True) * 2).sum().backward()
    print("said")
"""

HIDDEN = """
import torch
from dlmkit.testing import pretend
before = torch.arange, torch.tensor, torch.Generator
pretend.set_up()
assert not torch.accelerator.is_available()
assert before == (torch.arange, torch.tensor, torch.Generator)
with pretend.accelerator():
    assert torch.accelerator.is_available()
assert not torch.accelerator.is_available() and torch.Generator is before[2]
print("said")
"""


@pytest.mark.parametrize("program", [AFTER, HIDDEN], ids=["too late", "hidden"])
def test_a_process_of_its_own(program: str):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "said\n", done.stderr
