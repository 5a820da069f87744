"""What MDLM, DUO, SEDD and BD3-LM are easily taken wrong in."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlmkit.cli.app import main
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import open_released

GOLDEN = Path(__file__).parent.parent / "golden"


def opened(family):
    found = open_released(GOLDEN / family, Registry.load(), dtype=torch.float32)
    found.assembly.objective.eval()
    return found


def logits(family, ids, share, attend=None):
    objective = opened(family).assembly.objective
    attend = torch.ones_like(ids, dtype=torch.bool) if attend is None else attend
    level = Level(1.0 - share, share)
    x = objective.space.corruption.input(ids, level)
    conditioning = Conditioning.of(x, torch.zeros_like(attend), attend)
    with torch.no_grad():
        return objective.network(x, level, conditioning, torch.zeros_like(x))


IDS = torch.arange(24).view(2, 12) % 80


@pytest.mark.parametrize(
    ("family", "reads"), [("mdlm", False), ("bd3lm", False), ("duo", True), ("sedd", True)]
)
def test_time_is_read_by_those_that_were_trained_so(family, reads):
    low, high = (logits(family, IDS, torch.full((2,), share)) for share in (0.2, 0.9))
    assert torch.equal(low, high) != reads
    assert opened(family).assembly.objective.network.reads_level == reads


def test_the_time_is_the_total_noise():
    case = load_file(GOLDEN / "sedd" / "cases.safetensors")
    ids, sigma = case["base.input_ids"], case["base.sigma"]
    ours = logits("sedd", ids, 1.0 - torch.exp(-sigma.double()))
    assert (ours - case["base.logits"]).abs().max() < 2e-5


@pytest.mark.parametrize("family", ["mdlm", "bd3lm", "sedd", "duo"])
def test_nothing_depends_on_padding(family):
    attend = torch.arange(12).expand(2, 12) < torch.tensor([[12], [7]])
    share = torch.full((2,), 0.5)
    changed = torch.where(attend, IDS, 3)
    one, two = (logits(family, ids, share, attend)[attend] for ids in (IDS, changed))
    assert torch.equal(one, two)
    assert torch.allclose(one[12:], logits(family, IDS[1:, :7], share[1:])[0], atol=1e-5)


def test_a_block_sees_itself_and_what_comes_before():
    share = torch.full((2,), 0.5)
    before = logits("bd3lm", IDS, share)
    for changed in (4, 7):  # of the second block of four
        ids = IDS.clone()
        ids[:, changed] = 60
        moved = (logits("bd3lm", ids, share) != before).any(dim=-1)[0]
        assert moved.tolist() == [False] * 4 + [True] * 8


def changed(family, tmp_path, **keys):
    folder = Path(shutil.copytree(GOLDEN / family, tmp_path / family))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))
    return folder


def test_a_config_may_say_that_the_time_is_read(tmp_path):
    folder = changed("mdlm", tmp_path, time_conditioning=True)
    assert main(["models", "verify", str(folder)]) == 8


@pytest.mark.parametrize(
    ("family", "keys", "said"),
    [
        ("mdlm", {"causal": True}, "causal"),
        ("bd3lm", {"adaln": False}, "adaln"),
        ("bd3lm", {"block_size": None}, "block_size"),
        ("mdlm", {"n_heads": 3}, "n_heads: 3 heads do not divide 64 channels"),
        ("mdlm", {"mask_token_id": 90}, "the mask's id is 90, and the table of tokens has 90 rows"),
        ("sedd", {"graph": {"type": "uniform"}}, "graph.type: expected"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_its_key(family, keys, said, tmp_path, capsys):
    folder = changed(family, tmp_path, **keys)
    assert main(["models", "verify", str(folder)]) == 6
    assert said in capsys.readouterr().err


def test_rotary_frequencies_of_another_base_are_refused(tmp_path, capsys):
    folder = changed("mdlm", tmp_path)
    path, name = folder / "model.safetensors", "backbone.rotary_emb.inv_freq"
    weights = load_file(path)
    save_file(weights | {name: weights[name].sqrt()}, path)
    assert main(["models", "verify", str(folder)]) == 6
    assert f"1 other than what this model computes ({name})" in capsys.readouterr().err


def test_duo_is_drawn_by_the_posterior_of_its_uniform_state():
    recipe = opened("duo").assembly.config
    assert recipe.sampler.use == "uniform:posterior"
    assert recipe.space.use == "uniform:states"
    assert opened("duo").conversion.mask is None


def test_raw_weights_beside_their_moving_average_are_refused(tmp_path, capsys):
    folder = changed("mdlm", tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    held = {"state_dict": weights, "ema": {"decay": 0.9999, "shadow_params": []}}
    torch.save(held, folder / "mdlm.ckpt")
    assert main(["models", "verify", str(folder)]) == 6
    assert "weights and their moving average (ema)" in capsys.readouterr().err
