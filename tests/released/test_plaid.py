"""Plaid: its four files, and what its parts are easily taken wrong in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlmkit.cli.app import main
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import open_released

GOLDEN = Path(__file__).parent.parent / "golden" / "plaid"
FILES = ("model", "noise_schedule", "gamma_bounds", "embedding_matrix")


@pytest.fixture
def pickled(golden):
    """The folder as it was released: a state dict a file."""
    folder = golden("plaid", words=True)
    weights = load_file(folder / "model.safetensors")
    for file in FILES:
        names = {name.removeprefix(f"{file}."): t for name, t in weights.items() if file in name}
        torch.save(names, folder / f"{file}.pt")
    (folder / "model.safetensors").unlink()
    return folder


def test_four_pickles_are_one_model(pickled, capsys, tmp_path):
    assert main(["models", "verify", str(pickled)]) == 0
    assert main(["sample", str(pickled), "-n", "1"]) == 6
    assert f"'dlmkit import --pickled {pickled} --out DIR'" in capsys.readouterr().err
    ours = tmp_path / "ours"
    assert main(["import", "--pickled", str(pickled), "--out", str(ours)]) == 0
    assert main(["sample", str(ours), "-n", "1", "--steps", "3"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("file", FILES)
def test_a_pickle_that_is_missing_is_named(pickled, capsys, file):
    (pickled / f"{file}.pt").unlink()
    assert main(["models", "verify", str(pickled)]) == 6
    assert f"{file}.pt is missing" in capsys.readouterr().err


@pytest.fixture(scope="module")
def objective():
    return open_released(GOLDEN, Registry.load(), dtype=torch.float32).assembly.objective.eval()


def predicted(objective, z, attend, given=None, ids=None):
    level = Level.preserving(torch.tensor([0.5, 0.5], dtype=torch.float64))
    given = torch.zeros_like(attend) if given is None else given
    x0 = torch.zeros_like(z) if ids is None else objective.space.embed(ids)
    conditioning = Conditioning.of(x0, given, attend)
    with torch.no_grad():
        denoise = objective.denoise()
        return denoise(z, level, denoise.start(z), conditioning)


def test_the_points_have_norm_1(objective):
    assert torch.allclose(objective.space.points().norm(dim=1), torch.ones(77))


def test_the_schedule_begins_and_ends_where_its_file_says(objective):
    weights = load_file(GOLDEN / "model.safetensors")
    level = objective.schedule.level(torch.tensor([0.0, 1.0]))
    gamma = 2.0 * (level.sigma / level.alpha).log()
    ends = torch.stack([weights[f"gamma_bounds.gamma_{end}"] for end in (0, 1)])
    assert torch.allclose(gamma, ends, atol=1e-5)


def test_nothing_depends_on_padding(objective):
    z = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    attend = torch.arange(12).expand(2, 12) < torch.tensor([[12], [7]])
    one = predicted(objective, z, attend).query[attend]
    two = predicted(objective, torch.where(attend[..., None], z, 1.0), attend).query[attend]
    assert torch.equal(one, two)


def test_a_known_token_is_read_and_not_the_noise_in_its_place(objective):
    z = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    attend, given = torch.ones(2, 12, dtype=torch.bool), torch.zeros(2, 12, dtype=torch.bool)
    given[:, 3] = True
    noised = ~given

    def elsewhere(z, token):
        ids = torch.full((2, 12), token)
        return predicted(objective, z, attend, given, ids).query[noised]

    other = torch.where(given[..., None], 1.0, z)
    assert torch.equal(elsewhere(z, 5), elsewhere(other, 5))
    assert not torch.allclose(elsewhere(z, 5), elsewhere(z, 6), atol=1e-3)
