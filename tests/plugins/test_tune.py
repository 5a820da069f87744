"""Adaptation and instruction tuning: what is learned, what is seen, and what is refused."""

import json

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

import dlmkit
from dlmkit.cli.app import main
from dlmkit.core.chat import Template, Turn
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError, RecipeError
from dlmkit.noise import Noise
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.units import prepare_units
from dlmkit_tune import configs
from dlmkit_tune.configs import Conversations
from dlmkit_tune.objective import Adapting, Blocks
from dlmkit_tune.rows import Exchange, RowTable, packing, texts

from .conftest import LLAMA

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def tokenizer(template=CHAT):
    """A letter a token."""
    vocab = {t: i for i, t in enumerate([*SPECIAL, *map(chr, range(32, 127)), "\n"])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(SPECIAL)
    made = None if template is None else Template(template, {"eos_token": "<eos>"})
    return Tokenizer(backend, unknown=None, separator="<eos>", template=made)


def shown(ids, own):
    return "".join(own.backend.id_to_token(i) for i in ids)


TURNS = (Turn("user", "a?"), Turn("assistant", "b"), Turn("user", "c?"), Turn("assistant", "d"))


def test_each_answer_is_learned_after_all_that_was_said_before_it():
    own = tokenizer()
    first, second = texts(TURNS, own, "each")
    assert shown(first.question, own) == "<|user|>a?<|end|>\n<|assistant|>"
    assert shown(first.answer, own) == "b<|end|>"
    assert shown(second.question, own).endswith(
        "<|assistant|>b<|end|>\n<|user|>c?<|end|>\n<|assistant|>"
    )
    assert shown(second.answer, own) == "d<|end|>"
    assert list(texts(TURNS, own, "last")) == [second]


def test_without_a_template_turns_stand_on_lines_and_answers_end_with_end_of_text():
    own = tokenizer(None)
    (text,) = texts(TURNS, own, "last")
    assert shown(text.question, own) == "a?\nb\nc?\n"
    assert shown(text.answer, own) == "d<eos>"


def test_a_special_token_that_somebody_typed_stays_text():
    own = tokenizer()
    (text,) = texts((Turn("user", "<|end|>"), Turn("assistant", "<|end|>")), own, "last")
    assert text.question.count(SPECIAL.index("<|end|>")) == 1
    assert text.answer.count(SPECIAL.index("<|end|>")) == 1
    assert text.answer[-1] == SPECIAL.index("<|end|>")


def test_questions_are_given_and_padding_is_learned_only_if_asked():
    own = tokenizer()
    found = [Exchange([10, 11], [12]), Exchange([13], [14, 15, 16])]
    plain = RowTable(found, 6, own).batch(torch.arange(2).numpy())
    assert plain.ids.tolist() == [[10, 11, 12, 0, 0, 0], [13, 14, 15, 16, 0, 0]]
    assert plain.attend.sum(dim=1).tolist() == [3, 4]
    assert plain.given.long().sum(dim=1).tolist() == [2, 1]
    assert plain.segments is None
    learned = RowTable(found, 6, own, learned=True).batch(torch.arange(2).numpy())
    assert learned.ids[0].tolist() == [10, 11, 12, 1, 1, 1]  # end-of-text
    assert learned.attend.all()
    assert torch.equal(learned.given, plain.given)


def test_packed_rows_hold_every_text_whole_and_once():
    sizes = [5, 3, 4, 8, 1, 2, 6, 7]
    rows = packing(sizes, 8)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in row) <= 8 for row in rows)
    assert len(rows) == 5
    table = RowTable([Exchange([10] * (n - 1), [11]) for n in sizes], 8, tokenizer(), packed=True)
    batch = table.batch(torch.arange(len(table.rows)).numpy())
    for row, held in enumerate(table.rows):
        lengths = batch.segments[row][batch.attend[row]].unique(return_counts=True)[1]
        assert lengths.tolist() == [sizes[i] for i in held]
    assert int((batch.attend & ~batch.given).sum()) == len(sizes)


SMALL = {"kind": "characters"}


def model(objective, attention="full", shift=False, length=64, data=None):
    """A fresh decoder on the questions that ship."""
    network = {"architecture": LLAMA, "attention": attention, "shift": shift}
    if attention == "block":
        network["block"] = 3
    return dlmkit.compose(
        length=length,
        data=data or {"use": "tune:conversations", "with": {"tokenizer": SMALL}},
        schedule="mdlm:log-linear",
        space={"use": "mdlm:tokens", "with": {"dim": 16, "size": 64}},
        network={"use": "hf:decoder", "with": network},
        masking="cdcd:none",
        objective=objective,
        sampler="mdlm:unmasking",
        train={"steps": 2, "batch_size": 4},
    ).assembly


def draws(rows, step=None):
    index = torch.arange(rows)
    at = None if step is None else torch.full((rows,), step)
    return Draws((index + 0.5) / rows, Noise.keyed(0, index, 0), at)


def test_a_loss_counts_answers_alone_and_questions_are_read_clean():
    assembly = model("mdlm:nelbo")
    batch = assembly.data.stream(0, 4).read(0, torch.arange(4))
    parts = assembly.objective(batch, draws(4))
    assert int(parts.count) == int((batch.attend & ~batch.given).sum())
    other = batch.ids.clone()
    other[batch.given] = (other[batch.given] + 1) % 20
    changed = assembly.objective(Batch(other, batch.attend, batch.given), draws(4))
    assert float(changed.loss_sum) != float(parts.loss_sum)  # what is given is seen
    whole = assembly.objective(Batch(batch.ids, batch.attend), draws(4))
    assert int(whole.count) == int(batch.attend.sum())


@pytest.mark.parametrize("objective", ["mdlm:nelbo", "tune:adapting"])
def test_a_packed_row_costs_what_its_texts_cost_alone(objective, monkeypatch):
    """Masks are drawn by position, so here everything is masked: a text's cost is its own."""
    data = {"use": "tune:packed-conversations", "with": {"tokenizer": SMALL}}
    assembly = model(objective, data=data, length=128)
    monkeypatch.setattr(
        type(assembly.space.corruption),
        "corrupt",
        lambda self, x0, level, noise: torch.full_like(x0, self.mask),
    )
    table, own = assembly.data.tables["train"], assembly.data.tables["train"].texts
    held = table.rows[0]
    assert len(held) > 1
    one = Draws(torch.tensor([0.5]), Noise.keyed(0, torch.arange(1), 0))
    packed = assembly.objective(table.batch(torch.arange(1).numpy()), one)
    alone = RowTable([own[i] for i in held], 128, assembly.tokenizer)
    apart = [
        assembly.objective(alone.batch(torch.tensor([i]).numpy()), one) for i in range(len(held))
    ]
    assert int(packed.count) == sum(int(part.count) for part in apart)
    total = sum(float(part.loss_sum) for part in apart)
    assert float(packed.loss_sum) == pytest.approx(total, rel=1e-5)


def test_packed_rows_need_a_network_that_keeps_texts_apart():
    with pytest.raises(RecipeError, match="requires 'segments'"):
        dlmkit.compose(
            length=64,
            data={"use": "tune:packed-conversations", "with": {"tokenizer": SMALL}},
            schedule="mdlm:log-linear",
            space={"use": "mdlm:tokens", "with": {"dim": 16}},
            network={"use": "cdcd:transformer", "with": {"width": 16, "heads": 2, "blocks": 1}},
            masking="cdcd:none",
            objective="mdlm:nelbo",
            sampler="mdlm:unmasking",
            train={"steps": 2},
        )


def test_attention_opens_with_the_steps():
    assembly = model({"use": "tune:adapting", "with": {"anneal": 10}})
    objective, batch = assembly.objective, assembly.data.stream(0, 4).read(0, torch.arange(4))
    assert isinstance(objective, Adapting)
    causal = model("mdlm:nelbo", attention="causal").objective
    full = model("mdlm:nelbo").objective
    for other in (causal, full):
        other.load_state_dict(objective.state_dict())
    with torch.no_grad():
        at = {step: float(objective(batch, draws(4, step)).loss_sum) for step in (0, 5, 10, 99)}
        expected = [float(other(batch, draws(4)).loss_sum) for other in (causal, full)]
        outside = float(objective(batch, draws(4)).loss_sum)
    assert at[0] == pytest.approx(expected[0], rel=1e-5)
    assert at[10] == pytest.approx(expected[1], rel=1e-5)
    assert at[99] == at[10]
    assert outside == pytest.approx(expected[1], rel=1e-5)
    assert at[5] not in (at[0], at[10])


@pytest.mark.parametrize("shift", [False, True])
def test_a_block_is_predicted_from_the_clean_blocks_before_it(shift):
    assembly = model("tune:blocks", attention="block", shift=shift)
    objective, space, network = assembly.objective, assembly.space, assembly.network
    assert isinstance(objective, Blocks)
    batch = assembly.data.stream(0, 3).read(0, torch.arange(3))
    length = batch.ids.shape[1]
    masked = torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    block = torch.arange(length) // 3
    with torch.no_grad():
        found = objective._entropy(batch, masked, block)
        for number in range(int(block[-1]) + 1):
            here = block == number
            x = torch.where(masked & here, space.corruption.mask, batch.ids)
            logits = network.after(network.logits(space.table(x), batch.attend))
            logits[..., space.corruption.mask] = -1e9
            expected = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), batch.ids, reduction="none"
            )
            counts = here & batch.attend
            if not counts.any():
                continue  # padding
            assert (found - expected)[counts].abs().max() < 1e-4


def test_every_block_has_a_time_of_its_own():
    assembly = model("tune:blocks", attention="block")
    batch = assembly.data.stream(0, 4).read(0, torch.arange(4))
    parts = assembly.objective(batch, draws(4))
    assert torch.isfinite(parts.loss_sum)
    assert int(parts.count) == int((batch.attend & ~batch.given).sum())


def test_activations_that_are_computed_again_change_no_gradient():
    """transformers hands its blocks what they read by keyword."""
    gradients = []
    for again in (False, True):
        assembly = model("tune:blocks", attention="block")
        config = TrainConfig(steps=1, activation_checkpointing=again)
        prepare_units(assembly.network, config, torch.device("cpu"))
        batch = assembly.data.stream(0, 4).read(0, torch.arange(4))
        assembly.objective(batch, draws(4)).loss_sum.backward()
        gradients.append([p.grad for p in assembly.network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def data(config, length=64):
    from dlmkit.core.context import BuildContext
    from dlmkit_tune.data import ConversationData, PackedConversations

    kind = (
        PackedConversations if isinstance(config, configs.PackedConversations) else ConversationData
    )
    return kind(config, BuildContext(length))


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def asked(n):
    return {"prompt": f"what is {n}?", "response": f"it is {n}."}


def test_prompt_and_response_columns_come_from_json_lines_and_through_datasets(tmp_path):
    path = lines(tmp_path / "mine.jsonl", *map(asked, range(60)))
    same = {"prompt": "prompt", "response": "response", "tokenizer": SMALL, "validation": 0.2}
    one = data(Conversations(paths=path, **same))
    other = data(Conversations(dataset=str(path), **same))
    assert list(one.texts("train")) == list(other.texts("train"))
    batches = [d.stream(0, 4).read(3, torch.arange(4)) for d in (one, other)]
    assert torch.equal(batches[0].ids, batches[1].ids)
    assert torch.equal(batches[0].given, batches[1].given)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "x"}, "line 1: there is no column 'messages'; there are text"),
        ({}, "line 1: there is no column 'messages'; there are none"),
        ({"messages": []}, "is no list of messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "is no message"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no answer to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_named(record, words, tmp_path):
    path = lines(tmp_path / "mine.jsonl", record)
    with pytest.raises(DataError, match=words):
        data(Conversations(paths=path, tokenizer=SMALL))


def test_texts_longer_than_a_row_are_left_out_or_cut_as_asked(tmp_path):
    path = lines(tmp_path / "mine.jsonl", *map(asked, range(60)), asked("long " * 20))
    same = {"paths": path, "prompt": "prompt", "response": "response", "tokenizer": SMALL}
    with pytest.warns(dlmkit.errors.Notice, match="1 texts are longer than 64 tokens"):
        left = data(Conversations(**same, validation=0.2))
    assert left.left_out == 1
    long = asked("b" * 30)
    path = lines(tmp_path / "mine.jsonl", *map(asked, range(60)), long)
    cut = data(Conversations(**same, validation=0.2, long="truncate"))
    assert cut.left_out == 0
    assert max(text.size for texts in cut._texts.values() for text in texts) == 64


@pytest.mark.parametrize("name", ["a2d_smollm2", "bd3_from_ar", "llada_sft"])
def test_a_recipe_s_twin_learns(name, tmp_path, capsys):
    load_recipe(name)
    run = tmp_path / "run"
    assert main(["train", f"{name}_tiny", "--out", str(run), "--set", "train.threads=1"]) == 0
    capsys.readouterr()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_adapters_alone_are_written_by_a_command(tmp_path, capsys):
    pytest.importorskip("peft", reason="peft is not installed: pip install 'dlmkit[lora]'")
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["--set", "network.with.lora.rank=2", "--set", "train.steps=1"]
    assert main(["train", "llada_sft_tiny", "--out", str(run), *words]) == 0
    assert main(["tune", "adapters", str(run), "--out", str(out)]) == 0
    capsys.readouterr()
    held = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= held
