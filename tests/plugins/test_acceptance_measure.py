"""The acceptance command, called as its users call it, on a model that has learned nothing."""

import random

import pytest

import dlmkit
from dlmkit.cli.app import main
from dlmkit.testing import pretend
from dlmkit_acceptance import document as acceptance
from dlmkit_metrics.plugin import EXAMPLE

RECIPE = """
length: 32
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
    assert main(["train", str(folder / "r.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def measured(run):
    """The document of one quick measurement with a language model and other pieces."""
    out = run.parent / "a.json"
    words = ["--judge", EXAMPLE, "--pieces", "40", "--device", "cpu", "--quick"]
    assert main(["acceptance", "measure", str(run), "--out", str(out), *words]) == 0
    return out


@pytest.mark.slow
def test_on_an_accelerator_the_figures_are_the_cpus(run, measured, tmp_path, accelerator):
    words = ["--judge", EXAMPLE, "--pieces", "40", "--device", "pretend", "--quick"]
    out = tmp_path / "b.json"
    with pretend.counted() as seen:
        assert main(["acceptance", "measure", str(run), "--out", str(out), *words]) == 0
    assert seen.launches > 1000
    here, there = (acceptance.load(path) for path in (measured, out))
    assert here["samples"] == there["samples"]
    for mine, other in zip(here["levels"], there["levels"], strict=True):
        assert mine["model"] == pytest.approx(other["model"], abs=1e-4)


@pytest.mark.slow
def test_a_model_that_knows_nothing_is_not_accepted(run, measured, capsys):
    found = acceptance.load(measured)
    assert found["subject"]["sha256"] == dlmkit.load(run).digest()
    judged = [level for level in found["levels"] if level["verdict"] is not None]
    assert {level["verdict"] for level in judged} == {"worse"}
    names = ("trigram", "bigram", "context_free")  # over all levels: 256 tokens are few
    nats = [sum(level[name] for level in judged) for name in names]
    assert nats == sorted(nats)
    assert found["samples"] == [text.text for text in dlmkit.load(run).sample(20, seed=0)]
    writers = found["infilling"]["writers"]
    assert writers["trigram"]["likeliest"]["value"] > writers["model"]["likeliest"]["value"]
    for name in ("a.png", "a-dark.png"):
        assert (measured.parent / name).read_bytes().startswith(b"\x89PNG")
    again = ["acceptance", "measure", str(run), "--out", str(measured), "--quick"]
    assert main(again) == 2  # it is there already
    capsys.readouterr()
    assert main(["acceptance", "show", str(measured)]) == 0
    shown = capsys.readouterr().out
    assert "accepted: no" in shown
    assert acceptance.markdown(found) in shown


@pytest.mark.slow
def test_writers_are_judged_by_a_language_model_beside_the_n_gram_judge(measured):
    found = acceptance.load(measured)
    assert found["protocol"]["language_model"] == "example"
    assert len(found["protocol"]["metrics"]["metrics:ar-nll"]["judge"]["sha256"]) == 64
    writers = ["model", "bigram", "trigram", "bigram of 40 pieces", "trigram of 40 pieces"]
    frontier = found["frontier"]
    assert [*frontier["writers"]] == writers
    for at in (frontier["at_human"], frontier["by_language_model"]):
        assert set(at["entropy_4"]["verdicts"]) == {*writers[1:]}
    human = frontier["human"]
    assert human["language_model_nll_per_character"]["value"] != human["nll_per_character"]["value"]
    for points in frontier["writers"].values():
        for point in points:
            assert 0.0 <= point["copied"]["value"] <= 1.0
            assert point["self_bleu"]["value"] > 0.0
    assert {*frontier["beside"]} == {"copied", "self_bleu", "distinct_4", "real_words"}


def test_bad_words_end_in_one_message(run, tmp_path, capsys):
    command, out = ["acceptance", "measure"], ["--out", str(tmp_path / "b.json")]
    for words, code, message in (
        (["nowhere"], 3, "there is no model 'nowhere'"),
        ([str(run), "-n", "3"], 2, "greater than or equal to 20"),
        ([str(run), "--temperatures", "warm"], 2, "--temperatures warm: expected two or more"),
        ([str(run), "--softmax", "1,0.8"], 2, "--softmax 1,0.8: expected two or more"),
        ([str(run), "--quick", "--judge", "./nowhere"], 5, "there is no folder ./nowhere"),
    ):
        assert main([*command, *words, *out]) == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()
    assert main(["acceptance", "show", str(run / "recipe.yaml")]) == 6
