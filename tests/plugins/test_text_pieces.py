"""Words have an end even where spaces have none, so that merging costs what the text is long."""

import pytest

from dlmkit_text import pieces, vocabulary
from dlmkit_text.configs import TextTokens

TEXTS = {
    "letters": "etaoinshrdlu" * 3_000,
    "ideographs": "天地玄黄宇宙洪荒" * 3_000,
    "signs": "-=+*/." * 4_000,
    "mixed": "ab-" * 9_000,
}
TRAINED = {
    "pieces": lambda text: vocabulary.trained(TextTokens(kind="pieces", size=64), [text], "text"),
    "bytes": lambda text: vocabulary.byte_level([text], 300),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", TRAINED)
def test_merging_a_text_without_spaces_is_linear_in_its_length(kind, text):
    """Counted: merges look at each pair of a word once for each that is made in it, so a word
    costs the square of its length at worst. With words of a bounded length, the sum is linear."""
    tokenizer = TRAINED[kind](TEXTS[text])
    cut = tokenizer.backend.pre_tokenizer.pre_tokenize_str
    for times in (1, 2, 4):
        words = [end - start for _, (start, end) in cut(TEXTS[text] * times)]
        characters = len(TEXTS[text]) * times
        assert sum(words) == characters
        assert max(words) <= pieces.LONGEST + 1
        assert sum(length**2 for length in words) <= (pieces.LONGEST + 1) * characters
    assert tokenizer.decode(tokenizer.encode(TEXTS[text])) == TEXTS[text]


@pytest.mark.parametrize("kind", TRAINED)
def test_words_of_usual_length_are_cut_as_ever(kind):
    tokenizer = TRAINED[kind]("the quick brown fox - it's said - jumped 12 times over it " * 30)
    cut = tokenizer.backend.pre_tokenizer.pre_tokenize_str
    longest = "x" * (pieces.LONGEST - 1)
    text = f"the {longest} fox"
    assert [text[start:end] for _, (start, end) in cut(text)] == ["the", f" {longest}", " fox"]
