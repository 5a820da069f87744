"""Training starts from the weights of a model that exists, exactly, or not at all."""

import json
import shutil

import pytest
import torch

import dlmkit
from dlmkit.cli.app import main
from dlmkit.errors import CheckpointError, RecipeError
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import converted, open_released

TRAIN = {"steps": 1, "batch_size": 2, "warmup_steps": 0}


@pytest.fixture
def llada(golden):
    folder = golden("llada", words=True)
    roles = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    roles["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder


def recipe(folder, **changes):
    """The recipe of the model in ``folder``, with text."""
    said = dict(converted(folder, Registry.load())[2].recipe)
    text = folder.parent / "text.txt"
    text.write_text("\n\n".join(f"w1 w2 w{n % 90} w3 w4 w5" for n in range(90)))
    tokenizer = {"kind": "pretrained", "name": str(folder)}
    data = {
        "use": "text",
        "with": {"paths": [str(text)], "tokenizer": tokenizer, "validation": 0.3},
    }
    more = {"masking": {"use": "cdcd:none"}, "train": {**TRAIN, "start_from": str(folder)}}
    return {**said, "length": 8, "data": data, **more, **changes}


def tensors(model):
    """Those that a model without adapters has, under the names that it gives them."""
    named = model.assembly.objective.state_dict().items()
    return {n.replace(".base_layer.", "."): t for n, t in named if ".lora_" not in n}


def released(folder):
    opened = open_released(folder, Registry.load(), dtype=torch.float32)
    return opened.assembly.objective.state_dict()


def same(some, others):
    return some.keys() == others.keys() and all(torch.equal(t, others[n]) for n, t in some.items())


def test_a_released_model_s_weights_are_those_that_training_starts_from(llada):
    model = dlmkit.compose(**recipe(llada))
    expected = released(llada)
    assert all(
        torch.equal(expected[n], t) for n, t in model.assembly.objective.state_dict().items()
    )
    fresh = dlmkit.compose(**recipe(llada, train=TRAIN))
    assert not torch.equal(fresh.assembly.space.table.weight, model.assembly.space.table.weight)


def test_a_run_starts_from_it_and_goes_on_from_its_own_checkpoint(llada, tmp_path, capsys):
    path, run = tmp_path / "mine.yaml", tmp_path / "run"
    slow = {**TRAIN, "learning_rate": 1e-30, "weight_decay": 0.0, "start_from": str(llada)}
    path.write_text(json.dumps(recipe(llada, train={**slow, "steps": 2, "stop_after": 1})))
    assert main(["train", str(path), "--out", str(run)]) == 0
    assert same(tensors(dlmkit.load(run)), released(llada))
    (llada / "model.safetensors").unlink()  # a resume has no need of it
    override = ["--set", "train.stop_after=null"]
    assert main(["train", str(path), "--out", str(run), "--resume", "auto", *override]) == 0
    capsys.readouterr()


def test_a_folder_of_dlmkit_is_a_start_too(llada, tmp_path, capsys):
    imported = tmp_path / "imported"
    assert main(["import", str(llada), "--out", str(imported)]) == 0
    capsys.readouterr()
    model = dlmkit.compose(**recipe(llada, train={**TRAIN, "start_from": str(imported)}))
    expected = tensors(dlmkit.load(imported))
    assert all(
        torch.equal(expected[n], t) for n, t in model.assembly.objective.state_dict().items()
    )


def test_what_the_base_s_recipe_says_must_be_said(llada):
    said = recipe(llada)
    said["network"]["with"]["architecture"]["rms_norm_eps"] = 0.1
    with pytest.raises(RecipeError, match=r"architecture\.rms_norm_eps: .* -> 0\.1"):
        dlmkit.compose(**said)


def test_another_tokenizer_is_refused(llada, tmp_path):
    other = shutil.copytree(llada, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"w3"', '"w_"').replace('"w4"', '"w3"'))
    said = recipe(llada)
    said["data"]["with"]["tokenizer"]["name"] = str(other)
    with pytest.raises(RecipeError, match=r"has another tokenizer than data.with.tokenizer"):
        dlmkit.compose(**said)


def test_a_word_that_is_no_model_is_refused(llada):
    said = recipe(llada, train={**TRAIN, "start_from": "nothing here"})
    with pytest.raises(CheckpointError, match=r"train.start_from: nothing here is no folder"):
        dlmkit.compose(**said)


def test_adapters_stand_beside_the_base_s_weights_and_are_merged_on_export(llada, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed: pip install 'dlmkit[lora]'")
    said = recipe(llada, train={**TRAIN, "start_from": str(llada), "learning_rate": 0.1})
    said["network"]["with"]["lora"] = {"rank": 2}
    model = dlmkit.compose(**said)
    assert same(tensors(model), released(llada))
    list(model.train())
    assert same(tensors(model), released(llada))
    model.save(tmp_path / "out")
    whole = dlmkit.load(tmp_path / "out")
    assert whole.config.network.options["lora"] is None
    assert set(whole.assembly.objective.state_dict()) == set(released(llada))
    ids = torch.arange(8)[None]
    with torch.no_grad():
        one, other = (
            m.assembly.network.logits(m.assembly.space.table(ids), None) for m in (model, whole)
        )
    assert (one - other).abs().max() < 1e-4
    assert model.assembly.network.adapted
