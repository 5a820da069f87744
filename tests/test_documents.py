"""JSON of strangers: what is no JSON, too deep, too long or of another shape is one sentence."""

import ast
import json
import os
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import pytest
import tokenizers
import torch
from tokenizers import models

import dlmkit
from dlmkit import documents
from dlmkit.core.tokenizer import MOST, Tokenizer
from dlmkit.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested more than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested more than 64 levels"),
        ("9" * 5000, "an integer of 5000 digits"),
        ('{"a": ["\\ud800"]}', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        (b'"\xed\xa0\x80"', "utf-8"),
        (b'\xff\xfe"\x00', "utf-8"),
        ("", "Expecting value"),
        ("{'a': 1}", "Expecting property name"),
    ],
)
def test_what_no_reader_can_use_is_a_value_error(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        documents.parse(text)


def test_what_is_written_is_read():
    value = {"a": [1, -1.5, None, True, {"b": "ü \U0001f600"}], "c": 2**63}
    deep = 1
    for _ in range(63):
        deep = [deep]
    for good in (value, deep, []):
        assert documents.parse(json.dumps(good)) == good
        assert documents.parse(json.dumps(good, ensure_ascii=False).encode()) == good


@dataclass(frozen=True)
class Point:
    x: float
    word: Literal["a", "b"] = "a"


class Holder(documents.Shape):
    points: dict[str, list[Point]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "expected an object, got []"),
        ({}, "it has no points"),
        ({"points": {"p": [{"x": "1"}]}}, "points.p.0.x: expected a valid number, got '1'"),
        ({"points": {"p": [{"x": True}]}}, "points.p.0.x: expected a valid number, got True"),
        ({"points": {"p": [{"x": 1, "word": "c"}]}}, "points.p.0.word: expected 'a' or 'b'"),
        ({"points": {"\x1b[2J": 3}}, "points.'\\x1b[2J': expected a valid array, got 3"),
        ({"points": {"p": "q" * 9999}}, "got 'qqqqqq"),
    ],
)
def test_another_shape_is_a_sentence_that_says_where(content, words):
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        documents.shaped(content, Holder)
    assert len(str(raised.value)) < 200


def test_the_right_shape_is_read_and_other_keys_are_no_matter():
    found = documents.shaped({"points": {"p": [{"x": 1}]}, "more": [1]}, Holder)
    assert found.points == {"p": [Point(1.0)]}


def test_a_seal_covers_what_is_said_and_every_tensor():
    said = {"b": [1, {"c": None}], "a": "ü"}
    tensors = {"x": torch.arange(6).view(2, 3), "one": torch.tensor(0.5)}
    document = documents.sealed(said, tensors)
    assert documents.intact(dict(reversed(document.items())), dict(reversed(tensors.items())))
    assert not documents.intact({**document, "b": [1, {"c": False}]}, tensors)
    assert not documents.intact(document)
    for other in (tensors["x"].view(3, 2), tensors["x"].int(), tensors["x"] + 1):
        assert not documents.intact(document, {**tensors, "x": other})
    assert not documents.intact(said)


def test_a_new_file_is_made_where_nothing_is(tmp_path):
    documents.check_new(None, tmp_path / "a")
    documents.write_new(tmp_path / "a", "first")
    for refused in (documents.check_new, lambda path: documents.write_new(path, "x")):
        with pytest.raises(UsageError, match="a exists already: give another name, or remove it"):
            refused(tmp_path / "a")
    documents.check_writable(tmp_path / "a")
    documents.write(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_text() == "second"
    for refused in (documents.check_new, documents.check_writable):
        with pytest.raises(UsageError, match=r"no folder .*/none to write b to"):
            refused(tmp_path / "none" / "b")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        documents.write(tmp_path / "none" / "b", "x")
    with pytest.raises(UsageError, match="exists already"):
        documents.check_new_folder(tmp_path)
    documents.check_new_folder(tmp_path / "none")


def test_what_could_not_be_written_after_the_work_is_refused_before_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for check, name, said in (
        (documents.check_writable, "", "it is a folder"),
        (documents.check_new_folder, "file/sub/new", "file is a file"),
    ):
        with pytest.raises(UsageError, match=said):
            check(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda place, how: Path(place) != tmp_path)
    documents.check_writable(tmp_path / "file")
    for check in (documents.check_writable, documents.check_new, documents.check_new_folder):
        with pytest.raises(UsageError, match=r"new cannot be written: this user may not write to"):
            check(tmp_path / "new")


def test_differences_are_said_leaf_by_leaf():
    before = {"a": {"b": [1, 2], "c": "d" * 64}, "gone": True, "one": 1}
    after = {"a": {"b": [1, 3, {"x": 1}], "c": "e" * 64}, "new": None, "one": True}
    assert [str(one) for one in documents.differences(before, after)] == [
        "a.b.1: 2 -> 3",
        'a.b.2: nothing -> {"x": 1}',
        "a.c: dddddddddddd... -> eeeeeeeeeeee...",
        "gone: true -> nothing",
        "one: 1 -> true",
        "new: nothing -> null",
    ]
    assert not list(documents.differences(before, before))


def test_versions_of_absent_packages_are_null():
    assert documents.versions(("torch", "no-such-package")) == {
        "torch": version("torch"),
        "no-such-package": None,
    }


OWN = {
    "dlmkit/documents.py": "the reader itself",
    "dlmkit/files.py": "what it reads by",
    "plugins/dlmkit_text/shards.py": "lines of C4, which are checked one key at a time",
    "dlmkit/testing/texts.py": "what it has just written",
    "dlmkit/testing/trackers.py": "what it has just written",
}


def test_json_is_read_in_one_place():
    """Whoever needs JSON asks dlmkit.documents, or says here why not."""
    root = Path(dlmkit.__file__).parent.parent
    found = set()
    for path in (*root.glob("dlmkit/**/*.py"), *root.glob("plugins/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.loads", "json.load"):
                found.add(path.relative_to(root).as_posix())
    assert found <= OWN.keys(), f"{sorted(found - OWN.keys())}: read it by dlmkit.documents"


def test_a_vocabulary_of_four_billion_tokens_is_refused(tmp_path):
    """An id is a row of the embedding, whatever the number of tokens."""
    (tmp_path / "tokenizer.json").write_text(
        '{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], '
        '"normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, '
        '"model": {"type": "WordLevel", "vocab": {"<pad>": 0, "<unk>": 4294967295}, '
        '"unk_token": "<unk>"}}'
    )
    with pytest.raises(
        DataError, match=f"largest id is 4294967295: a vocabulary has 1 to {MOST:,}"
    ):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("roles", ['{"pad_token": 7}', "[]", '{"unk_token": {"content": 7}}'])
def test_roles_of_tokens_are_text(tmp_path, roles):
    backend = tokenizers.Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    Tokenizer(backend).save(tmp_path)
    assert Tokenizer.load(tmp_path).vocab_size == 2
    # transformers writes a token with all that it does
    (tmp_path / "tokenizer_config.json").write_text('{"unk_token": {"content": "<unk>"}}')
    assert Tokenizer.load(tmp_path).unknown_id == 1
    (tmp_path / "tokenizer_config.json").write_text(roles)
    with pytest.raises(DataError, match=r"tokenizer_config.json cannot be read"):
        Tokenizer.load(tmp_path)
