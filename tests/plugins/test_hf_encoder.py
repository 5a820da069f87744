"""`network: hf-encoder` around tiny encoders that transformers itself made and saved."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    RobertaConfig,
    RobertaModel,
)

import dlmkit
from dlmkit.cli.app import main
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import DataError, RecipeError
from dlmkit.model import compose
from dlmkit_glue.head import features
from dlmkit_hf import encoders

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 30,
}


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A BERT in a folder, with weights that differ from fresh ones."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("bert")
    BertModel(BertConfig(**SIZES, max_position_embeddings=40)).save_pretrained(folder)
    return folder


def model(network, seed=0, length=32, **options):
    return compose(
        seed=seed,
        length=length,
        data="grammar",
        schedule={"use": "time-warp", "with": {"t_max": 20.0}},
        space={"use": "normalised", "with": {"dim": 8}},
        network={"use": "hf-encoder", "with": {"time_features": 8, **network}},
        masking="cdcd:none",
        objective="score-interpolation",
        train={"steps": 2, "batch_size": 2},
        **options,
    )


def network(*arguments, **options):
    return model(*arguments, **options).assembly.network


def inputs(rows=2, length=32):
    torch.manual_seed(1)
    x = torch.randn(rows, length, 8)
    known = torch.zeros(rows, length, dtype=torch.bool)
    return x, Conditioning(known, torch.zeros_like(x), ~known), torch.zeros_like(x)


def at(sigma):
    return Level(torch.ones(2), torch.full((2,), sigma))


def test_the_encoder_starts_as_it_was_trained(bert):
    found = network({"name": str(bert)})
    original = AutoModel.from_pretrained(bert).eval()
    h = torch.randn(2, 32, 16)
    attend = torch.arange(32) < torch.tensor([[32], [20]])
    for training in (True, False):  # dropout is off in both
        ours = found.train(training).encoder(inputs_embeds=h, attention_mask=attend.long())
        theirs = original(inputs_embeds=h, attention_mask=attend.long())
        assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)


def test_the_level_changes_nothing_at_first_and_something_later(bert):
    found = network({"name": str(bert)})
    torch.nn.init.normal_(found.query.weight)
    x, conditioning, previous = inputs()
    low, high = (found(x, at(s), conditioning, previous) for s in (0.1, 10.0))
    assert torch.equal(low, high)
    torch.nn.init.normal_(found.shift.weight)
    low, high = (found(x, at(s), conditioning, previous) for s in (0.1, 10.0))
    assert not torch.allclose(low, high)


def test_the_streams_start_at_the_scale_of_the_word_embeddings(bert):
    words = AutoModel.from_pretrained(bert).get_input_embeddings().weight.std(dim=0)
    found = network({"name": str(bert)})
    two_of_three = torch.randn(4000, 25) * (torch.arange(25) < 17)
    scale = found.inputs(two_of_three).std(dim=0)
    torch.testing.assert_close(scale.mean(), words.mean(), rtol=0.2, atol=0.0)


def test_from_scratch_is_the_same_architecture_with_other_weights(bert):
    one, other = network({"name": str(bert)}), network({"name": str(bert), "from_scratch": True})
    ours, theirs = one.encoder.state_dict(), other.encoder.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    key = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(ours[key], theirs[key])
    again = network({"name": str(bert), "from_scratch": True})
    assert torch.equal(theirs[key], again.encoder.state_dict()[key])


def test_nothing_is_held_that_is_not_read(bert):
    found = network({"name": str(bert)})
    names = [name for name, _ in found.named_parameters()]
    assert not [name for name in names if "word_embeddings" in name or "pooler" in name]
    assert len(found.shard_units()) == 2
    assert len(found.dense_layers()) == 2 * 6


def test_a_run_needs_the_encoder_only_at_its_start(bert, tmp_path):
    held = shutil.copytree(bert, tmp_path / "bert")
    words = ["space.with.dim=8", "network.use=hf-encoder", f"network.with={{name: {held}}}"]
    words += ["train.steps=2", "train.batch_size=2", "train.validation_rows=2", "metric=[]"]
    words += ["sample.count=1", "sample.steps=2", "train.checkpoint_every=1"]
    sets = [word for override in words for word in ("--set", override)]
    run = tmp_path / "run"
    assert main(["train", "ddlm_grammar", "--out", str(run), *sets]) == 0
    before = [str(text) for text in dlmkit.load(run).sample(2)]
    shutil.rmtree(held)
    assert [str(text) for text in dlmkit.load(run).sample(2)] == before
    described = json.loads((run / "checkpoints" / "step-00000002" / "encoder.json").read_text())
    assert (described["model_type"], described["hidden_dropout_prob"]) == ("bert", 0.0)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert [str(text) for text in dlmkit.load(tmp_path / "out").sample(2)] == before


def test_roberta_counts_positions_from_its_padding_id(tmp_path):
    torch.manual_seed(5)
    config = RobertaConfig(**SIZES, max_position_embeddings=34)
    RobertaModel(config).save_pretrained(tmp_path)
    x, conditioning, previous = inputs()
    out = network({"name": str(tmp_path)})(x, at(1.0), conditioning, previous)
    assert out.shape == (2, 32, 8)
    with pytest.raises(
        DataError, match="roberta has 32 position embeddings, and texts are to have"
    ):
        model({"name": str(tmp_path)}, length=33)


BERT = {"model_type": "bert", **SIZES}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({}, 3, "give name (a pretrained encoder) or architecture (a fresh one)"),
        ({"architecture": BERT, "from_scratch": True}, 3, "from_scratch and revision go with name"),
        ({"architecture": {"hidden_size": 8}}, 3, "architecture needs model_type"),
        ({"architecture": {**BERT, "hidden_sise": 8}}, 3, "bert has no 'hidden_sise'"),
        (
            {"architecture": {**BERT, "model_type": "bart?"}},
            3,
            "architecture.model_type: 'bart?' is no encoder that transformers knows, did you mean",
        ),
        ({"architecture": {**BERT, "model_type": 7}}, 3, "architecture needs model_type"),
        ({"architecture": {**BERT, "pad_token_id": [float("inf")]}}, 3, "expected a finite number"),
        (
            {"architecture": {"model_type": "gpt2", "n_embd": 16}},
            3,
            "'gpt2' is no encoder that transformers knows, such as bert",
        ),
        (
            {"architecture": {**BERT, "is_decoder": True}},
            3,
            "architecture.is_decoder: leave it out: decoders (gpt2 and its kin) read left to right",
        ),
        ({"name": "/no/such/folder"}, 5, "--set network.with.name=DIR"),
    ],
)
def test_bad_options(options, code, words, capsys, tmp_path):
    written = json.dumps(options).replace("Infinity", ".inf")
    sets = ["--set", "network.use=hf-encoder", "--set", f"network.with={written}"]
    assert main(["train", "ddlm_grammar", "--out", str(tmp_path / "run"), *sets]) == code
    assert words in capsys.readouterr().err


def test_an_attention_that_transformers_has_not(bert, capsys, tmp_path):
    sets = ["attention=xformers", "network.use=hf-encoder", f"network.with={{name: {bert}}}"]
    words = [word for override in sets for word in ("--set", override)]
    assert main(["train", "ddlm_grammar", "--out", str(tmp_path / "run"), *words]) == 3
    assert "hf-encoder has no attention 'xformers': set auto" in capsys.readouterr().err


def test_in_a_space_of_its_word_embeddings_clean_text_is_read_as_trained(tmp_path):
    """Given tokens give exactly what the encoder itself makes of their ids."""
    torch.manual_seed(5)
    bert = tmp_path / "bert"
    sizes = {**SIZES, "vocab_size": 200}
    BertModel(BertConfig(**sizes, max_position_embeddings=40)).save_pretrained(bert)
    config = {"use": "word-embeddings", "with": {"name": str(bert)}}
    found = compose(
        length=12,
        data={"use": "grammar"},
        schedule={"use": "time-warp", "with": {"t_max": 20.0}},
        space=config,
        network={"use": "hf-encoder", "with": {"time_features": 8, "name": str(bert)}},
        masking="cdcd:none",
        objective="score-interpolation",
        train={"steps": 2, "batch_size": 2},
    )
    objective = found.assembly.objective
    ids = torch.arange(24).view(2, 12) % objective.space.vocab_size
    given = torch.ones_like(ids, dtype=torch.bool)
    x0 = objective.space.embed(ids)
    known = Conditioning.of(x0, given, given)
    network = objective.network
    ours = features(network, x0, at(1.0), known, torch.zeros_like(x0))
    theirs = AutoModel.from_pretrained(bert).eval()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(ours, theirs)
    assert not any(p.requires_grad for p in objective.space.parameters())


def test_a_pretrained_decoder_is_refused_whatever_its_type_is(tmp_path):
    """By its type where transformers has no masked-language head for it, else by trial."""
    causal = BertConfig(**SIZES, max_position_embeddings=40, is_decoder=True)
    BertModel(causal).save_pretrained(tmp_path / "causal")
    with pytest.raises(RecipeError, match="bert is a decoder here"):
        network({"name": str(tmp_path / "causal")})
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30}
    GPT2Model(GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(RecipeError, match="is a gpt2, which is no encoder"):
        network({"name": str(tmp_path / "gpt2")})


def test_the_trial_of_an_encoder_uses_up_no_randomness(bert):
    first = network({"name": str(bert)})
    body, state = first.encoder.train(), torch.get_rng_state()
    assert encoders.sees_all(body, 16, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert body.training
