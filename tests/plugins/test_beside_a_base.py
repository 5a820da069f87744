"""An exported folder of adapters alone: the model that they stand beside is read from elsewhere."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

import dlmkit
from dlmkit.cli.app import main
from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import verify
from dlmkit.training.state import named_tensors

pytest.importorskip("peft", reason="peft is not installed: pip install 'dlmkit[lora]'")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def words(*overrides):
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture(scope="module", params=["smollm2_diffusion_tiny", "a2d_smollm2_tiny"])
def trained(request, tmp_path_factory):
    """(the folder of a base, a run that adapts it)."""
    folder = tmp_path_factory.mktemp("beside")
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SIZES, vocab_size=48)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    overrides = words(
        f"network.with.name={folder / 'base'}",
        "network.with.architecture=null",
        "network.with.lora={rank: 4}",
        "train.steps=3",
        "sample.steps=64",
    )
    assert main(["train", request.param, "--out", str(folder / "run"), *overrides]) == 0
    return folder / "base", folder / "run"


@pytest.fixture(scope="module")
def adapters(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapters") / "out"
    assert main(["export", str(trained[1]), str(out), "--base", str(trained[0])]) == 0
    return out


def tensors(reference, *overrides):
    return named_tensors(dlmkit.load(reference, *overrides).assembly.objective)


def test_the_folder_holds_what_was_trained_alone_and_is_the_run_s_model(trained, adapters):
    base, run = trained
    stored = load_file(adapters / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(".lora_" in name or ".following." in name for name in stored)
    assert not (adapters / "encoder.json").exists()
    assert json.loads((adapters / "config.json").read_text())["base"] == str(base)
    whole, beside = tensors(run), tensors(adapters)
    assert whole.keys() == beside.keys() > stored.keys()
    for name, tensor in whole.items():
        expected = tensor.half().float() if name in stored else tensor
        assert torch.equal(beside[name], expected), name


def test_the_base_may_lie_elsewhere(trained, adapters, tmp_path, capsys):
    other, moved = tmp_path / "base", tmp_path / "adapters"
    shutil.copytree(trained[0], other)
    assert main(["export", str(trained[1]), str(moved), "--base", "nobody/nothing"]) == 0
    with pytest.raises(
        DataError, match=r"nobody/nothing cannot be had: .*(.|\n)*network.with.name"
    ):
        dlmkit.load(moved)
    here, there = tensors(adapters), tensors(moved, f"network.with.name={other}")
    assert all(torch.equal(here[name], tensor) for name, tensor in there.items())
    capsys.readouterr()
    drawn = []
    for asked in ([str(adapters)], [str(moved), *words(f"network.with.name={other}")]):
        assert main(["sample", *asked, "--prompt", "what", "-n", "1", "--json"]) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1]


def test_it_is_exported_whole_again(trained, adapters, tmp_path):
    out = tmp_path / "whole"
    assert main(["export", str(adapters), str(out)]) == 0
    assert "base" not in json.loads((out / "config.json").read_text())
    trained[0].rename(away := tmp_path / "away")
    try:
        assert dlmkit.load(out, "sample.batch_size=1").sample(1, seed=3)
    finally:
        away.rename(trained[0])


def test_a_base_whose_tensors_do_not_fit_is_refused(trained, adapters, tmp_path):
    config = AutoConfig.for_model("llama", **{**SIZES, "num_hidden_layers": 1}, vocab_size=48)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match="tensors differ in name, shape or dtype"):
        dlmkit.load(adapters, f"network.with.name={tmp_path / 'base'}")


def test_what_has_no_base_has_none_to_leave_out_or_to_name(tmp_path):
    with pytest.raises(UsageError, match="'network' belongs to what was trained"):
        dlmkit.load("ddlm-mini", "network.with.name=x")
    assert main(["export", "ddlm-mini", str(tmp_path / "out"), "--base", "x"]) == 2
    assert main(["export", "ddlm-mini", str(tmp_path / "out"), "--base", ""]) == 2
    assert not (tmp_path / "out").exists()


def test_the_adapters_that_ship_are_of_the_right_size_and_want_their_base(capsys):
    folder = Registry.load(third_party=False).model("smollm2-diffusion").path
    verify(folder)
    assert (folder / "model.safetensors").stat().st_size < 10e6
    layers = 30 * 7  # of SmolLM2-135M
    stored = load_file(folder / "model.safetensors")
    assert sum(".lora_A." in name for name in stored) == layers
    assert sum(tensor.numel() for tensor in stored.values()) == 3_438_720
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())
    assert main(["sample", "smollm2-diffusion", "--set", "network.with.name=/nowhere"]) == 5
    said = capsys.readouterr().err
    assert "the model /nowhere cannot be had" in said
    assert "--set network.with.name=DIR" in said
    assert "Traceback" not in said
