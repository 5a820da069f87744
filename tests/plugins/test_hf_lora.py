"""Adapters of low rank: trained alone, merged without a trace, saved as peft reads them."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dlmkit.core.context import BuildContext
from dlmkit.core.options import Tokens
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.int8 import Int8Linear
from dlmkit_hf import lora
from dlmkit_hf.configs import HfDecoder as Options
from dlmkit_hf.models import HfDecoder

from .conftest import LLAMA

peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'dlmkit[lora]'")

LENGTH, DIM, SIZE = 6, 16, 11


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(**LLAMA, vocab_size=SIZE)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def build(base, **options):
    space = TokenSpace(Tokens(dim=DIM, size=SIZE), BuildContext(LENGTH, vocab_size=SIZE - 1))
    context = BuildContext(LENGTH, vocab_size=SIZE - 1, parts={"space": space})
    return HfDecoder(Options(name=str(base), **options), context).eval(), space


def stirred(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def logits(network, space):
    with torch.no_grad():
        return network.logits(space.table(torch.arange(LENGTH)[None]), None)


def test_adapters_alone_are_trained_and_change_nothing_at_first(base):
    plain, words = build(base)
    network, space = build(base, lora={"rank": 2})
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {name for name in network.state_dict() if ".lora_" in name}
    assert len(trained) == 2 * 7 * 2  # two matrices for each of seven layers of two blocks
    assert not space.table.weight.requires_grad
    assert torch.equal(logits(network, space), logits(plain, words))


def test_adapters_stay_as_they_are_where_dense_layers_run_in_int8(base):
    network, space = build(base, lora={"rank": 2})
    stirred(network)
    dense = network.dense_layers()
    assert len(dense) == 7 * 2
    rounded = Inference(int8=True).network(network)
    assert sum(isinstance(m, Int8Linear) for m in rounded.modules()) == len(dense)
    assert (logits(rounded, space) - logits(network, space)).abs().max() < 0.05


def test_the_table_of_tokens_is_trained_too_if_asked(base):
    _, space = build(base, lora={"rank": 2, "words": True})
    assert space.table.weight.requires_grad


def test_names_are_those_of_the_model_without_adapters(base):
    plain, _ = build(base)
    network, _ = build(base, lora={"targets": ["q_proj", "v_proj"]})
    names = [network.base_name(name) for name in network.state_dict()]
    assert sorted(filter(None, names)) == sorted(plain.state_dict())
    assert names.count(None) == 2 * 2 * 2


def test_merged_adapters_leave_a_plain_model_with_the_same_logits(base):
    network, space = build(base, lora={"rank": 2})
    stirred(network)
    before = logits(network, space)
    assert network.merge() == {"lora": None}
    plain, _ = build(base)
    assert set(network.state_dict()) == set(plain.state_dict())
    assert not torch.equal(before, logits(plain, space))
    assert (before - logits(network, space)).abs().max() < 1e-5


def test_adapters_alone_are_a_folder_that_peft_opens(base, tmp_path):
    network, space = build(base, attention="causal", lora={"rank": 2})
    stirred(network)
    lora.save(network.model, Options(name="x", lora={"rank": 2}).lora, str(base), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(base)
    opened = peft.PeftModel.from_pretrained(model, str(tmp_path)).eval()
    with torch.no_grad():
        theirs = opened(input_ids=torch.arange(LENGTH)[None]).logits
    assert (theirs - logits(network, space)).abs().max() < 1e-5


def test_targets_that_name_no_layer_are_refused(base):
    with pytest.raises(RecipeError, match=r"network.with.lora: Target modules .*nowhere"):
        build(base, lora={"targets": ["nowhere"]})
