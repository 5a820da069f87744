"""Memory that cannot be had is said before it is taken, with the arithmetic."""

import errno

import pytest
import torch

from dlmkit.cli.app import _known, main
from dlmkit.core import room
from dlmkit.errors import TooLargeError, UsageError
from dlmkit.model import compose
from dlmkit.training import needs


def parts(**more):
    return {
        "data": "grammar",
        "schedule": "time-warp-table",
        "space": {"use": "normalised", "with": {"dim": 8}},
        "network": {"use": "transformer", "with": {"width": 16, "heads": 2, "blocks": 1}},
        "masking": "none",
        "objective": "score-interpolation",
        "length": 16,
        "train": {"steps": 1},
        **more,
    }


def test_a_tensor_that_does_not_fit_is_refused_before_it_is_allocated():
    with room.reckoned("network x"), pytest.raises(TooLargeError) as raised:
        torch.empty(1 << 20, 1 << 20)
    assert "network x takes 1,048,576 x 1,048,576 x 4 bytes: 4.0 TiB of memory" in str(raised.value)
    with room.reckoned("network x"):
        assert torch.empty(1 << 20, 1 << 20, device="meta").shape == (1 << 20, 1 << 20)


def test_many_tensors_that_do_not_fit_together_are_refused(monkeypatch):
    """Each fits; what is free falls as they fill."""
    there = iter([200 << 20, 100 << 20, 10 << 20])
    monkeypatch.setattr(room, "free", lambda: next(there))
    made = []
    with room.reckoned("x"), pytest.raises(TooLargeError, match=r"16\.0 MiB.*10\.0 MiB are free"):
        made += [torch.empty(4 << 20) for _ in range(100)]
    assert next(there, None) is None


def test_looking_changes_no_value():
    torch.manual_seed(3)
    plain = torch.nn.Linear(5, 7)
    torch.manual_seed(3)
    with room.reckoned("x"):
        looked = torch.nn.Linear(5, 7)
    assert torch.equal(plain.weight, looked.weight)
    assert torch.equal(plain.bias, looked.bias)


def test_a_model_that_does_not_fit_is_refused_when_it_is_composed():
    wide = {"use": "transformer", "with": {"width": 1_000_000, "heads": 125_000, "blocks": 1}}
    with pytest.raises(TooLargeError, match=r"network cdcd:transformer takes [\d, x]+ bytes: "):
        compose(**parts(network=wide))


@pytest.mark.parametrize(
    ("there", "batch", "words"),
    [(1 << 10, 4, "gradients, AdamW's two moments"), (64 << 20, 16_384, "activations")],
)
def test_a_run_that_does_not_fit_ends_before_its_first_step(
    there, batch, words, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(needs, "free", lambda: there)
    sets = ["network.with.width=24", "network.with.blocks=1", f"train.batch_size={batch}"]
    words_of = ["train", "ddlm_grammar", "--out", str(tmp_path / "run")]
    assert main([*words_of, *(word for item in sets for word in ("--set", item))]) == 3
    said = capsys.readouterr().err
    assert words in said
    assert "are free: take smaller sizes" in said


def test_what_is_free_is_less_than_the_machine_has():
    assert 0 < room.free() < 2**50


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("Unable to allocate 7 TiB"), TooLargeError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), TooLargeError),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), TooLargeError),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 9999), UsageError),
        (RuntimeError("something else"), RuntimeError),
        (OSError(errno.EIO, "I/O error", "x"), OSError),
    ],
)
def test_what_the_system_says_of_memory_and_names_is_known(error, kind):
    known = _known(error)
    assert type(known) is kind
    assert len(str(known)) < 500
