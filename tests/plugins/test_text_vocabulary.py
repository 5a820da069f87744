"""Tokenizers by kind: bytes trained here, pretrained ones by folder, and who plays which role."""

import shutil
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dlmkit.core.context import BuildContext
from dlmkit.core.tokenizer import FILE, ROLES, Tokenizer
from dlmkit.errors import DataError
from dlmkit_text import vocabulary
from dlmkit_text.codec import Codec
from dlmkit_text.configs import C4, TextTokens
from dlmkit_text.data import c4
from dlmkit_text.vocabulary import byte_level, pretrained, sample

pytestmark = pytest.mark.usefixtures("own_cache")

TRAINED = byte_level(["the old harbour kept its lamps, the harbour"] * 5, 300)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_bytes_write_every_text(text: str):
    assert TRAINED.decode(TRAINED.encode(text)) == text
    assert TRAINED.pad_id not in TRAINED.encode(text + "<pad>")
    assert TRAINED.separator_id not in TRAINED.encode(text + "<eos>")


def test_documents_stand_on_lines_of_their_own():
    one, two, end = TRAINED.encode("and"), TRAINED.encode("god"), TRAINED.separator_id
    assert TRAINED.decode([*one, end, *two]) == "and\ngod"
    assert TRAINED.decode([end, *one, end, end, *two, end, TRAINED.pad_id]) == "and\ngod"


def test_bytes_hold_the_size_asked_for_and_whole_words():
    assert TRAINED.vocab_size <= 300
    assert " harbour" in [TRAINED.decode([i]) for i in range(TRAINED.vocab_size)]
    assert TRAINED.unknown_id is None


def test_what_is_saved_is_loaded_here_and_by_transformers(tmp_path: Path):
    TRAINED.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.roles == TRAINED.roles
    assert (again.pad_id, again.separator_id) == (TRAINED.pad_id, TRAINED.separator_id)
    assert again.backend.to_str() == TRAINED.backend.to_str()
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.pad_token_id, theirs.eos_token_id) == (again.pad_id, again.separator_id)
    assert theirs("the old lamps").input_ids == again.encode("the old lamps")
    (tmp_path / ROLES).unlink()
    assert Tokenizer.load(tmp_path).separator_id is None  # as older runs saved theirs
    (tmp_path / ROLES).write_text("{")
    with pytest.raises(DataError, match=f"{ROLES} cannot be read"):
        Tokenizer.load(tmp_path)


def word_piece(folder: Path, **roles: str) -> Path:
    """A tokenizer in the manner of BERT's, saved as transformers saves it."""
    words = ["[UNK]", "[SEP]", "[PAD]", *"abcdefghijklmnopqrstuvwxyz.,", "the", "##s", "harbour"]
    backend = tokenizers.Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    roles = {"unk_token": "[UNK]", **roles}
    PreTrainedTokenizerFast(tokenizer_object=backend, **roles).save_pretrained(folder)
    return folder


def load(folder: Path, **options: str) -> Tokenizer:
    return pretrained(str(folder), TextTokens(kind="pretrained", name=str(folder), **options))


@pytest.mark.parametrize(
    ("roles", "options", "pad", "separator", "size"),
    [
        ({"pad_token": "[PAD]", "sep_token": "[SEP]"}, {}, "[PAD]", "[SEP]", 34),
        ({"eos_token": "[SEP]"}, {}, "<pad>", "[SEP]", 35),
        ({"eos_token": "[SEP]", "sep_token": "the"}, {}, "<pad>", "[SEP]", 35),
        ({"eos_token": "[SEP]"}, {"pad": "[SEP]"}, "[SEP]", "[SEP]", 34),
        ({"pad_token": "[PAD]"}, {"separator": "the"}, "[PAD]", "the", 34),
    ],
)
def test_the_roles_of_a_pretrained_one(tmp_path: Path, roles, options, pad, separator, size):
    made = load(word_piece(tmp_path, **roles), **options)
    assert made.backend.id_to_token(made.pad_id) == pad
    assert made.backend.id_to_token(made.separator_id) == separator
    assert made.vocab_size == size
    (ids,) = Codec(made).encode(["The harbours"])
    assert ids.tolist() == [*made.encode("the harbours"), made.separator_id]


def test_what_is_wrong_with_a_pretrained_one_is_told(tmp_path: Path, monkeypatch):
    folder = word_piece(tmp_path / "bert")
    (tmp_path / "empty").mkdir()
    for options, message in (
        ({}, "has neither an eos nor a sep token; say which.*tokenizer.separator"),
        ({"separator": "[EOS]"}, r"tokenizer.separator: .*bert has no token '\[EOS\]'"),
        ({"separator": "the", "pad": "[P]"}, r"tokenizer.pad: .*bert has no token '\[P\]'"),
    ):
        with pytest.raises(DataError, match=message):
            load(folder, **options)
    with pytest.raises(DataError, match="empty cannot be loaded: it is a folder here"):
        load(tmp_path / "empty")
    (tmp_path / "empty/config.json").write_text('{"model_type": "gpt2"}')  # its weights, say
    with pytest.raises(DataError, match=r"it is a folder here, and .*no file of it holds"):
        load(tmp_path / "empty")


def test_a_name_that_nobody_knows(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"no/such cannot be loaded: .*\n.*tokenizer.name=DIR"):
        load(Path("no/such"))


def test_a_run_goes_on_with_its_own_tokenizer(tmp_path: Path, write_shards, texts):
    write_shards(tmp_path / "c4", texts(60), "train", 2)
    folder = word_piece(tmp_path / "bert", eos_token="[SEP]")
    tokens = {"kind": "pretrained", "name": str(folder)}
    for mode in ("stream", "prepared"):
        options = {"path": tmp_path / "c4", "tokenizer": tokens, "mode": mode}
        config = C4.model_validate(options)
        word_piece(tmp_path / "bert", eos_token="[SEP]")
        first = c4(config, BuildContext(length=8))
        (run := tmp_path / mode).mkdir()
        first.tokenizer.save(run)
        shutil.rmtree(folder)
        again = c4(config, BuildContext(length=8, folder=run))
        assert again.tokenizer.roles == first.tokenizer.roles
        assert again.validation(4).ids.tolist() == first.validation(4).ids.tolist()
    assert again.tables["train"].folder == first.tables["train"].folder


def test_a_trained_one_is_kept_and_found_by_the_prepared_text(
    tmp_path: Path, write_shards, texts, own_cache: Path, monkeypatch
):
    write_shards(tmp_path / "c4", texts(60), "train", 2)
    options = {"path": tmp_path / "c4", "mode": "prepared"}
    config = C4.model_validate({**options, "tokenizer": {"kind": "bytes", "size": 300}})
    first = c4(config, BuildContext(length=8))
    first.validation(1)
    (run := tmp_path / "run").mkdir()
    first.tokenizer.save(run)
    monkeypatch.setattr(vocabulary, "trained", None)
    for folder in (None, run):
        assert c4(config, BuildContext(length=8, folder=folder)).validation(1).ids.shape == (1, 8)
    assert len([path for path in own_cache.iterdir() if path.suffix != ".lock"]) == 2
    assert (next(own_cache.glob("tokenizer-*[!k]")) / FILE).is_file()


def test_a_sample_is_bounded():
    endless = iter(lambda: "x" * 10, None)
    assert len(sample(endless, 95)) == 10


def test_characters_read_shards_as_lines(tmp_path: Path, write_shards, texts):
    write_shards(tmp_path / "c4", texts(60), "train", 2)
    config = C4.model_validate({"path": tmp_path / "c4", "tokenizer": {}})
    data = c4(config, BuildContext(length=8))
    documents = list(data.texts("train"))
    assert all("\n" not in text and text == text.lower() for text in documents)
    (ids,) = Codec(data.tokenizer).encode(["The <pad> \u4e00 LAMPS\n\nof"])
    assert data.tokenizer.decode(ids.tolist()) == "the pad lamps of\n"


def test_nothing_to_learn_from(tmp_path: Path, write_shards):
    write_shards(tmp_path / "c4", [" ", ""], "train", 1)
    config = C4.model_validate({"path": tmp_path / "c4"})
    with pytest.raises(DataError, match="no text is left to train a tokenizer on"):
        c4(config, BuildContext(length=8))
