"""AR-NLL under a tiny causal LM made here, against its own logits taken one text at a time."""

import math
from collections.abc import Iterator

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError, UsageError
from dlmkit_metrics.ar_nll import ArNllMetric
from dlmkit_metrics.configs import ArNll, Mauve
from dlmkit_metrics.divergence import MauveMetric

WORDS = ["<pad>", "<unk>", "<s>", "a", "b", "c", "d"]
TEXTS = ["a b c d", "b b", "d", "", "c a b a d b"]


def words_tokenizer(words=WORDS) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<pad>", "<unk>", "<s>"])
    return backend


class Text(Data):
    def __init__(self, words=WORDS) -> None:
        self.tokenizer = Tokenizer(words_tokenizer(words))

    def stream(self, seed, batch_size):
        raise NotImplementedError

    def validation(self, count):
        raise NotImplementedError

    def texts(self, split: str) -> Iterator[str]:
        return iter(["a b c d a b c d", "d c b a"] * 4)


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    import transformers

    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=8, n_embd=8, n_layer=1, n_head=2, initializer_range=1.0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words_tokenizer(), pad_token="<pad>", unk_token="<unk>", bos_token="<s>"
    ).save_pretrained(folder)
    return folder


def fitted(judge, data=None, **options):
    made = ArNllMetric(ArNll(judge=str(judge), **options), BuildContext(length=8))
    made.fit(data or Text())
    return made


def by_hand(metric, rows):
    """Summed nats and scored tokens, one text and one token at a time, in float64."""
    nats, count = 0.0, 0
    for row in rows:
        for i in range(1, len(row)):
            with torch.no_grad():
                logits = metric.judge.model(torch.tensor([row[:i]])).logits[0, -1].double()
            nats -= float(logits.log_softmax(-1)[row[i]])
            count += 1
    return nats, count


def ids_of(texts):
    return [[WORDS.index(word) for word in text.split()] for text in texts]


def test_nats_are_the_judges_own_whatever_the_batch(judge):
    metric = fitted(judge, batch_size=2)
    found = metric.measure(TEXTS)
    nats, count = by_hand(metric, ids_of(TEXTS))
    assert found["nll_per_token"] == pytest.approx(nats / count, rel=1e-5)
    scored = sum(len(text) for text in TEXTS if len(text.split()) > 1)
    assert found["nll_per_character"] == pytest.approx(nats / scored, rel=1e-5)
    assert found["unscored"] == pytest.approx(2 / 5)
    assert found["tokens"] == pytest.approx(13 / 5)
    assert found["human_nll_per_token"] > 0.0
    assert fitted(judge, batch_size=5).measure(TEXTS)["nll_per_token"] == pytest.approx(
        found["nll_per_token"], rel=1e-5
    )


def test_a_beginning_scores_the_first_token_and_a_context_cuts(judge):
    metric = fitted(judge, begin="bos", context=4)
    found = metric.measure(TEXTS)
    rows = [[2, *row[:3]] for row in ids_of(TEXTS)]
    nats, count = by_hand(metric, rows)
    assert found["nll_per_token"] == pytest.approx(nats / count, rel=1e-5)
    assert found["cut"] == pytest.approx(2 / 5)
    assert "nll_per_character" not in found
    assert metric.pinned()["context"] == 4
    assert metric.pinned()["begin_ids"] == [2]


def test_resampling_is_measuring_again(judge):
    metric = fitted(judge)
    again = metric.evaluate(TEXTS).again([0, 4, 4])
    whole = metric.measure([TEXTS[0], TEXTS[4], TEXTS[4]])
    for name, value in again.items():
        assert value == pytest.approx(whole[name], rel=1e-5), name


def test_ids_are_read_as_the_model_wrote_them(judge):
    metric = fitted(judge, retokenise=False)
    assert metric.evaluate(["x"], [[3, 4, 2]]).numbers["tokens"] == 3.0
    with pytest.raises(UsageError, match="only characters"):
        metric.measure(["a b"])
    with pytest.raises(UsageError, match="id 3 is 'z'"):
        fitted(judge, Text([*WORDS[:3], "z", *WORDS[4:]]), retokenise=False)


def test_a_special_token_spelt_out(judge):
    as_text, parsed = fitted(judge), fitted(judge, specials="parse")
    assert parsed._cut(["a<s>b"]) == [[3, 2, 4]]
    assert as_text._cut(["a<s>b"]) == [[1]]  # one word that the judge does not know


def test_entropy_and_distinct(judge):
    found = fitted(judge).measure(["a b", "a a"])
    assert found["entropy"] == pytest.approx(math.log(2) / 2)
    assert found["entropy_pooled"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert found["distinct_1"] == 0.5


def test_the_hash_is_of_the_weights(judge, tmp_path):
    import shutil

    first = fitted(judge).pinned()["judge"]
    assert first["dtype"] == "float32"
    other = tmp_path / judge.name
    shutil.copytree(judge, other)
    assert fitted(other).pinned()["judge"] == first
    raw = bytearray((other / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (other / "model.safetensors").write_bytes(raw)
    assert fitted(other).pinned()["judge"]["sha256"] != first["sha256"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"judge": "/nowhere/judge"}, DataError, "there is no folder"),
        ({"begin": "eos"}, UsageError, "no such token"),
        ({"context": 9}, UsageError, "more than the 8 tokens"),
    ],
)
def test_what_a_judge_cannot_serve(judge, options, error, words):
    with pytest.raises(error, match=words):
        fitted(**{"judge": judge, **options})


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(DataError, match="cannot be loaded"):
        fitted(tmp_path)


def test_a_judge_without_its_words_is_refused(judge, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((judge / file).read_bytes())
    with pytest.raises(DataError, match="no file of it holds a tokenizer's words"):
        fitted(tmp_path)


def test_mauve_tells_alike_from_different(judge):
    pytest.importorskip("mauve")
    metric = MauveMetric(Mauve(encoder=str(judge), buckets=2), BuildContext(length=8))
    metric.fit(Text())
    alike = metric.measure(["a b c d"] * 8)["human_mauve"]
    assert 0.0 <= metric.measure(["c c c"] * 8)["mauve"] <= alike <= 1.0
    assert metric.evaluate(["a b"] * 8).again is None
    with pytest.raises(DataError, match="too few"):
        metric.measure(["a"])
