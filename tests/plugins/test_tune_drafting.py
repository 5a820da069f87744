"""Mask slots that draft: the decoder stays as it is, and verified texts are its own."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

import dlmkit
from dlmkit.cli.app import main
from dlmkit.core.denoise import Wrapped
from dlmkit.core.objective import Batch, Draws
from dlmkit.errors import RecipeError, UsageError
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import SampleConfig
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.sampling.runner import generate, stream
from dlmkit_hf import lora

from . import conftest

pytest.importorskip("peft", reason="peft is not installed: pip install 'dlmkit[lora]'")

LENGTH, DIM = 8, 16
LLAMA = {**conftest.LLAMA, "initializer_range": 0.4}  # far from uniform
FREE = torch.ones(3, LENGTH, dtype=torch.bool)


def model(
    tmp_path,
    slots=1,
    soft=True,
    sampler="tune:verifying",
    letters="abcab cba",
    sequential=True,
    **more,
):
    """A fresh decoder of few tokens, adapters stirred."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join([letters] * 40))
    config = {
        "length": LENGTH,
        "data": {
            "use": "text:text",
            "with": {"paths": [str(text)], "tokenizer": {"kind": "characters"}},
        },
        "schedule": "mdlm:log-linear",
        "space": {"use": "mdlm:tokens", "with": {"dim": DIM}},
        "network": {
            "use": "tune:drafter",
            "with": {
                "architecture": LLAMA,
                "slots": slots,
                "sequential": sequential,
                "lora": {"rank": 2},
            },
        },
        "masking": "cdcd:none",
        "objective": {"use": "tune:drafting", "with": {"soft": soft}},
        "sampler": sampler,
        "train": {"steps": 2, "batch_size": 4},
        "sample": {"steps": LENGTH, **more},
    }
    assembly = dlmkit.compose(**config).assembly
    stir(assembly.network, 0.5)
    assembly.objective.eval()
    return assembly


def adapts(name):
    return ".lora_" in name or ".following." in name or name.startswith("following.")


@torch.no_grad()
def stir(network, scale):
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if adapts(name):
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def ids_of(assembly, rows=3, length=LENGTH):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(assembly.space.vocab_size, (rows, length), generator=generator)


@torch.no_grad()
def own(assembly, ids):
    """What transformers' model says of the next token, adapters at nothing."""
    network = assembly.network
    held = {n: p.clone() for n, p in network.named_parameters() if adapts(n)}
    stir(network, 0.0)
    logits = network.model(inputs_embeds=assembly.space.table(ids)).logits
    for name, parameter in network.named_parameters():
        if name in held:
            parameter.copy_(held[name])
    return logits


@torch.no_grad()
def test_the_decoder_s_own_distribution_does_not_change_by_a_bit(tmp_path):
    assembly = model(tmp_path, slots=2)
    ids, objective = ids_of(assembly), assembly.objective
    tokens, slots = objective.said(ids)
    forward = assembly.network.logits(assembly.space.table(ids), FREE)
    stir(assembly.network, 0.0)
    bare, others = objective.said(ids)
    assert torch.equal(tokens, bare)
    assert torch.equal(forward, assembly.network.logits(assembly.space.table(ids), FREE))
    assert (slots - others).abs().max() > 0.1
    assert (tokens - own(assembly, ids)).abs().max() < 1e-5


@pytest.mark.parametrize("slots", [1, 3])
@torch.no_grad()
def test_slots_see_the_tokens_before_their_block_and_each_other(slots, tmp_path):
    """All blocks at once, and each alone behind its tokens in a pass of its own."""
    assembly = model(tmp_path, slots=slots, sequential=False)
    ids, network, table = ids_of(assembly), assembly.network, assembly.space.table
    _, drafted = assembly.objective.said(ids)
    mask = torch.full((len(ids), slots), assembly.space.corruption.mask)
    for start in range(LENGTH):
        x = table(torch.cat((ids[:, :start], mask), dim=1))
        place = torch.arange(start + slots)
        seen = (place <= place[:, None]) | ((place >= start) & (place[:, None] >= start))
        with lora.acting_from(network.model, start):
            alone = network.model(
                inputs_embeds=x,
                attention_mask=network.mask(seen.expand(len(ids), 1, -1, -1), x.dtype),
                position_ids=place.clamp(max=LENGTH - 1)[None],
            ).logits
        assert (drafted[:, start] - alone[:, start:]).abs().max() < 1e-4


@torch.no_grad()
def test_what_a_slot_says_depends_on_the_token_before_it_alone_if_sequential(tmp_path):
    for sequential in (False, True):
        assembly = model(tmp_path, slots=2, sequential=sequential)
        ids = ids_of(assembly)
        other = ids.clone()
        other[:, 4] = (ids[:, 4] + 1) % assembly.space.vocab_size
        said, changed = (assembly.objective.said(row)[1] for row in (ids, other))
        # of the blocks that begin at 3 and 4, the slot behind position 4 alone
        for start, slot, depends in ((3, 0, False), (3, 1, True), (4, 0, True), (4, 1, False)):
            gap = float((said - changed)[:, start, slot].abs().max())
            assert (gap > 0.1) if (depends and sequential) else (gap < 1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_that_of_later_places_and_trains_adapters_alone(soft, tmp_path):
    assembly = model(tmp_path, slots=2, soft=soft)
    ids, objective = ids_of(assembly), assembly.objective
    given, attend = (
        torch.zeros(3, LENGTH, dtype=torch.bool),
        torch.ones(3, LENGTH, dtype=torch.bool),
    )
    given[0, :4], attend[1, 6:] = True, False
    draws = Draws(torch.tensor([0.2, 0.5, 0.8]), Noise.keyed(0, torch.arange(3), 0))
    parts = objective(Batch(ids, attend, given), draws)
    with torch.no_grad():
        tokens, slots = objective.said(ids)
        p, log_q = tokens.softmax(dim=-1), slots.log_softmax(dim=-1)
        total = count = 0.0
        for row, start, slot in itertools.product(range(3), range(LENGTH), range(2)):
            place = start + slot + 1
            if place < LENGTH and attend[row, place] and not given[row, place]:
                count += 1
                q = log_q[row, start, slot]
                total -= float(p[row, place - 1] @ q if soft else q[ids[row, place]])
    assert int(parts.count) == count
    assert float(parts.loss_sum.detach()) == pytest.approx(total, rel=1e-5)
    parts.loss_sum.backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == adapts(name), name
    assert any(p.grad.abs().max() > 0 for p in objective.parameters() if p.grad is not None)


def texts(assembly, requests, batch_size=64, seed=0, steps=LENGTH, length=LENGTH):
    parts = assemble_sampling(assembly)
    return generate(parts, requests, seed=seed, steps=steps, batch_size=batch_size, length=length)


def law(assembly, prompt, count):
    """The probability of every continuation of ``prompt`` by ``count`` tokens, by the decoder."""
    size = assembly.space.vocab_size
    every = torch.tensor(list(itertools.product(range(size), repeat=count)))
    ids = torch.cat((prompt.expand(len(every), -1), every), dim=1)
    log_p = own(assembly, ids)[..., :size].double().log_softmax(dim=-1)[:, len(prompt) - 1 : -1]
    return log_p.gather(-1, every[..., None]).sum(dim=(1, 2)).exp()


@pytest.mark.parametrize(("slots", "sequential"), [(1, False), (1, True), (2, False), (2, True)])
def test_verified_texts_have_the_decoder_s_own_law(slots, sequential, tmp_path):
    assembly = model(tmp_path, slots=slots, sequential=sequential, cache="exact")
    rows, count = 6000, 4
    size, prompt = assembly.space.vocab_size, torch.tensor([2, 3])
    expected = law(assembly, prompt, count)
    assert float(expected.sum()) == pytest.approx(1.0)
    requests = [Request.prompt(row, prompt.tolist(), 2 + count) for row in range(rows)]
    drawn = texts(assembly, requests, batch_size=rows, steps=count, length=2 + count)
    written = torch.tensor([sample.ids for sample in drawn])[:, 2:]
    index = (written * size ** torch.arange(count - 1, -1, -1)).sum(dim=1)
    seen = torch.bincount(index, minlength=size**count).double()
    likely = expected * rows >= 5
    cells = torch.cat((seen[likely], seen[~likely].sum()[None]))
    means = torch.cat((expected[likely], expected[~likely].sum()[None])) * rows
    assert chisquare(cells, means / means.sum() * cells.sum()).pvalue > 1e-3
    passes = sum(sample.evaluations for sample in drawn)
    assert passes == sum(sample.steps for sample in drawn) < rows * count  # drafts are accepted


def test_drafts_that_say_what_the_decoder_says_are_all_accepted(tmp_path):
    """Where the decoder reads nothing, slots say what it says: K + 1 tokens per pass."""
    for slots in (1, 3):
        assembly = model(tmp_path, slots=slots)
        with torch.no_grad():
            for layer in assembly.network.model.model.layers:
                layer.self_attn.o_proj.base_layer.weight.zero_()
                layer.mlp.down_proj.base_layer.weight.zero_()
            stir(assembly.network, 0.0)
            assembly.space.table.weight.copy_(assembly.space.table.weight[:1].clone())
        free, behind = (
            texts(assembly, requests)
            for requests in (unconditional(5, LENGTH), [Request.prompt(0, [2], LENGTH)])
        )
        # nothing is drafted before the first pass, nor behind a row that is not begun
        assert {sample.evaluations for sample in free} == {1 + -(-(LENGTH - 1) // (slots + 1))}
        assert behind[0].evaluations in (-(-(LENGTH - 1) // (slots + 1)), free[0].evaluations)


def test_rows_are_independent_and_a_cache_changes_no_text(tmp_path):
    requests = [
        Request.prompt(row, [2, 3, 4][: 1 + row % 3], LENGTH - row % 2) for row in range(12)
    ]
    drawn = [
        texts(model(tmp_path, slots=2, cache=cache), requests, batch_size=size)
        for cache in ("none", "exact")
        for size in (12, 1, 5)
    ]
    assert all(other == drawn[0] for other in drawn)
    assert [len(sample.ids) for sample in drawn[0]] == [LENGTH - row % 2 for row in range(12)]


def test_texts_end_with_a_token_that_ends_them(tmp_path):
    assembly = model(tmp_path, slots=2)
    requests = [Request.prompt(row, [2], LENGTH) for row in range(40)]
    whole = texts(assembly, requests)
    parts = assemble_sampling(assembly)
    ended = generate(
        replace(parts, stop=frozenset({3})),
        requests, seed=0, steps=LENGTH, batch_size=7, length=LENGTH,
    )  # fmt: skip
    for one, other in zip(whole, ended, strict=True):
        at = one.ids.index(3, 1) + 1 if 3 in one.ids[1:] else LENGTH
        assert other.ids == one.ids[:at]
        assert other.evaluations <= one.evaluations


class Watched(Wrapped):
    """Remembers the rows that it is asked about."""

    def __init__(self, inner):
        super().__init__(inner)
        self.rows = []

    def __call__(self, x, level, previous, conditioning):
        self.rows.append(x)
        return super().__call__(x, level, previous, conditioning)

    def reusing(self, counted):
        return counted


@torch.no_grad()
def test_at_temperature_0_drafts_and_texts_are_the_likeliest(tmp_path):
    sampler = {"use": "tune:verifying", "with": {"draw": {"temperature": 0.0}}}
    assembly = model(tmp_path, slots=2, sampler=sampler, sequential=False)
    size, mask = assembly.space.vocab_size, assembly.space.corruption.mask
    parts = assemble_sampling(assembly)
    watched = Watched(parts.denoise)
    (seen, *after) = stream(
        replace(parts, denoise=watched), unconditional(3, LENGTH),
        seed=0, steps=LENGTH, batch_size=3, length=LENGTH,
    )  # fmt: skip
    assert len(after) > 1
    for asked, snapshot in zip(watched.rows[1:], after, strict=True):
        begun = int((seen.x != mask).sum(dim=1)[0])
        _, slots = assembly.objective.said(seen.x[:1])
        drafts = asked[0, begun : begun + 2]
        assert drafts.tolist() == slots[0, begun - 1].argmax(dim=-1)[: len(drafts)].tolist()
        seen = snapshot
    ids = seen.x
    likeliest = own(assembly, ids)[..., :size].argmax(dim=-1)
    assert torch.equal(ids[:, 1:], likeliest[:, :-1])


def test_what_cannot_be_written_exactly_is_refused(tmp_path):
    assembly = model(tmp_path)
    with pytest.raises(UsageError, match="text 0 has a gap"):
        texts(assembly, [Request.infill(0, [[2], [3]], LENGTH)])
    with pytest.raises(UsageError, match="the grid has 3 steps"):
        texts(assembly, unconditional(1, LENGTH), steps=3)
    half = {**assembly.config.sample.model_dump(), "precision": "bf16"}
    halved = assembly.config.model_copy(update={"sample": SampleConfig(**half)})
    with pytest.raises(RecipeError, match="runs in its weights' own precision"):
        generate(
            assemble_sampling(assembly, halved), unconditional(1, LENGTH),
            seed=0, steps=LENGTH, batch_size=1, length=LENGTH,
        )  # fmt: skip
    early = assembly.config.model_copy(update={"exit": Part(use="fixed", options={"step": 2})})
    with pytest.raises(RecipeError, match="exit, freeze and guidance: tune:verifying writes"):
        assemble_sampling(assembly, early)
    with pytest.raises(RecipeError, match="words trains the table"):
        load_recipe("smollm2_diffusion", ("network.with.lora.words=true",))


def test_the_recipe_s_twin_learns_and_goes_on_from_a_prompt(tmp_path, capsys):
    load_recipe("smollm2_diffusion")
    run = tmp_path / "run"
    words = ["--out", str(run), "--set", "train.threads=1"]
    assert main(["train", "smollm2_diffusion_tiny", *words]) == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0]
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["export", str(run), str(out)]) == 0
    capsys.readouterr()
    drawn = []
    for folder in (run, out):
        asked = [str(folder), "--prompt", "what", "-n", "2", "--max-new-tokens", "9", "--json"]
        assert main(["sample", *asked]) == 0
        drawn.append(json.loads(capsys.readouterr().out))
    assert [text["text"] for text in drawn[0]] == [text["text"] for text in drawn[1]]
    assert all(text["text"].startswith("what") for text in drawn[0])
    assert all(text["steps"] <= 9 for text in drawn[0])
