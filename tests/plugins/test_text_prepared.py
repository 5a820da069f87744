"""Prepared text: a permutation without a table, rows on disk, one process that builds."""

import multiprocessing
import os
import resource
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError, UsageError
from dlmkit_text import cache, prepared
from dlmkit_text.codec import Codec, encoded
from dlmkit_text.configs import C4, TextFiles
from dlmkit_text.data import Prepared, c4, text
from dlmkit_text.layout import Layout
from dlmkit_text.mapped import PIECE, Mapped, checksums
from dlmkit_text.prepared import PreparedStream, tables
from dlmkit_text.shards import Listed
from dlmkit_text.shuffle import permuted, uniform
from dlmkit_text.vocabulary import byte_level

pytestmark = pytest.mark.usefixtures("own_cache")

FORK = multiprocessing.get_context("fork")
PACKED, SPLIT, CUT = Layout(8, False, False), Layout(8, True, True), Layout(8, True, False)
TOKENIZER = byte_level(["the old harbour kept its lamps"] * 3, 270)


# --- the permutation


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(-5, 5))
def test_it_is_a_permutation(size: int, seed: int, epoch: int):
    order = permuted(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(size))
    some = np.arange(size)[:: 1 + size // 7]
    assert np.array_equal(permuted(some, size, seed, epoch), order[some])


def test_it_is_pinned():
    assert permuted(np.arange(10), 10, 0, 0).tolist() == [6, 7, 3, 9, 5, 4, 2, 1, 8, 0]
    assert uniform(0, 0) == pytest.approx(0.6561149711801131, abs=1e-15)


def test_it_costs_nothing_to_look_into_a_huge_one():
    items = np.arange(10**12, 10**12 + 1000)
    order = permuted(items, 2 * 10**12, 3)
    assert len(set(order.tolist())) == 1000
    assert order.max() < 2 * 10**12


def test_neighbours_go_anywhere_and_keys_are_independent():
    size, quarters = 4096, np.zeros((4, 4))
    order = permuted(np.arange(size), size, 1, 0)
    np.add.at(quarters, (np.arange(size) * 4 // size, order * 4 // size), 1)
    # a cell holds 256 of a uniform permutation, with a standard deviation of about 12
    assert abs(quarters - size / 16).max() < 5 * 12
    assert (order == permuted(np.arange(size), size, 1, 1)).sum() < 12
    assert (np.abs(np.diff(order)) < 64).mean() < 0.06


# --- rows


def prepare(documents: list[str], layout: Layout) -> prepared.Table:
    return tables({"train": (Listed(documents, "list"), None)}, TOKENIZER, layout)["train"]


@pytest.mark.parametrize("layout", [PACKED, SPLIT, CUT])
def test_the_rows_on_disk_are_those_of_the_documents(texts, layout: Layout):
    documents = texts(40)
    table = prepare(documents, layout)
    wanted = list(layout.rows(encoded(Codec(TOKENIZER), documents)))
    batch = table.read(np.arange(table.count), 0.0)
    got = [ids[keep].tolist() for ids, keep in zip(batch.ids, batch.attend, strict=True)]
    assert got == [row.tolist() for row in wanted[: table.count]]
    assert len(wanted) - table.count <= (layout is PACKED)
    assert [TOKENIZER.decode(ids.tolist()) for ids in table.documents()] == documents
    assert bool((batch.ids[~batch.attend] == TOKENIZER.pad_id).all())


@pytest.mark.parametrize("layout", [PACKED, SPLIT, CUT])
def test_an_epoch_visits_every_row_once(texts, layout: Layout):
    table = prepare(texts(40), layout)
    whole = PreparedStream(table, 3, 8)
    rows = torch.cat([whole.read(i, torch.arange(8)).ids for i in range(-(-2 * table.count // 8))])
    for epoch in (0, 1):
        phase = uniform(prepared._DOMAIN, 3, epoch)
        own = rows[epoch * table.count : (epoch + 1) * table.count].tolist()
        assert sorted(own) == sorted(table.read(np.arange(table.count), phase).ids.tolist())
        assert own != sorted(own)
    assert not torch.equal(rows[: table.count], rows[table.count : 2 * table.count])


def test_any_slots_of_any_step_by_any_process(texts):
    table = prepare(texts(40), PACKED)
    whole = PreparedStream(table, 3, 8)
    for step in (10**9, 0, 7):
        batch = whole.read(step, torch.arange(8)).ids
        for rank in range(3):
            slots = torch.arange(rank, 8, 3)
            assert torch.equal(PreparedStream(table, 3, 8).read(step, slots).ids, batch[slots])
    assert not torch.equal(PreparedStream(table, 4, 8).read(7, torch.arange(8)).ids, batch)
    whole.restore(whole.state())
    with pytest.raises(UsageError, match="lane 0"):
        whole.restore({"lane 0": []})


def test_large_vocabularies_take_more_than_two_bytes(texts, monkeypatch: pytest.MonkeyPatch):
    documents = texts(40)
    small = prepare(documents, PACKED)
    tokenizer = byte_level(["the old harbour kept its lamps"] * 3, 270)
    tokenizer.backend.add_tokens([f"<{i}>" for i in range(70_000)])
    wide = type(tokenizer)(tokenizer.backend, unknown=None, separator="<eos>")
    assert wide.vocab_size > 1 << 16
    table = tables({"train": (Listed(documents, "list"), None)}, wide, PACKED)["train"]
    assert table.ids.items.dtype.itemsize == 4
    assert np.array_equal(table.ids.items, small.ids.items)


# --- as a component


def shards(folder: Path, write_shards, texts, count: int = 120) -> Path:
    write_shards(folder, texts(count), "train", 3)
    write_shards(folder, [f"held out {t}" for t in texts(30)], "validation", 1)
    return folder


def build(folder: Path, length: int = 8, **options: object) -> Prepared:
    options = {"mode": "prepared", "tokenizer": {"kind": "bytes", "size": 300}, **options}
    data = c4(C4.model_validate({"path": folder, **options}), BuildContext(length=length))
    assert isinstance(data, Prepared)
    return data


def test_validation_is_the_shards_of_that_name_spread_evenly(tmp_path, write_shards, texts):
    data = build(shards(tmp_path / "c4", write_shards, texts), rows="padded", length=64)
    assert all(t.startswith("held out") for t in data.texts("validation"))
    assert not any(t.startswith("held out") for t in data.texts("train"))
    assert data.validation(7).ids.shape == (7, 64)
    every = data.validation(10**6)
    assert len(every.ids) == 30
    assert torch.equal(data.validation(10).ids, every.ids[::3])
    with pytest.raises(DataError, match="'test'"):
        data.texts("test")


def test_documents_bounds_the_training_text(tmp_path, write_shards, texts):
    folder = shards(tmp_path / "c4", write_shards, texts)
    assert len(list(build(folder, documents=50).texts("train"))) == 50
    assert len(list(build(folder).texts("train"))) == 120


def test_too_little_text_says_what_to_do(tmp_path, write_shards, texts):
    data = build(shards(tmp_path / "c4", write_shards, texts), length=10_000)
    with pytest.raises(DataError, match=r"c4: the train split has text for 0 rows of 10000 tokens"):
        data.stream(0, 4)


@pytest.mark.parametrize(
    "options", [{"rows": "padded"}, {"tokenizer": {"kind": "bytes", "size": 300}}]
)
def test_text_in_memory_too(tmp_path: Path, texts, options: dict[str, object]):
    path = tmp_path / "mine.txt"
    path.write_text("\n\n".join(texts(60)))
    config = TextFiles.model_validate({"paths": [path], **options})
    data = text(config, BuildContext(length=16))
    batch = data.stream(0, 8).read(0, torch.arange(8))
    assert batch.ids.shape == (8, 16)
    words = "\n".join([*data.texts("train"), *data.texts("validation")])
    assert "harbour" in words
    if "rows" in options:
        rows = [ids[keep].tolist() for ids, keep in zip(batch.ids, batch.attend, strict=True)]
        assert all(words.count(data.tokenizer.decode(row).strip()) for row in rows)


def test_a_damaged_preparation_is_made_anew(tmp_path, write_shards, texts):
    folder = shards(tmp_path / "c4", write_shards, texts)
    first = build(folder).stream(0, 8).read(0, torch.arange(8)).ids
    path = build(folder).tables["train"].folder / "train.ids"
    path.write_bytes(path.read_bytes()[:-2])
    assert torch.equal(build(folder).stream(0, 8).read(0, torch.arange(8)).ids, first)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("name", ["train.ids", "train.ends", "train.rows"])
@pytest.mark.parametrize("rows", ["packed", "padded"])
def test_a_flipped_bit_of_a_preparation_is_noticed(tmp_path, write_shards, texts, name, rows):
    """In whatever file of it, when that place is first read."""
    folder = shards(tmp_path / "c4", write_shards, texts)
    table = build(folder, rows=rows).tables["train"]
    path = table.folder / name
    if not path.is_file():  # packed text has no rows of its own
        return
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    data = build(folder, rows=rows)

    def read() -> None:
        data.stream(0, 8).read(0, torch.arange(8))
        list(data.texts("train"))

    with pytest.raises(DataError, match=f"{name} is damaged, in bytes 0 to 1,048,576: delete"):
        read()


def test_a_piece_is_checked_when_it_is_first_read_and_once(tmp_path):
    """Elsewhere nothing is read: a damaged piece that no row needs stops no run."""
    path, each = tmp_path / "x", PIECE // 2
    np.arange(3 * each, dtype="<u2").tofile(path)
    sums = checksums(path)
    assert sums == [zlib.crc32(path.read_bytes()[i * PIECE : (i + 1) * PIECE]) for i in range(3)]
    with path.open("r+b") as file:
        file.seek(PIECE + 5)
        file.write(b"\xff\xff")
    mapped = Mapped(path, "<u2", sums)
    assert mapped.at(np.array([[0, 7], [2 * each, 3 * each - 1]])).tolist() == [
        [0, 7],
        [2 * each % 2**16, (3 * each - 1) % 2**16],
    ]
    assert mapped._unread.tolist() == [False, True, False]
    assert mapped.between(0, each).tolist() == [i % 2**16 for i in range(each)]
    for read in (
        lambda: mapped.between(each - 1, each + 1),
        lambda: mapped.at(np.array([0, each])),
    ):
        with pytest.raises(DataError, match="x is damaged, in bytes 1,048,576 to 2,097,152"):
            read()
    with pytest.raises(DataError, match="is damaged"):
        Mapped(path, "<u2", sums[:2])
    (tmp_path / "empty").touch()
    assert len(Mapped(tmp_path / "empty", "<u2", [])) == 0


@pytest.mark.parametrize("content", ["[]", "3", "[" * 5000, '{"sizes": {"x": "y"}, "sums": {}}'])
def test_a_strange_list_of_a_preparation_means_that_there_is_none(tmp_path, content):
    (tmp_path / "meta.json").write_text(content)
    assert not prepared.whole(tmp_path)


def test_who_waits_for_a_preparation_and_is_interrupted_leaves_it_alone(tmp_path, own_cache):
    began, go_on = FORK.Event(), FORK.Event()

    def build_slowly(partial: Path) -> None:
        (partial / "half").write_text("of it")
        began.set()
        assert go_on.wait(60)
        (partial / "rest").write_text("of it")

    def builder() -> None:
        cache.built("slow", lambda folder: True, build_slowly)

    def waiter() -> None:
        cache.built("slow", lambda folder: True, build_slowly)

    first, second = FORK.Process(target=builder), FORK.Process(target=waiter)
    first.start()
    assert began.wait(60)
    second.start()
    while not _waits(second.pid):
        time.sleep(0.01)
    os.kill(second.pid, signal.SIGINT)
    second.join(60)
    assert second.exitcode != 0
    assert (own_cache / "slow.partial" / "half").read_text() == "of it"
    go_on.set()
    first.join(60)
    assert first.exitcode == 0
    assert sorted(path.name for path in (own_cache / "slow").iterdir()) == ["half", "rest"]


def _waits(process: int) -> bool:
    """Whether a process waits for a lock, as Linux says."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any(" -> " in line and f" {process} " in line for line in lines)


def test_two_processes_prepare_once(tmp_path, write_shards, texts, monkeypatch, own_cache):
    folder = shards(tmp_path / "c4", write_shards, texts)
    log, write = tmp_path / "log", prepared._write

    def slow(*arguments):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {arguments[1]}\n")
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(prepared, "_write", slow)

    def child(rank: int) -> None:
        rows = build(folder).stream(0, 8).read(0, torch.arange(8)).ids
        (tmp_path / f"rows{rank}").write_text(str(rows.tolist()))

    processes = [FORK.Process(target=child, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    builders = [line.split() for line in log.read_text().splitlines()]
    assert [split for _, split in builders] == ["train", "validation"]
    assert builders[0][0] == builders[1][0]
    assert (tmp_path / "rows0").read_text() == (tmp_path / "rows1").read_text()
    assert not list(own_cache.glob("*.partial"))


def test_a_full_disk_is_told_and_nothing_is_kept(tmp_path, write_shards, texts, own_cache):
    folder = shards(tmp_path / "c4", write_shards, texts, 400)
    data = build(folder)

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with pytest.raises(DataError) as raised:
            data.stream(0, 8)
        (tmp_path / "message").write_text(str(raised.value))

    process = FORK.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    message = (tmp_path / "message").read_text()
    assert "cannot be written: File too large; free some space there" in message
    assert "DLMKIT_CACHE" in message
    assert not [path for path in own_cache.iterdir() if path.name.startswith("prepared")
                and path.suffix != ".lock"]  # fmt: skip
    assert data.stream(0, 8).read(0, torch.arange(8)).ids.shape == (8, 8)


def test_what_a_killed_process_left_is_swept(tmp_path, write_shards, texts, own_cache):
    folder = shards(tmp_path / "c4", write_shards, texts)
    name = build(folder).tables["train"].folder.name
    whole, partial = own_cache / name, own_cache / f"{name}.partial"
    whole.rename(partial)
    (partial / "rubbish").touch()
    data = build(folder)
    assert data.stream(0, 8).read(0, torch.arange(8)).ids.shape == (8, 8)
    assert not partial.exists()
    assert not (whole / "rubbish").exists()
