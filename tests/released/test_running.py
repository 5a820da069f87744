"""A released model is a MODEL like any run: sampled, measured, exported, imported."""

import json

import pytest
import torch
from safetensors.torch import load_file

import dlmkit
from dlmkit.bench.quality import Quality
from dlmkit.cli.app import main
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.model import Run
from dlmkit.plugin import Part

from .conftest import MASKS, WITHOUT, add_tokenizer

DRAWN = ("-n", "2", "--length", "12", "--steps", "4", "--json")


@pytest.fixture
def run(capsys):
    """Runs the program; gives (exit code, stdout, stderr)."""

    def call(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize("family", sorted({*MASKS, *WITHOUT, "plaid"}))
def test_every_family_draws_text_that_begins_with_the_prompt(golden, run, family):
    code, out, _ = run("sample", golden(family, words=True), *DRAWN, "--prompt", "w5 w7")
    assert code == 0
    texts = [entry["text"] for entry in json.loads(out)]
    assert all(text.startswith("w5 w7 ") for text in texts)
    assert texts[0] != texts[1]
    assert MASKS.get(family, "[UNK]") not in "".join(texts)


def test_a_duo_can_end_on_the_likeliest_tokens(golden, run):
    folder = golden("duo", words=True)
    greedy = ("--set", "sampler.with.greedy_tail=true")
    one = ("-n", "2", "--length", "12", "--steps", "1", "--json")
    # at one step the last is the first: from the same noise, by chance and by likelihood
    drawn, likeliest = (run("sample", folder, *one, *more) for more in ((), greedy))
    assert (drawn[0], likeliest[0]) == (0, 0)
    assert json.loads(drawn[1]) != json.loads(likeliest[1])


def test_a_folder_without_a_tokenizer_is_refused_before_any_text(golden, run):
    code, out, err = run("sample", golden("llada"), *DRAWN)
    assert (code, out) == (5, "")
    assert "holds no tokenizer.json" in err


def test_a_tokenizer_without_the_mask_is_refused(golden, run):
    folder = golden("a2d-qwen3")
    add_tokenizer(folder, mask=False)
    code, out, err = run("sample", folder, *DRAWN)
    assert (code, out) == (6, "")
    assert "the tokenizer has no mask token: expected <|mask|>" in err


def test_a_tokenizer_larger_than_the_table_is_refused(golden, run):
    folder = golden("llada", words=True)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["beyond"] = 120
    (folder / "tokenizer.json").write_text(json.dumps(content))
    code, out, err = run("sample", folder, *DRAWN)
    assert (code, out) == (6, "")
    assert "the tokenizer's largest id is 120, and the model's table of tokens has 120 rows" in err


def test_a_mask_outside_of_the_table_is_refused(golden, run):
    folder = golden("llada", words=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mask_token_id": 120}))
    assert "the mask's id is 120" in run("sample", folder, *DRAWN)[2]


@pytest.mark.parametrize("family", ["llada", "modernbert", "mdlm", "plaid", "duo"])
def test_an_imported_model_draws_the_same_texts(golden, run, tmp_path, family):
    source, ours = golden(family, words=True), tmp_path / "ours"
    assert run("import", source, "--out", ours)[0] == 0
    assert run("sample", ours, *DRAWN)[:2] == run("sample", source, *DRAWN)[:2]
    assert (ours / "manifest.json").is_file()
    code, _, err = run("import", ours, "--out", tmp_path / "again")
    assert (code, "is a model of dlmkit already" in err) == (2, True)
    assert run("import", source, "--out", ours)[0] == 2


def test_a_dtype_converts_and_is_kept(golden, run, tmp_path):
    ours = tmp_path / "ours"
    assert run("import", golden("sdar", words=True), "--dtype", "bf16", "--out", ours)[0] == 0
    held = load_file(ours / "model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.bfloat16}
    model = dlmkit.load(ours)
    assert {p.dtype for p in model.assembly.objective.parameters()} == {torch.bfloat16}
    assert len(model.sample(1, length=8, steps=3)) == 1


def pickle(folder):
    """The weights as torch saved them of old."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickles_are_read_only_where_they_are_asked_for(golden, run, tmp_path):
    folder, ours = golden("llada", words=True), tmp_path / "ours"
    expected = run("sample", folder, *DRAWN)[1]
    pickle(folder)
    code, out, err = run("sample", folder, *DRAWN)
    assert (code, out) == (6, "")
    assert f"'dlmkit import --pickled {folder} --out DIR'" in err
    assert run("import", "--pickled", folder, "--out", ours)[0] == 0
    assert run("sample", ours, *DRAWN)[1] == expected


class Bomb:
    def __reduce__(self):
        return print, ("a pickle ran code",)


def test_a_pickle_that_would_run_code_is_refused(golden, run, tmp_path):
    folder = golden("llada", words=True)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    code, out, err = run("import", "--pickled", folder, "--out", tmp_path / "ours")
    assert (code, out) == (6, "")
    assert "pytorch_model.bin cannot be read" in err
    assert not (tmp_path / "ours").exists()


def test_text_can_be_named_for_a_model_that_came_without(golden, run, tmp_path):
    text = tmp_path / "text.txt"
    lines = (f"w{i} w{j} w{i + j} w{j}" for i in range(1, 50) for j in range(1, 50))
    text.write_text("\n\n".join(lines))
    out = tmp_path / "a.json"
    words = ("-n", "3", "--metric", "distinct", "--out", out, "--set", "sample.steps=4")
    code, _, err = run("eval", golden("llada", words=True), *words)
    assert (code, "data.with.paths is empty" in err) == (5, True)
    said = []
    assert Quality.of(dlmkit.load(tmp_path / "llada"), said.append).metrics == ()
    assert "quality is not measured: data.with.paths is empty" in said[0]
    named = ("--set", f"data.with.paths={text}")
    code, _, err = run("exit", "quota", tmp_path / "llada", "-n", "8", *named)
    assert (code, "paths is empty" in err) == (2, False)
    assert run("eval", tmp_path / "llada", *words, *named)[0] == 0
    assert json.loads(out.read_text())


def test_rows_are_made_shorter_and_never_longer(golden, run, tmp_path):
    folder, ours = golden("llada", words=True), tmp_path / "ours"
    assert run("import", folder, "--out", ours)[0] == 0
    for place in (folder, ours):
        assert dlmkit.load(place, "length=9").config.length == 9
        code, _, err = run("sample", place, "--set", "length=65")
        assert (code, "length: 65, and rows of this model have 64 tokens" in err) == (2, True)


def test_a_released_model_has_one_set_of_weights(golden, run):
    code, _, err = run("sample", golden("llada", words=True), "--weights", "raw", *DRAWN)
    assert (code, "is a released model, of one set" in err) == (2, True)


CHAT = (
    "{% for message in messages %}<|im_start|> {{ message.content }} <|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
ASKED = [3, 9, 4, 3, 5, 6, 4, 3]


@pytest.fixture
def chatty(golden):
    """LLaDA with two more special tokens, and a template."""
    folder = golden("llada", words=True)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    for token, taken in (("<|im_start|>", "w3"), ("<|eot_id|>", "w4")):
        index = content["model"]["vocab"].pop(taken)
        content["model"]["vocab"][token] = index
        like = content["added_tokens"][0]
        content["added_tokens"].append({**like, "id": index, "content": token})
    path.write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def test_a_model_answers_by_its_own_template(chatty, run, tmp_path):
    options = ("--steps", "4", "--json", "-n", "3", "--max-new-tokens", "7")
    code, out, err = run("sample", chatty, "--chat", "w5 w6", "--system", "w9", *options)
    assert code == 0, err
    assert "3 texts of 15 tokens" in err
    model = dlmkit.load(chatty)
    said = {"chat": "w5 w6", "system": "w9", "max_new_tokens": 7}
    for request in model.requests(3, **said):
        assert list(request.tokens) == [*ASKED, *[None] * 7]
    texts = [entry["text"] for entry in json.loads(out)]
    assert texts == [text.text for text in model.sample(3, steps=4, **said)]
    assert all(len(text.split()) <= 7 for text in texts)  # the answer alone
    turns = [{"role": "system", "content": "w9"}, {"role": "user", "content": "w5 w6"}]
    for held in (turns, [turns]):
        (tmp_path / "chat.json").write_text(json.dumps(held))
        assert run("sample", chatty, "--chat-file", tmp_path / "chat.json", *options)[1] == out
    assert run("import", chatty, "--out", tmp_path / "ours")[0] == 0
    ours = run("sample", tmp_path / "ours", "--chat", "w5 w6", "--system", "w9", *options)
    assert ours[1] == out


def test_an_answer_ends_where_its_model_ends_one(chatty):
    model = dlmkit.load(chatty)
    assert model.parts.stop == {4, 116}
    requests = model.requests(4, chat="w4", max_new_tokens=20)
    whole = model.with_("sample.stop=[]").run(requests, Run(steps=4))
    words = ["w3", *(f"w{i}" for i in range(30, 60))]
    ended = model.with_(f"sample.stop={words[1:]}").run(requests, Run(steps=4))
    start = len(requests[0].tokens) - 20
    for long, short in zip(whole, ended, strict=True):
        at = next(i for i in range(start, len(long.ids)) if 30 <= long.ids[i] < 60)
        assert short.ids == long.ids[: at + 1]
    assert len({len(sample.ids) for sample in ended}) > 1
    with pytest.raises(RecipeError, match=r"sample.stop: the tokenizer has no token 'w3'"):
        model.with_(f"sample.stop={words}")


def test_what_cannot_be_answered_is_said(golden, run, chatty, tmp_path):
    def refused(*words, model=chatty):
        code, out, err = run("sample", model, "--steps", "2", *words)
        assert (code, out) == (2, "")
        return err

    assert "no chat template" in refused("--chat", "w5", model=golden("sdar", words=True))
    assert "system goes with chat" in refused("--system", "w5")
    both = ("--length", "5", "--max-new-tokens", "5")
    assert "length and max_new_tokens are both given" in refused("--chat", "w5", *both)
    gap = ("--infill", "w5 ___", "--max-new-tokens", "5")
    assert "gaps need length" in refused(*gap)
    assert "has 4 tokens, and 62 are to follow: shorten it to 2 or fewer, the model reading" in (
        refused("--chat", "w5", "--max-new-tokens", "62")
    )
    for content, why in (("{", "line 1"), ("[]", "expected a list of turns"), (None, "cannot be")):
        path = tmp_path / "chat.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        assert why in refused("--chat-file", path)


def test_guidance_of_llada_is_its_own_unsupervised_one(golden):
    """The branch that is not told reads masks, as generate's cfg_scale + 1 makes it: no part of
    the network marks what is given."""
    model = dlmkit.load(golden("llada", words=True))
    parts = model.parts
    space, denoise, mask = parts.space, parts.denoise, parts.space.corruption.mask
    ids = torch.arange(3, 27).view(2, 12)
    given = (torch.arange(12) < 5).expand(2, -1)
    x, hidden = torch.where(given, ids, mask), torch.full_like(ids, mask)
    known = Conditioning.of(space.corruption.clean(ids), given, torch.ones_like(given))
    nothing = Conditioning.of(known.clean, ~known.attend, known.attend)
    part = Part(use="classifier-free", options={"scale": 2.5})
    guided = model.assembly.build("guidance", part).wrap(denoise)
    level = Level(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]))
    with torch.no_grad():
        said, told, untold = (
            d(tokens, level, d.start(tokens), c).query[~given].log_softmax(dim=-1)
            for d, tokens, c in (
                (guided, x, known),
                (denoise, x, known),
                (denoise, hidden, nothing),
            )
        )
    assert not torch.allclose(told, untold, atol=1e-3)
    expected = (untold + 2.5 * (told - untold)).log_softmax(dim=-1)
    torch.testing.assert_close(said.exp(), expected.exp(), atol=1e-5, rtol=1e-4)
