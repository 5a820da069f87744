"""The acceptance script, called as its users call it, on a model that has learned nothing."""

import random

import pytest
from acceptance import main

import dlmkit
from dlmkit.cli.app import main as dlmkit_main
from dlmkit.evaluation import acceptance
from dlmkit.evaluation.conditions import model_digest

RECIPE = """
length: 16
data: {{use: text:text, with: {{paths: [{path}], document: line, tokenizer: {{kind: characters}}}}}}
schedule: {{use: cdcd:variance-exploding, with: {{t_min: 0.4, t_max: 20.0}}}}
space: {{use: cdcd:normalised, with: {{dim: 8, init_std: 1.0}}}}
network: {{use: cdcd:transformer, with: {{width: 16, blocks: 1, heads: 1}}}}
masking: {{use: cdcd:none}}
objective: {{use: cdcd:score-interpolation}}
sampler: {{use: samplers:euler}}
train: {{steps: 1, batch_size: 4, validate_every: 1, validation_rows: 4}}
sample: {{count: 1, steps: 4}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acceptance")
    drawn = random.Random(0)
    words = ("old", "new", "red", "tall", "mill", "by", "the")
    lines = [" ".join(drawn.choices(words, k=9)) for _ in range(800)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "r.yaml").write_text(RECIPE.format(path=folder / "text.txt"))
    assert dlmkit_main(["train", str(folder / "r.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_model_that_knows_nothing_is_not_accepted(run, tmp_path, capsys):
    out = tmp_path / "a.json"
    assert main([str(run), "--out", str(out), "--quick"]) == 0
    assert "accepted: no" in capsys.readouterr().out
    found = acceptance.load(out)
    assert found["subject"]["sha256"] == model_digest(dlmkit.load(run))
    judged = [level for level in found["levels"] if level["verdict"] is not None]
    assert {level["verdict"] for level in judged} == {"worse"}
    names = ("trigram", "bigram", "context_free")  # over all levels: 256 tokens are few
    nats = [sum(level[name] for level in judged) for name in names]
    assert nats == sorted(nats)
    assert found["samples"] == [text.text for text in dlmkit.load(run).sample(20, seed=0)]
    writers = found["infilling"]["writers"]
    assert writers["trigram"]["likeliest"]["value"] > writers["model"]["likeliest"]["value"]
    for name in ("a.png", "a-dark.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert main([str(run), "--out", str(out), "--quick"]) == 2  # it is there already


def test_bad_words_end_in_one_message(run, tmp_path, capsys):
    out = ["--out", str(tmp_path / "b.json")]
    assert main(["nowhere", *out]) == 3
    assert "there is no model 'nowhere'" in capsys.readouterr().err
    for words, message in (
        (["-n", "3"], "3 texts are too few: 20 are shown"),
        (["--temperatures", "warm"], "invalid temperatures value"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([str(run), *out, *words])
        assert message in capsys.readouterr().err
