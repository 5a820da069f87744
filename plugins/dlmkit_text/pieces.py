"""Tokenizers trained on the run's own text: characters, or a small vocabulary of pieces.

Byte-pair merges propose pieces, and a unigram model (Kudo 2018) keeps those that save most and
cuts words into the most probable ones. So whole words survive and the fragments on the way to
them do not: a byte-pair vocabulary has to keep " peop" for the sake of " people", an id that
hardly occurs. Pieces stay inside words, with the space before a word attached (" the");
punctuation and digits never join letters. A newline separates documents and is an id of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from dlmkit.core.tokenizer import PAD, UNKNOWN, Tokenizer
from dlmkit.errors import DataError
from dlmkit_text.configs import TextTokens

SEPARATOR = "\n"
LONGEST = 64
"""The most characters of a word. Merging inside one costs the square of its length, so a text
without spaces is cut here, and costs what any text of its length does."""
_PATTERN = rf"\n| ?\p{{L}}{{1,{LONGEST}}}| ?\p{{N}}| ?[^\s\p{{L}}\p{{N}}]{{1,{LONGEST}}}| "
_SPECIAL = [PAD, UNKNOWN]
_FEWEST = 10
_ENOUGH = 5_000_000
_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201b\u00b4`\x91\x92", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\x93\x94", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\x96\x97", "-"),
    **{"\u2026": "...", "\x85": "...", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe"},
    **{"ß": "ss", "ø": "o", "Ø": "O"},
}


def normaliser(options: TextTokens) -> normalizers.Normalizer:
    """The normalisation that is saved with the tokenizer: ``decode(encode(x))`` equals it.

    Runs of whitespace become one space, or one newline where they hold one.
    """
    steps: list[normalizers.Normalizer] = []
    if options.fold:
        steps += [normalizers.Replace(old, new) for old, new in _PLAIN.items()]
        steps += [normalizers.NFKD()]
    if options.lowercase:
        steps += [normalizers.Lowercase()]
    if options.fold:
        steps += [normalizers.StripAccents()]
    steps += [
        normalizers.Replace(Regex(r"[^\S\n]+"), " "),
        normalizers.Replace(Regex(r" *\n\s*"), SEPARATOR),
    ]
    return normalizers.Sequence(steps)


def clean(documents: Iterable[str], normalise: normalizers.Normalizer) -> list[str]:
    """Normalised documents, each on one line."""
    lines = (" ".join(normalise.normalize_str(text).split()) for text in documents)
    return [line for line in lines if line]


def alphabet(documents: Iterable[str], rare: float) -> set[str]:
    """The characters that make up at least a share ``rare`` of ``documents``."""
    counts: Counter[str] = Counter()
    for text in documents:
        counts.update(text)
    least = rare * counts.total()
    return {character for character, count in counts.items() if count >= least}


def restrict(documents: Iterable[str], keep: set[str]) -> list[str]:
    """The documents without the characters outside ``keep``."""
    documents = list(documents)
    drop = str.maketrans(dict.fromkeys(set().union(*documents) - keep - {" "}, ""))
    lines = (" ".join(text.translate(drop).split()) for text in documents)
    return [line for line in lines if line]


def train(documents: Sequence[str], options: TextTokens) -> tokenizers.Tokenizer:
    """A tokenizer of the characters of ``documents``, or of ``options.size`` pieces of them.

    Raises DataError if the characters alone are more than that.
    """
    characters = sorted({SEPARATOR}.union(*documents))
    if options.kind == "characters" or options.size is None:
        return _segmenter([*_SPECIAL, *characters], {}, options)
    if options.size < len(_SPECIAL) + len(characters):
        raise DataError(
            f"tokenizer.size {options.size} is too small: the text has {len(characters)} "
            "different characters, and <pad> and <unk> need an id each; raise size, or raise "
            "tokenizer.rare to drop rare characters"
        )
    sample = _sample(documents)
    proposed = _propose(sample, characters, options)
    return _prune(proposed, _words(proposed, sample), options)


def _segmenter(
    pieces: Sequence[str], counts: Mapping[str, int], options: TextTokens
) -> tokenizers.Tokenizer:
    """The tokenizer that cuts a word into its most probable ``pieces`` by their ``counts``."""
    total = max(sum(counts.values()), 1)
    scored = [(piece, math.log(max(counts.get(piece, 1), 1) / total)) for piece in pieces]
    unknown = pieces.index(UNKNOWN)
    return _pipeline(models.Unigram(scored, unknown, byte_fallback=False), options)


def _pipeline(model: models.Model, options: TextTokens) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normaliser(options)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(_SPECIAL)
    return backend


def _propose(
    documents: Sequence[str], characters: Sequence[str], options: TextTokens
) -> tokenizers.Tokenizer:
    """Byte-pair merges, twice as many pieces as asked for."""
    backend = _pipeline(models.BPE(unk_token=UNKNOWN), options)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * (options.size or 0),
        min_frequency=_FEWEST,
        special_tokens=_SPECIAL,
        initial_alphabet=list(characters),
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    return backend


def _words(backend: tokenizers.Tokenizer, documents: Sequence[str]) -> Counter[str]:
    """The words that pieces must lie within, and how often each occurs."""
    cut = backend.pre_tokenizer.pre_tokenize_str
    return Counter(word for text in documents for word, _ in cut(text + SEPARATOR))


def _prune(
    backend: tokenizers.Tokenizer, words: Mapping[str, int], options: TextTokens
) -> tokenizers.Tokenizer:
    """Halve the surplus of pieces, re-cut the text by what is left, and so on until size fits.

    A piece is worth the tokens it saves, its count times its length less one. Single characters
    stay, so that every text of the alphabet can be written.
    """
    size = options.size or 0
    while True:
        counts = _count(backend, words)
        pieces = Tokenizer(backend).pieces()
        longer = sorted(
            (piece for piece in pieces if len(piece) > 1 and piece not in _SPECIAL),
            key=lambda piece: (counts[piece] * (len(piece) - 1), piece),
        )
        drop = set(longer[: math.ceil(max(len(pieces) - size, 0) / 2)])
        drop.update(piece for piece in longer if counts[piece] < _FEWEST)
        if not drop and isinstance(backend.model, models.Unigram):
            return backend
        backend = _segmenter([p for p in pieces if p not in drop], counts, options)


def _count(backend: tokenizers.Tokenizer, words: Mapping[str, int]) -> Counter[str]:
    """How often each piece occurs in ``words``."""
    counts: Counter[str] = Counter()
    pieces = Tokenizer(backend).pieces()
    encoded = backend.encode_batch_fast(list(words), add_special_tokens=False)
    for item, number in zip(encoded, words.values(), strict=True):
        for index in item.ids:
            counts[pieces[index]] += number
    return counts


def _sample(documents: Sequence[str]) -> Sequence[str]:
    """Every n-th document: about four million characters teach a small vocabulary enough."""
    return documents[:: math.ceil(sum(map(len, documents)) / _ENOUGH)]
