"""Of every family: a tensor more, less, of another shape or in another's place is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlmkit.cli.app import main

GOLDEN = Path(__file__).parent.parent / "golden"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir())
UNUSED = ("sampling_eps_min", "sampling_eps_max")


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / request.param))


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def refused(folder, weights, capsys):
    save_file(weights, folder / "model.safetensors")
    assert main(["models", "verify", str(folder)]) == 6
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_tensor_too_many_is_named(folder, capsys):
    assert "1 unexpected (stray)" in refused(
        folder, weights_of(folder) | {"stray": torch.zeros(2)}, capsys
    )


def test_every_tensor_that_is_missing_is_named(folder, capsys):
    weights = weights_of(folder)
    names = [n for n in weights if n not in UNUSED and not n.endswith("inv_freq")]
    kept = {name: weights[name] for name in weights if name != names[0]}
    assert f"1 missing ({names[0]})" in refused(folder, kept, capsys)
    assert f"{len(names)} missing" in refused(folder, {"stray": torch.zeros(2)}, capsys)


def test_tensors_of_another_shape_are_named(folder, capsys):
    weights = weights_of(folder)
    matrices = [name for name, tensor in weights.items() if tensor.ndim == 2 and len(tensor) > 1]
    longer = {name: torch.cat((weights[name], weights[name][:1])) for name in matrices}
    err = refused(folder, weights | longer, capsys)
    assert f"{len(matrices)} of another shape (" in err


def test_tensors_in_each_others_place_differ_from_the_reference(folder, capsys):
    weights = weights_of(folder)
    shapes = {}
    for name in sorted(n for n in weights if n not in UNUSED):
        shapes.setdefault(weights[name].shape, []).append(name)
    first, second = next(names for names in shapes.values() if len(names) > 1)[:2]
    swapped = {first: weights[second], second: weights[first]}
    save_file(weights | swapped, folder / "model.safetensors")
    assert main(["models", "verify", str(folder), "--json"]) == 8
    assert not json.loads(capsys.readouterr().out)["agrees"]
