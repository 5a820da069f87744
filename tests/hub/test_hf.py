"""`import dlmkit.hf`: models of dlmkit through the Auto classes of transformers."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

import dlmkit
import dlmkit.hf
from dlmkit.core.network import Conditioning
from dlmkit.errors import CheckpointError, DataError, UsageError


@pytest.fixture
def model(exported):
    return AutoModel.from_pretrained(exported)


def test_the_auto_classes_know_it(exported, model):
    assert type(model) is dlmkit.hf.DlmkitModel
    assert not model.training
    config = AutoConfig.from_pretrained(exported)
    assert (config.vocab_size, config.max_position_embeddings) == (144, 32)
    assert config.dlmkit_version == dlmkit.__version__


def test_the_same_texts_as_dlmkit(exported, model):
    assert [str(t) for t in model.sample(3, seed=2)] == [
        str(t) for t in dlmkit.load(exported).sample(3, seed=2)
    ]


def test_saved_it_is_the_same_to_the_byte(exported, model, tmp_path):
    model.save_pretrained(tmp_path / "again")
    names = {path.name for path in exported.iterdir()} - {"manifest.json"}
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name
    again = AutoModel.from_pretrained(tmp_path / "again")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_changed_weights_are_saved(model, tmp_path):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_forward_is_the_denoiser(model):
    ids = torch.arange(64).view(2, 32) + 2
    t = torch.tensor([0.7, 5.0])
    x = model.noised(ids, t, seed=3)
    out = model(x, t)
    parts = dlmkit.load(model.name_or_path)
    denoise, space = parts.parts.denoise, parts.assembly.space
    known = torch.zeros_like(ids, dtype=torch.bool)
    plain = Conditioning(known, torch.zeros_like(x), ~known)
    found = denoise(x, parts.assembly.schedule.level(t), denoise.start(x), plain)
    assert torch.equal(out.logits, space.logits(found.query))
    assert torch.equal(out.x0, found.x0_step)
    twice = model(x, t, previous=out.previous)
    assert not torch.equal(twice.logits, out.logits)
    assert torch.equal(model.noised(ids[:1], t[:1], seed=3), x[:1])


def test_given_tokens_and_padding(model):
    ids = torch.arange(64).view(2, 32) + 2
    t = torch.tensor([2.0, 2.0])
    x = model.noised(ids, t)
    given = torch.arange(32) < 5
    out = model(x, t, input_ids=ids, given=given.expand(2, -1))
    embedded = model.objective.space.embed(ids)
    torch.testing.assert_close(out.x0[:, :5], embedded[:, :5])
    mask = (torch.arange(32) < 20).expand(2, -1)
    other = torch.where(mask[..., None], x, 9.0)
    padded, moved = (model(value, t, attention_mask=mask.long()) for value in (x, other))
    torch.testing.assert_close(padded.logits[:, :20], moved.logits[:, :20])
    with pytest.raises(UsageError, match="need their tokens"):
        model(x, t, given=given.expand(2, -1))


def test_gradients_reach_the_weights(model):
    ids = torch.arange(32)[None] + 2
    t = torch.tensor([2.0])
    model(model.noised(ids, t), t).logits.logsumexp(-1).sum().backward()
    assert model.objective.network.query.weight.grad.abs().sum() > 0


def test_the_tokenizer_without_dlmkit(exported):
    program = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("the badger was tired .").input_ids
print(tokenizer.decode(ids), tokenizer.pad_token_id, "dlmkit" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "the badger was tired . 0 False"
    assert AutoTokenizer.from_pretrained(exported).vocab_size == 144


def test_from_the_hub(hub, exported, model):
    hub.put("someone/tiny", exported)
    fetched = AutoModel.from_pretrained("someone/tiny")
    assert fetched.name_or_path == "someone/tiny"
    assert str(fetched.sample(1)[0]) == str(model.sample(1)[0])
    fetched.push_to_hub("someone/other")
    sent = hub.files["someone/other"]["main"]
    assert sent["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    assert str(AutoModel.from_pretrained("someone/other").sample(1)[0]) == str(model.sample(1)[0])


def test_no_such_repository(hub):
    with pytest.raises(DataError, match="cannot be fetched"):
        dlmkit.hf.DlmkitModel.from_pretrained("someone/none")


def test_damage_and_code_are_refused(exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "modeling.py").write_text("print('ran')")
    with pytest.raises(CheckpointError, match=r"holds modeling\.py: code"):
        AutoModel.from_pretrained(copy)
    (copy / "modeling.py").unlink()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 3}))
    with pytest.raises(CheckpointError, match=r"config\.json has"):
        AutoModel.from_pretrained(copy)


def test_options_that_mean_nothing_here(exported, model, tmp_path):
    with pytest.raises(UsageError, match="loaded in float32"):
        AutoModel.from_pretrained(exported, dtype=torch.bfloat16)
    with pytest.raises(UsageError, match="device_map means nothing"):
        AutoModel.from_pretrained(exported, device_map="auto")
    with pytest.raises(UsageError, match="push_to_hub means nothing"):
        model.save_pretrained(tmp_path / "out", push_to_hub=True)
    with pytest.raises(UsageError, match="built from its folder"):
        AutoModel.from_config(model.config)
