"""Tokenizers trained on the run's own text: characters, or a small byte-pair vocabulary.

Pieces are merged inside words only, with the space before a word attached (" the"); punctuation
and digits never join letters. A newline separates documents and is always an id of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from dlmkit.core.tokenizer import PAD, UNKNOWN
from dlmkit.errors import DataError
from dlmkit_text.configs import Tokens

SEPARATOR = "\n"
_WORDS = r"\n| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+| "
_PLAIN = {
    **dict.fromkeys("‘’‛´`\x91\x92", "'"),
    **dict.fromkeys("“”„«»\x93\x94", '"'),
    **dict.fromkeys("‐‑‒–—―−\x96\x97", "-"),
    **{"…": "...", "\x85": "...", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss"},
    **{"ø": "o", "Ø": "O"},
}


def normaliser(options: Tokens) -> normalizers.Normalizer:
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


def train(documents: Sequence[str], options: Tokens) -> tokenizers.Tokenizer:
    """A tokenizer of the characters of ``documents``, or of pieces of them.

    Raises DataError if the characters alone are more than ``options.size``.
    """
    characters = sorted({SEPARATOR}.union(*documents))
    special = [PAD, UNKNOWN]
    if options.kind == "characters":
        vocabulary = {piece: index for index, piece in enumerate(special + characters)}
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN))
        backend.add_special_tokens(special)
    else:
        size = options.size or 0
        if size < len(special) + len(characters):
            raise DataError(
                f"size {size} is too small: the text has {len(characters)} different characters, "
                f"and <pad> and <unk> need an id each; raise tokenizer.size or tokenizer.rare"
            )
        backend = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
    backend.normalizer = normaliser(options)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    backend.decoder = decoders.Fuse()
    if options.kind == "pieces":
        trainer = trainers.BpeTrainer(
            vocab_size=options.size,
            min_frequency=2,
            special_tokens=special,
            initial_alphabet=characters,
            show_progress=False,
        )
        backend.train_from_iterator(documents, trainer)
    return backend
