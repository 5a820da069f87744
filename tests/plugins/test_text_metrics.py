"""The n-gram metrics on a small language of their own."""

import math
from collections.abc import Iterator

import pytest

from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError
from dlmkit_text.configs import NgramEntropy, NgramJudge, TextFiles
from dlmkit_text.cut import held_out, stretches
from dlmkit_text.data import Prepared, text
from dlmkit_text.metrics import NgramEntropyMetric, NgramJudgeMetric

CONTEXT = BuildContext(length=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("metrics")
    lines = [f"the {a} {b} saw a {c} {d}" for a in A for b in B for c in A for d in B]
    (folder / "lines.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLMKIT_CACHE", str(folder / "cache"))
        options = {"kind": "pieces", "size": 48}
        config = TextFiles(paths=[folder], document="line", validation=0.2, tokenizer=options)
        yield text(config, CONTEXT)


A = ("red", "green", "tired", "quick", "little")
B = ("horse", "farmer", "river", "lantern", "ship")


def judge(data: Prepared, **options: object) -> NgramJudgeMetric:
    made = NgramJudgeMetric(NgramJudge.model_validate(options), CONTEXT)
    made.fit(data)
    return made


def diversity(data: Prepared, **options: object) -> NgramEntropyMetric:
    made = NgramEntropyMetric(NgramEntropy.model_validate(options), CONTEXT)
    made.fit(data)
    return made


def test_the_judge_prefers_real_text_to_shuffled(data: Prepared):
    metric = judge(data)
    real = ["the quick river saw a red ship", "the red ship saw a quick river"]
    found = metric.measure(real)
    shuffled = metric.measure(["".join(sorted(text)) for text in real])
    assert found["nll_per_character"] < 0.6 < 2.5 < shuffled["nll_per_character"]
    assert found["human_nll_per_character"] == shuffled["human_nll_per_character"]
    assert all(type(value) is float for value in found.values())


def test_tokens_and_characters_count_the_same_nats(data: Prepared):
    sample = ["the quick river saw a red ship"]
    found = judge(data, unit="tokens", order=3).measure(sample)
    tokens = len(data.tokenizer.encode(sample[0]))
    assert found["nll_per_token"] * tokens == pytest.approx(
        found["nll_per_character"] * len(sample[0])
    )


def test_characters_that_the_text_lacks_cost_much_but_not_infinity(data: Prepared):
    found = judge(data).measure(["the 7 \N{SNOWMAN} ship"])
    assert 1.0 < found["nll_per_character"] < 20.0


def test_human_text_has_the_samples_number_and_lengths(data: Prepared):
    texts = held_out(data, ["x" * 10, "x" * 30, ""])
    assert [len(text) for text in texts] == [10, 30, 0]
    whole = "\n".join(data.texts("validation"))
    assert all(text in whole for text in texts)


def test_stretches_come_from_all_over_the_text():
    texts = stretches(["a" * 100, "b" * 100, "c" * 100], ["x" * 20] * 5)
    assert [text[0] for text in texts] == ["a", "a", "b", "b", "c"]


def test_entropy_of_known_texts(data: Prepared):
    found = diversity(data).score(["abab", "abab"])
    assert found["entropy_1"] == pytest.approx(math.log(2))
    assert found["entropy_4"] == pytest.approx(0.0)
    assert found["distinct_4"] == pytest.approx(0.5)
    found = diversity(data, unit="words").score(["a b c d e"])
    assert found["entropy_4"] == pytest.approx(math.log(2))
    assert found["entropy_1"] == pytest.approx(math.log(5))


def test_repetition_is_seen_by_the_4_grams_where_the_1_grams_are_blind(data: Prepared):
    varied = "\n".join(data.texts("train"))[:2000]
    looped = varied[:40] * 50
    metric = diversity(data)
    a, b = metric.score([varied]), metric.score([looped])
    assert a["entropy_1"] - b["entropy_1"] < 0.5
    assert a["entropy_4"] - b["entropy_4"] > 1.0
    assert b["distinct_4"] < 0.05


def test_real_words_leave_out_the_cut_ends(data: Prepared):
    assert diversity(data).score(["orse saw a red shi"])["real_words"] == 1.0
    assert diversity(data).score(["the saw bluh red the"])["real_words"] == pytest.approx(2 / 3)


def test_empty_samples_have_no_numbers(data: Prepared):
    assert judge(data).measure([""]) == {}
    assert diversity(data).measure(["", ""]) == {}
    assert judge(data).measure([]) == {}


def test_too_little_training_text(data: Prepared):
    with pytest.raises(DataError, match="1000000-grams"):
        judge(data, order=1_000_000)
