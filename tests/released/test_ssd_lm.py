"""SSD-LM: its pickles, and what its network is easily taken wrong in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlmkit.cli.app import main
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import open_released

GOLDEN = Path(__file__).parent.parent / "golden" / "ssd-lm"
LAYERS = ("embed_sum_layer", "timestep_layer")


@pytest.fixture
def folder(golden):
    """As it was released: pickles, of which a wrapper put "module." in front of the names, and
    tensors that are tied or not needed."""
    folder = golden("ssd-lm", words=True)
    weights = load_file(folder / "model.safetensors")
    words = weights["roberta.embeddings.word_embeddings.weight"]
    weights |= {"lm_head.decoder.weight": words, "lm_head.decoder.bias": weights["lm_head.bias"]}
    weights["roberta.embeddings.position_ids"] = torch.arange(40)[None]
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for layer in LAYERS:
        held = torch.load(folder / f"{layer}.pt", weights_only=True)
        torch.save({f"module.{name}": t for name, t in held.items()}, folder / f"{layer}.pt")
    return folder


def test_it_is_imported_from_pickles_and_draws(folder, tmp_path, capsys):
    ours = tmp_path / "ours"
    assert main(["models", "verify", str(folder)]) == 0
    assert main(["sample", str(folder), "-n", "1"]) == 6
    assert "'dlmkit import --pickled" in capsys.readouterr().err
    assert main(["import", "--pickled", str(folder), "--out", str(ours)]) == 0
    words = ("--prompt", "w5 w7", "--length", "9", "--steps", "3")
    capsys.readouterr()
    assert main(["sample", str(ours), "-n", "1", *words]) == 0
    assert capsys.readouterr().out.startswith("w5 w7 ")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_is_missing_is_named(golden, capsys, layer):
    folder = golden("ssd-lm")
    (folder / f"{layer}.pt").unlink()
    assert main(["models", "verify", str(folder)]) == 6
    assert f"{layer}.pt is missing" in capsys.readouterr().err


def test_known_tokens_are_read_as_words_without_time():
    opened = open_released(GOLDEN, Registry.load(), dtype=torch.float32, pickled=True)
    objective = opened.assembly.objective.eval()
    ids = torch.tensor([[5, 9, 70]])
    x0 = objective.space.embed(ids)
    given = torch.tensor([[True, True, False]])
    level = Level(torch.tensor([0.6]), torch.tensor([0.8]))
    read = objective.space.corruption.input(x0, level)
    conditioning = Conditioning.of(read, given, torch.ones_like(given))
    fed = objective.network.embedded(read, level, conditioning)
    assert torch.equal(fed[:, :2], objective.space.words(ids[:, :2]))
    time = objective.network.timestep_layer(objective.schedule.inverse(level.ratio)[:, None])
    mean = (5.0 * x0[:, 2]).softmax(dim=-1) @ objective.space.table.weight
    assert torch.allclose(fed[:, 2], mean + time, atol=1e-5)
