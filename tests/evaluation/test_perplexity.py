"""Perplexity of text files: every token once, and the chain's own entropy on its own texts."""

import itertools
import json
import math

import pytest

from dlmkit.cli.app import main
from dlmkit.errors import DataError, UsageError
from dlmkit.evaluation.perplexity import TextWindow, perplexity, windows
from dlmkit.evaluation.score import Scoring, scorer
from dlmkit.model import Model, open_model


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("markov_masked")


@pytest.mark.parametrize(
    ("tokens", "context", "stride"), [(10, 4, 2), (11, 4, 4), (3, 8, 1), (8, 8, 8), (9, 8, 1)]
)
def test_windows_share_out_all_tokens(tokens: int, context: int, stride: int):
    found = list(windows(tokens, context, stride))
    scored = [i for w in found for i in range(w.scored, w.stop)]
    assert scored == list(range(tokens))
    assert all(w.stop - w.start <= context and w.start <= w.scored for w in found)
    assert all(w.stop - w.start == min(context, tokens) for w in found)
    assert all(w.stop - w.scored <= stride for w in found[1:])


def test_by_hand():
    assert list(windows(7, 4, 2)) == [TextWindow(0, 0, 4), TextWindow(2, 4, 6), TextWindow(3, 6, 7)]


def test_a_window_behind_the_first_is_exact_for_a_chain(model: Model, tmp_path, capsys):
    """A chain needs one token of context, so any stride but the whole window's is exact."""
    ids = [t for row in model.data.validation(3).ids.tolist() for t in row]
    text = model.assembly.tokenizer.decode(ids)
    (tmp_path / "a.txt").write_text(text)
    words = ["perplexity", "markov_masked", str(tmp_path / "a.txt"), "--block", "1", "--json"]
    assert main([*words, "--context", "8", "--stride", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    chain = model.data.chain  # type: ignore[attr-defined]
    own = [i - 1 for i in ids]
    nats = -math.log(chain.initial[own[0]])
    nats -= sum(math.log(chain.transition[a, b]) for a, b in itertools.pairwise(own))
    assert found["nats_per_token"] == pytest.approx(nats / len(ids))
    assert found["perplexity"] == pytest.approx(math.exp(nats / len(ids)))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text.encode()))
    low, high = found["nats_per_token_interval"]
    assert low < found["nats_per_token"] < high
    assert found["protocol"]["stride"] == 4
    assert "exact" in found["protocol"]["likelihood"]
    assert main([*words[:3], "--draws", "4"]) == 0
    assert "stride 16; bound by 4 keyed draws" in capsys.readouterr().out


def test_an_override_of_the_recipe_is_heard(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("w00 w01 w02 w03 w00 w01 w02 w03")
    words = ["perplexity", "markov_masked", str(tmp_path / "a.txt"), "--block", "1"]
    assert main([*words, "--set", "length=6"]) == 0
    assert "windows of 6 tokens, stride 3" in capsys.readouterr().out
    assert main([*words, "--set", "lenght=6"]) == 3
    assert "did you mean 'length'" in capsys.readouterr().err


def test_what_cannot_be_scored_is_refused(model: Model, tmp_path, capsys):
    made = scorer(model.parts, Scoring(block=1))
    with pytest.raises(UsageError, match="--stride 5: expected from 1 to the context, 4"):
        perplexity(made, [("w00", [1])], 4, 5)
    with pytest.raises(DataError, match="hold no token"):
        perplexity(made, [("", [])], 4, 2)
    path = tmp_path / "a.txt"
    path.write_text("w00 hello")
    assert main(["perplexity", "markov_masked", str(path)]) == 5
    assert "hello" in capsys.readouterr().err
    assert main(["perplexity", "markov_masked", str(path), "--context", "99"]) == 2
    assert "at most 32 tokens" in capsys.readouterr().err
    assert main(["perplexity", "markov_masked", str(tmp_path / "b.txt")]) == 5
    assert main(["perplexity", "markov_masked", str(path), "--draws", "3"]) == 2
