"""Released models, tune's objectives and the cache of blocks on a pretend accelerator."""

import json

import pytest
import torch
from safetensors.torch import load_file

import dlmkit
from dlmkit.cli.app import main
from dlmkit.kernels import vocabulary
from dlmkit.model import Run
from dlmkit.registry.lookup import Registry
from dlmkit.released.verify import verify
from dlmkit.testing import pretend

from .test_golden import FAMILIES, GOLDEN

REGISTRY = Registry.load(third_party=False)


@pytest.fixture(autouse=True)
def same_forms(monkeypatch):
    """The CPU's own fused form of the vocabulary step rounds otherwise: here both use the other."""
    monkeypatch.setattr(vocabulary, "FUSED", {})
    monkeypatch.setattr(vocabulary, "CHUNK", {})
    vocabulary._chosen.cache_clear()
    yield
    vocabulary._chosen.cache_clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_answers_and_decodes_there_as_on_the_cpu(family, accelerator):
    there, here = (verify(GOLDEN / family, REGISTRY, device) for device in (accelerator, "cpu"))
    assert there.differences == here.differences
    assert there.agrees


@pytest.mark.parametrize("family", ["sdar", "bd3lm", "llada2-mini"])
def test_the_cache_of_finished_blocks_writes_there_what_it_writes_on_the_cpu(
    golden, family, accelerator
):
    folder, drawn = golden(family, words=True), []
    for device in ("cpu", accelerator):
        model = dlmkit.load(folder, device=device).with_("sample.cache=exact", "sample.stop=[]")
        requests = model.requests(1, ["w5 w6 w7", "w3"], length=[12, 9])
        drawn.append([sample.ids for sample in model.run(requests, Run(3, 4))])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", ["llada_sft", "a2d_smollm2", "bd3_from_ar"])
def test_an_objective_of_tune_trains_there_as_on_the_cpu(name, tmp_path):
    sets = ("train.steps=2", "train.threads=1", "train.validation_rows=2", "sample.count=1")
    # a weight that two modules share would become two on its way to the pretend device alone
    sets += ("network.with.tied=false",)
    words = ["train", f"{name}_tiny", *(word for change in sets for word in ("--set", change))]

    def trained(run):
        assert main([*words, "--out", str(run)]) == 0
        losses = [json.loads(line).get("loss") for line in (run / "metrics.jsonl").open()]
        return losses, load_file(run / "checkpoints/step-00000002/model.safetensors")

    pretend.set_up()
    before, weights = trained(tmp_path / "cpu")
    with pretend.accelerator():
        after, others = trained(tmp_path / "there")
    assert before == after
    assert all(torch.equal(weights[name], others[name]) for name in weights)
