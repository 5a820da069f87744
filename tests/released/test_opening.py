"""A released folder is opened exactly, or refused by the names of what is wrong with it."""

import json
import re
from io import StringIO

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from dlmkit import shown
from dlmkit.cli.app import main
from dlmkit.registry.lookup import Registry
from dlmkit.released.family import config_of, recognised


@pytest.fixture
def llada(golden):
    """A copy of LLaDA's golden folder, to be changed."""
    return golden("llada")


def change(folder, **tensors):
    """Change the weights: a tensor replaces, None removes, one without a name is added."""
    weights = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        weights.pop(name, None)
        if tensor is not None:
            weights[name] = tensor
    save_file(weights, folder / "model.safetensors")


def configure(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def refused(folder, capsys, code):
    assert main(["models", "verify", str(folder)]) == code
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


HEAD = "model.transformer.ff_out.weight"
NORM = "model.transformer.ln_f.weight"


def test_a_tensor_more_is_named(llada, capsys):
    change(llada, stray=torch.zeros(3))
    assert "1 unexpected (stray)" in refused(llada, capsys, 6)


def test_a_tensor_less_is_named(llada, capsys):
    change(llada, **{HEAD: None})
    assert f"1 missing ({HEAD})" in refused(llada, capsys, 6)


def test_a_tensor_of_another_shape_is_named(llada, capsys):
    change(llada, **{NORM: torch.ones(65)})
    assert f"1 of another shape ({NORM} 65, expected 64)" in refused(llada, capsys, 6)


def test_a_tensor_that_is_not_finite_is_named(llada, capsys):
    change(llada, **{NORM: torch.full((64,), torch.nan)})
    assert f"the tensor {NORM} holds 64 of 64 values" in refused(llada, capsys, 6)


def test_a_file_that_was_cut_is_named(llada, capsys):
    path = llada / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} cannot be read" in refused(llada, capsys, 6)


def test_tensors_in_the_wrong_places_differ_beyond_the_tolerance(llada, capsys):
    gate, up = (f"model.transformer.blocks.0.{name}.weight" for name in ("ff_proj", "up_proj"))
    weights = load_file(llada / "model.safetensors")
    change(llada, **{gate: weights[up], up: weights[gate]})
    assert main(["models", "verify", str(llada), "--json"]) == 8
    said = capsys.readouterr()
    content = json.loads(said.out)
    assert not content["agrees"]
    assert max(d["largest"] for d in content["differences"]) > 0.1
    assert "differs from its reference by more than 2e-05" in said.err


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prompt_ids": [[4000]]}, "index out of range"),
        ({"prompt_ids": [[1, 2], [3]]}, "ValueError"),
        ({"settings": None}, "expected an object, got None"),
    ],
)
def test_a_recorded_run_that_no_model_can_repeat_is_named(llada, capsys, keys, said):
    path = llada / "decoding.json"
    run = json.loads(path.read_text())["runs"][0]
    path.write_text(json.dumps({"runs": [run | keys]}))
    err = refused(llada, capsys, 6)
    assert f"{path}: the run {run['name']} cannot be computed: " in err
    assert said in err


def test_a_config_of_no_family_names_those_that_are_known(llada, capsys):
    configure(llada, model_type="gpt_bigcode", architectures=["Other"])
    err = refused(llada, capsys, 5)
    assert "no importer knows this model (model_type 'gpt_bigcode', architectures ['Other'])" in err
    assert "llada" in err.partition("families known are")[2]


@pytest.mark.parametrize("family", ["modernbert", "ssd-lm"])
def test_a_config_that_names_no_class_is_known_by_its_type(golden, family):
    config = config_of(golden(family))
    bare = {key: value for key, value in config.items() if key != "architectures"}
    registry = Registry.load(third_party=False)
    assert recognised(bare, registry) == recognised(config, registry) == [f"released:{family}"]
    assert recognised({**bare, "architectures": ["OfAnotherHead"]}, registry) == []


def test_a_key_that_the_family_does_not_support_is_named(llada, capsys):
    configure(llada, alibi=True)
    assert "released:llada cannot open this model: alibi: expected False" in refused(
        llada, capsys, 6
    )


def test_a_folder_without_config_or_weights_says_what_it_lacks(llada, capsys, tmp_path):
    assert "holds no config.json" in refused(tmp_path, capsys, 6)
    (llada / "model.safetensors").unlink()
    assert "holds no weights: expected model.safetensors" in refused(llada, capsys, 6)


def shard(folder, parts):
    """Replace the weights by shards of the named tensors and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {}
    for number, names in enumerate(parts(sorted(weights)), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, folder / file)
        index |= dict.fromkeys(names, file)
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def test_shards_are_one_model(llada, capsys):
    shard(llada, lambda names: (names[:9], names[9:]))
    assert main(["models", "verify", str(llada)]) == 0
    assert re.search(r"^base +logits +[0-9.e-]+$", capsys.readouterr().out, re.MULTILINE)


def test_a_tensor_in_two_shards_is_named(llada, capsys):
    shard(llada, lambda names: (names[:9], names[8:]))
    assert "does not hold what its index lists: they differ in model." in refused(llada, capsys, 6)


def test_an_index_may_not_name_files_elsewhere(llada, capsys):
    shard(llada, lambda names: (names[:9], names[9:]))
    path = llada / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("model-00001", "../model-00001"))
    assert "no file beside it" in refused(llada, capsys, 6)


def test_a_missing_shard_is_named(llada, capsys):
    shard(llada, lambda names: (names[:9], names[9:]))
    (llada / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refused(llada, capsys, 6)


def test_every_family_is_listed_with_what_it_was_made_for(capsys):
    assert main(["models", "known", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    llada = rows["released:llada"]
    assert {"name": "GSAI-ML/LLaDA-8B-Base", "parameters": 8015581184, "bytes": 16031162368} in (
        llada["models"]
    )
    assert all(row["verified"] and row["summary"] for row in rows.values())


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"rope_scaling": {"type": "default", "rope_theta": 1e6}},
    ],
)
def test_rotary_positions_are_read_as_either_transformers_writes_them(golden, keys, capsys):
    folder = golden("a2d-qwen3")
    configure(folder, rope_theta=1e4, **keys)
    assert main(["models", "verify", str(folder)]) == 0, capsys.readouterr().err


def test_what_is_read_shows_on_a_terminal_alone(llada, monkeypatch, capsys):
    assert main(["models", "verify", str(llada)]) == 0
    assert "loading" not in capsys.readouterr().err
    terminal = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(shown, "console", lambda **_: terminal)
    assert main(["models", "verify", str(llada)]) == 0
    assert re.search(r"loading .*308\.5/308\.5 kB", terminal.file.getvalue())
