"""Sources in shards: C4's files, datasets by the library, and what goes wrong with either."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError
from dlmkit_text.configs import C4, Dataset
from dlmkit_text.data import Prepared, Streamed, c4, hf
from dlmkit_text.hub import HubShards
from dlmkit_text.shards import json_shards

pytestmark = pytest.mark.usefixtures("own_cache")

BYTES = {"kind": "bytes", "size": 300}


# --- C4's shards


def test_shards_are_read_in_order_from_any_record(tmp_path: Path, write_shards, texts):
    documents = texts(50)
    write_shards(tmp_path, documents, "train", 3)
    write_shards(tmp_path, ["held out"], "validation", 1)
    train, validation = json_shards(tmp_path)
    assert (train.count, validation.count) == (3, 1)
    assert [list(train.read(i)) for i in range(3)] == [documents[i::3] for i in range(3)]
    assert list(train.read(1, 5)) == documents[1::3][5:]
    assert list(train.read(1, 10**6)) == []
    assert list(validation.all()) == ["held out"]


def test_without_validation_shards_a_share_is_held_out(tmp_path: Path, write_shards, texts):
    documents = texts(200)
    write_shards(tmp_path, documents, "train", 2)
    options = {"path": tmp_path, "validation": 0.2, "tokenizer": BYTES}
    data = c4(C4.model_validate(options), BuildContext(length=16))
    train, validation = (list(data.texts(split)) for split in ("train", "validation"))
    assert sorted(train + validation) == sorted(documents)
    assert 20 < len(validation) < 60


def test_identities_follow_the_files(tmp_path: Path, write_shards, texts):
    write_shards(tmp_path / "a", texts(20), "train", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy)
    os.utime(next((tmp_path / "b").iterdir()), (1, 1))
    a, b = (json_shards(tmp_path / name)[0] for name in "ab")
    assert (a.files == b.files, a.identity == b.identity) == (True, False)
    write_shards(tmp_path / "b", texts(21), "train", 2)
    assert json_shards(tmp_path / "b")[0].files != a.files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: gzip.compress(raw)[:-20], "shard.json.gz ends early, in line"),
        (lambda raw: gzip.compress(raw)[:10] + b"\xff" * 50, r"shard.json.gz, line \d+ cannot be"),
        (lambda raw: raw, "shard.json.gz, line 1 cannot be read: Not a gzipped file"),
        (lambda raw: gzip.compress(raw + b"{"), "line 41 is not JSON in UTF-8"),
        (lambda raw: gzip.compress(raw + b'{"text": "\xff"}'), "line 41 is not JSON in UTF-8"),
        (
            lambda raw: gzip.compress(raw + b'{"content": "a", "url": "b"}\n'),
            'line 41 holds no text under "text": its keys are content, url',
        ),
        (lambda raw: gzip.compress(raw + b'{"text": 3}\n'), "line 41 holds no text"),
        (lambda raw: gzip.compress(raw + b"[1]\n"), "line 41 holds no text.*it is no object"),
    ],
)
def test_a_damaged_shard_is_named_with_its_line(tmp_path: Path, texts, damage, message: str):
    raw = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts(40))
    (tmp_path / "c4-train.shard.json.gz").write_bytes(damage(raw))
    with pytest.raises(DataError, match=message):
        list(json_shards(tmp_path)[0].read(0))


def test_a_folder_without_shards_is_refused(tmp_path: Path, write_shards):
    with pytest.raises(DataError, match=r"holds no \*.json.gz file; C4's training shards"):
        json_shards(tmp_path)
    write_shards(tmp_path, ["a"], "validation", 1)
    with pytest.raises(DataError, match="holds only validation shards"):
        json_shards(tmp_path)
    with pytest.raises(DataError, match="missing is no folder"):
        json_shards(tmp_path / "missing")


# --- datasets


def dataset(path: Path, **options: object) -> HubShards:
    split, column = str(options.get("split", "train")), str(options.get("column", "body"))
    return HubShards(str(path), None, split, column, None)


@pytest.fixture
def rows(texts) -> list[dict[str, object]]:
    return [{"body": text, "label": i} for i, text in enumerate(texts(60))]


def write(folder: Path, form: str, rows: list[dict[str, object]]) -> Path:
    """A real dataset of two shards, or one file where the form has no folders."""
    import datasets

    folder.mkdir(exist_ok=True)
    made = datasets.Dataset.from_list(rows)
    if form == "parquet":
        for i in range(2):
            made.shard(2, i).to_parquet(folder / f"train-{i:05d}-of-00002.parquet")
        return folder
    if form == "disk":
        made.save_to_disk(folder / "saved", num_shards=2)
        return folder / "saved"
    if form == "splits":
        datasets.DatasetDict({"train": made, "other": made.select([3])}).save_to_disk(folder / "s")
        return folder / "s"
    writers = {"jsonl": made.to_json, "csv": made.to_csv}
    writers[form](folder / f"mine.{form}")
    return folder / f"mine.{form}"


@pytest.mark.parametrize("form", ["parquet", "disk", "splits", "jsonl", "csv"])
def test_a_local_dataset_is_read_in_order_from_any_record(tmp_path: Path, rows, form: str):
    folder = tmp_path / "da ta [x]*?"  # which the library would read as a pattern
    shards = dataset(write(folder, form, rows))
    wanted = [row["body"] for row in rows]
    parts = [list(shards.read(shard)) for shard in range(shards.count)]
    assert [text for part in parts for text in part] == wanted
    for shard, start in ((0, 7), (shards.count - 1, 11), (0, 10**6)):
        assert list(shards.read(shard, start)) == parts[shard][start:]
    assert shards.count == {"parquet": 2, "disk": 2}.get(form, 1)


def test_the_component_hf_in_both_modes(tmp_path: Path, rows):
    path = write(tmp_path / "set", "splits", rows)
    for mode, kind in (("stream", Streamed), ("prepared", Prepared)):
        options = {"path": str(path), "column": "body", "validation_split": "other", "mode": mode}
        config = Dataset.model_validate({**options, "tokenizer": BYTES})
        data = hf(config, BuildContext(length=8))
        assert isinstance(data, kind)
        assert sorted(data.texts("train")) == sorted(row["body"] for row in rows)
        assert list(data.texts("validation")) == [rows[3]["body"]]
        assert data.stream(0, 4).read(0, torch.arange(4)).ids.shape == (4, 8)
        assert data.validation(2).ids.shape == (2, 8)


CARD = """\
---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/c4-train.*.json.gz
  - split: validation
    path: en/c4-validation.*.json.gz
---
"""


def test_c4_by_the_library_gives_the_rows_of_its_files(tmp_path: Path, write_shards, texts):
    """A folder laid out as the hub's repository is, against the same shards read here."""
    write_shards(tmp_path / "c4" / "en", texts(90), "train", 3)
    write_shards(tmp_path / "c4" / "en", texts(9), "validation", 1)
    (tmp_path / "c4" / "README.md").write_text(CARD)
    whole = {"path": str(tmp_path / "c4"), "config": "en", "validation_split": "validation"}
    context = BuildContext(length=8)
    data = (
        hf(Dataset.model_validate({**whole, "tokenizer": BYTES}), context),
        c4(C4.model_validate({"path": tmp_path / "c4" / "en", "tokenizer": BYTES}), context),
    )
    streams = [each.stream(0, 8) for each in data]
    for step in range(30):
        ours, theirs = (own.read(step, torch.arange(8)).ids for own in streams)
        assert torch.equal(ours, theirs)
    ours, theirs = (each.validation(20).ids for each in data)
    assert torch.equal(ours, theirs)


def test_what_is_wrong_with_a_dataset_is_told(tmp_path: Path, rows):
    path = write(tmp_path / "set", "parquet", rows)
    saved = write(tmp_path / "more", "splits", rows)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.xyz").write_text("a")
    (tmp_path / "none.jsonl").write_text("")
    wrong = {
        "there is no column 'text'; there are body, label": dataset(path, column="text"),
        "Bad split: test": dataset(path, split="test"),
        "no split 'test'; there are train, other": dataset(saved, split="test"),
        "empty, split train cannot be opened": dataset(tmp_path / "empty"),
        "name has to end in one of .json, ": dataset(tmp_path / "odd.xyz"),
        "none.jsonl, split train": dataset(tmp_path / "none.jsonl"),
        "shard 0 of 2, record 0: column 'label' holds int, not text": dataset(path, column="label"),
    }
    for message, shards in wrong.items():
        with pytest.raises(DataError) as raised:
            list(shards.read(0))
        assert message in str(raised.value)


def test_a_damaged_file_of_a_dataset_is_told(tmp_path: Path, rows):
    path = write(tmp_path / "set", "parquet", rows)
    damaged = path / "train-00001-of-00002.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(DataError, match="shard 1 of 2: it cannot be read from record 0 on"):
        list(dataset(path).all())
    lines = write(tmp_path / "lines", "jsonl", rows)
    lines.write_text(lines.read_text() + "{oops\n")
    with pytest.raises(DataError, match=r"mine.jsonl, split train.*cannot be"):
        list(dataset(lines).all())


# --- the hub


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_HUB_OFFLINE": "1"},
        # the library tries again for 23 seconds; nothing is tried beyond that
        pytest.param({"HF_ENDPOINT": "http://127.0.0.1:9"}, marks=pytest.mark.slow),
    ],
    ids=["offline", "unreachable"],
)
def test_without_the_hub_the_recipe_is_shown_another_way(tmp_path: Path, variables):
    recipe = Path(__file__).parents[2] / "recipes" / "ddlm_small.yaml"
    (tmp_path / "c4.yaml").write_text(f"extends: {recipe}\ndata:\n  use: text:c4\n")
    ours = {"DLMKIT_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-m", "dlmkit", "train", "c4.yaml"],
        cwd=tmp_path,
        env={**os.environ, **ours, **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 5
    assert "Couldn't reach 'allenai/c4'" in done.stderr
    assert "--set data.with.path=DIR" in done.stderr
    assert str(tmp_path / "hub") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.json"))


# --- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "prepared", "lanes": 3}, "lanes goes with mode: stream"),
        ({"mode": "prepared", "shuffle": 3}, "shuffle goes with mode: stream"),
        ({"documents": 3}, "documents goes with mode: prepared"),
        ({"path": "x", "config": "es"}, "config and revision are of the hub's C4"),
        ({"tokenizer": {"kind": "bytes"}}, "size goes with kind: pieces or bytes"),
        ({"tokenizer": {"kind": "bytes", "size": 257}}, "at least 258"),
        ({"tokenizer": {"kind": "pretrained"}}, "name goes with kind: pretrained"),
        ({"tokenizer": {"pad": "x"}}, "pad goes with kind: pretrained, not characters"),
        (
            {"tokenizer": {"kind": "bytes", "size": 300, "lowercase": True}},
            "lowercase goes with kind: characters or pieces, not bytes",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message: str):
    with pytest.raises(ValidationError, match=message):
        C4.model_validate(options)


def test_a_resolved_choice_resolves_to_itself():
    for options in ({}, {"mode": "prepared", "documents": 5}, {"tokenizer": {}}):
        config = C4.model_validate(options)
        assert C4.model_validate_json(config.model_dump_json(), strict=True) == config
