"""Decoders of transformers as score networks: what they see is what was asked for."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning
from dlmkit.core.options import Tokens
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.recipe.load import resolve_text
from dlmkit_hf.configs import HfDecoder as Options
from dlmkit_hf.models import HfDecoder

from .conftest import DECODER

LENGTH, DIM, SIZE = 6, 16, 11
GPT2 = {"n_embd": DIM, "n_layer": 2, "n_head": 2}
KINDS = {
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER | {"head_dim": 8},
    "mistral": DECODER,
    "gemma": DECODER | {"head_dim": 8},
    "gemma3_text": DECODER | {"head_dim": 8},
    "gpt2": GPT2,
}
PLACES = torch.arange(LENGTH)
ASKED = {
    "full": torch.ones(LENGTH, LENGTH, dtype=torch.bool),
    "causal": PLACES[:, None] >= PLACES,
    "block": PLACES[:, None] // 2 >= PLACES // 2,
}


def build(kind, **options):
    space = TokenSpace(Tokens(dim=DIM, size=SIZE), BuildContext(LENGTH, vocab_size=SIZE - 1))
    context = BuildContext(LENGTH, vocab_size=SIZE - 1, parts={"space": space})
    if "name" not in options:
        options["architecture"] = {"model_type": kind, **KINDS[kind]}
    if options.get("attention") == "block":
        options["block"] = 2
    return HfDecoder(Options(**options), context).eval(), space


def seen(network, attend=None):
    """Whether the logits of a position (rows) depend on what stands at another (columns)."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(LENGTH, DIM, generator=generator).repeat(LENGTH + 1, 1, 1)
    for place in range(LENGTH):
        rows[place + 1, place] = torch.randn(DIM, generator=generator)
    attend = torch.ones(rows.shape[:2], dtype=torch.bool) if attend is None else attend
    with torch.no_grad():
        base, *others = network.logits(rows, attend)
    return torch.stack([(other != base).any(dim=-1) for other in others], dim=1)


@pytest.mark.parametrize("attention", ASKED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_position_sees_what_was_asked_for_and_nothing_else(kind, attention):
    network, _ = build(kind, attention=attention)
    network.probe()
    assert torch.equal(seen(network), ASKED[attention])


@pytest.mark.parametrize("kind", KINDS)
def test_the_trunk_puts_out_what_the_head_reads(kind):
    network, _ = build(kind)
    put_out, read = [], []
    hooks = (
        network.trunk().register_forward_hook(lambda _, given, out: put_out.append(out[0])),
        network.model.get_output_embeddings().register_forward_pre_hook(
            lambda _, given: read.append(given[0])
        ),
    )
    seen(network)
    for hook in hooks:
        hook.remove()
    assert torch.equal(put_out[0], read[0])


@pytest.mark.parametrize(("made", "asked"), [("causal", "full"), ("full", "causal")])
def test_attention_other_than_asked_is_refused(made, asked):
    network, _ = build("llama", attention=made)
    network.attention = asked
    with pytest.raises(RecipeError, match="which is not the attention that was asked for"):
        network.probe()


def test_attention_beyond_a_block_is_refused():
    network, _ = build("llama", attention="block")
    network.mask = lambda seen, dtype: seen.long()
    with pytest.raises(RecipeError, match="llama sees position 3 from position 0"):
        network.probe()


def test_nothing_depends_on_padding():
    network, space = build("qwen3", attention="full")
    attend = torch.arange(LENGTH).expand(2, LENGTH) < 4
    ids = torch.arange(LENGTH).repeat(2, 1)
    ids[1, 4:] = 9
    with torch.no_grad():
        one, other = network.logits(space.table(ids), attend)[:, :4]
        alone = network.logits(space.table(ids[:1, :4]), attend[:1, :4])
    assert torch.equal(one, other)
    assert torch.allclose(one, alone[0], atol=1e-6)


def test_given_positions_are_read_clean_and_a_shift_moves_logits_by_one():
    network, space = build("llama", attention="full")
    ids, attend = torch.arange(LENGTH)[None], torch.ones(1, LENGTH, dtype=torch.bool)
    clean, masked = space.table(ids), space.table(torch.full_like(ids, SIZE - 1))
    level = Level(torch.zeros(1), torch.ones(1))
    with torch.no_grad():
        known = Conditioning.of(clean, attend, attend)
        logits = network(masked, level, known, masked)
        assert torch.equal(logits, network.logits(clean, attend))
        network.shift = True
        moved = network(masked, level, known, masked)
    assert torch.equal(moved[:, 1:], logits[:, :-1])
    assert torch.equal(moved[:, 0], logits[:, 0])


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_a_pretrained_causal_one_gives_transformers_own_logits(kind, tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **KINDS[kind], vocab_size=SIZE)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    tied = bool(config.tie_word_embeddings)
    network, space = build(kind, name=str(tmp_path), attention="causal", tied=tied)
    ids = torch.randint(SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        found = network.logits(space.table(ids), torch.ones_like(ids, dtype=torch.bool))
    assert (found - expected).abs().max() < 1e-5
    assert (network.model.get_output_embeddings().weight is space.table.weight) == tied


@pytest.mark.parametrize("attention", ASKED)
def test_texts_of_one_row_do_not_see_each_other(attention):
    network, space = build("llama", attention=attention)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    segments, attend = torch.tensor([[0, 0, 0, 1, 1, 2]]), torch.ones_like(ids, dtype=torch.bool)
    attend[0, 5] = False
    x, level = space.table(ids), Level(torch.zeros(1), torch.ones(1))
    nothing = torch.zeros_like(attend)
    with torch.no_grad():
        packed = network(x, level, Conditioning.of(x, nothing, attend, segments), x)[0]
        for start, end in ((0, 3), (3, 5)):
            part = x[:, start:end]
            known = Conditioning.of(part, nothing[:, start:end], attend[:, start:end])
            alone = network(part, level, known, part)[0]
            assert (packed[start:end] - alone).abs().max() < 1e-6


def test_a_learned_position_counts_from_the_beginning_of_its_text():
    network, space = build("gpt2", attention="full")
    x, attend = space.table(torch.tensor([[1, 2, 3, 1, 2, 3]])), torch.ones(1, 6, dtype=torch.bool)
    known = Conditioning.of(x, ~attend, attend, torch.tensor([[0, 0, 0, 1, 1, 1]]))
    with torch.no_grad():
        found = network(x, Level(torch.zeros(1), torch.ones(1)), known, x)[0]
    assert (found[:3] - found[3:]).abs().max() < 1e-6


@pytest.mark.parametrize("attention", ASKED)
def test_attention_opens_from_causal_to_what_was_asked_for(attention):
    network, space = build("llama", attention=attention)
    x, attend = space.table(torch.arange(LENGTH)[None]), torch.ones(1, LENGTH, dtype=torch.bool)
    known, level = Conditioning.of(x, ~attend, attend), Level(torch.zeros(1), torch.ones(1))
    causal, _ = build("llama", attention="causal")
    causal.load_state_dict(network.state_dict())
    shut = torch.zeros(1, LENGTH, LENGTH, dtype=torch.bool)
    with torch.no_grad():
        closed = network.annealed(shut)(x, level, known, x)
        opened = network.annealed(~shut)(x, level, known, x)
        assert (closed - causal(x, level, known, x)).abs().max() < 1e-6
        assert (opened - network(x, level, known, x)).abs().max() < 1e-6
    assert network.opened is None


def test_a_new_mask_begins_as_the_mean_of_the_words(tmp_path):
    config = AutoConfig.for_model("llama", **DECODER, vocab_size=SIZE - 1)
    theirs = AutoModelForCausalLM.from_config(config)
    theirs.save_pretrained(tmp_path)
    _, space = build("llama", name=str(tmp_path), attention="full", new_mask=True)
    words = theirs.get_input_embeddings().weight
    assert torch.equal(space.table.weight[:-1], words)
    assert torch.allclose(space.table.weight[-1], words.mean(dim=0))


def test_a_model_that_is_no_decoder_is_refused_without_building_it():
    text = """
extends: mdlm_grammar
space: {use: mdlm:tokens, with: {dim: 16}}
network: {use: hf:decoder, with: {architecture: {model_type: vit}}}
"""
    with pytest.raises(RecipeError, match="'vit' is no decoder that transformers knows"):
        resolve_text(text, "here.yaml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "block"}, "block goes with attention: block"),
        ({"block": 4}, "block goes with attention: block"),
        ({"name": "x"}, "give name .* or architecture"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Options(architecture={"model_type": "llama", **DECODER}, **options)
