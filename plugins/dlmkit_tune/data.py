"""Conversations from JSON lines or through `datasets`, as rows of which answers are learned."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from torch import Tensor

from dlmkit import documents, files, folders
from dlmkit.core.chat import Role, Turn
from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data, Stream
from dlmkit.core.objective import Batch
from dlmkit.errors import DataError, Notice, UsageError
from dlmkit.files import quoted
from dlmkit_text.hub import opened_rows
from dlmkit_text.shuffle import permuted
from dlmkit_text.sources import digest, held_out
from dlmkit_text.vocabulary import obtain
from dlmkit_tune import configs
from dlmkit_tune.rows import Exchange, RowTable, texts

EXAMPLE = Path(__file__).parent / "example" / "questions.jsonl"
_DOMAIN = 0x7C4E
Conversation = tuple[Turn, ...]


class ConversationData(Data):
    """Each answer with all that was said before it is a text; of its row only the answer is noised
    and learned. Everything is tokenised when training begins, and held in memory."""

    packed = False

    def __init__(self, config: configs.Conversations, context: BuildContext) -> None:
        conversations = list(_conversations(config))
        self.name, self.count = _name(config), len(conversations)
        written = [_written(turns) for turns in conversations]
        split = ["validation" if held_out(text, config.validation) else "train" for text in written]
        train = [text for text, part in zip(written, split, strict=True) if part == "train"]
        identity = digest("\0".join(written)).hex()
        self.tokenizer = obtain(
            config.tokenizer, lambda: iter(train), identity, self.name, context.folder
        )
        self.length = context.length
        self._texts: dict[str, list[Exchange]] = {"train": [], "validation": []}
        self.left_out = 0
        for turns, part in zip(conversations, split, strict=True):
            for text in self._tokenised(turns, config):
                fits = text.size <= self.length
                if fits or (config.long == "truncate" and len(text.question) < self.length):
                    self._texts[part].append(_cut(text, self.length))
                else:
                    self.left_out += 1
        self.tables = {
            part: RowTable(
                rows,
                self.length,
                self.tokenizer,
                packed=self.packed,
                learned=config.padding == "learned",
            )
            for part, rows in self._texts.items()
        }
        self._refuse_empty()
        if self.left_out:
            warnings.warn(
                f"{self.name}: {self.left_out} texts are longer than {self.length} tokens and left "
                "out; raise length to have them",
                Notice,
                stacklevel=2,
            )

    def _tokenised(self, turns: Conversation, config: configs.Conversations) -> list[Exchange]:
        try:
            return list(texts(turns, self.tokenizer, config.answers))
        except UsageError as error:  # of a conversation that a user would have typed
            raise DataError(f"{self.name}: {error}") from error

    def _refuse_empty(self) -> None:
        for part, rows in self._texts.items():
            if not rows:
                long = f"; {self.left_out} were longer than {self.length} tokens"
                why = long if self.left_out else ""
                raise DataError(
                    f"{self.name}: the {part} split has no answer to learn from, of {self.count} "
                    f"conversations{why}; give more, raise length, or change data.with.validation"
                )

    def stream(self, seed: int, batch_size: int) -> Stream:
        return ConversationStream(self.tables["train"], seed, batch_size)

    def validation(self, count: int) -> Batch:
        rows = len(self.tables["validation"].rows)
        count = min(count, rows)
        return self.tables["validation"].batch(np.arange(count, dtype=np.int64) * rows // count)

    def texts(self, split: str) -> Iterator[str]:
        if split not in self._texts:
            raise DataError(f"there is no split {split!r}; there are {list(self._texts)}")
        decode = self.tokenizer.decode
        return (decode([*question, *answer]) for question, answer in self._texts[split])

    def describe(self) -> str:
        table, answers = self.tables["train"], self._texts["train"]
        learned = sum(len(answer) for _, answer in answers)
        return (
            f"{self.name}: {len(answers):,} answers of {learned:,} tokens in {len(table.rows):,} "
            f"{'packed' if self.packed else 'padded'} rows; resumes exactly"
        )


class PackedConversations(ConversationData):
    """Several texts in a row, none of which sees another."""

    packed = True


class ConversationStream(Stream):
    """Every epoch gives every row once, in another order."""

    def __init__(self, table: RowTable, seed: int, batch_size: int) -> None:
        self.table, self.seed, self.batch_size = table, seed, batch_size

    def read(self, step: int, slots: Tensor) -> Batch:
        items, count = step * self.batch_size + slots.numpy(), len(self.table.rows)
        rows = np.empty_like(items)
        for epoch in np.unique(items // count):
            here = items // count == epoch
            rows[here] = permuted(items[here] % count, count, _DOMAIN, self.seed, int(epoch))
        return self.table.batch(rows)

    def state(self) -> Mapping[str, Any]:
        """Empty: a row follows from its step and slot."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore. Raises UsageError if there is."""
        if state:
            raise UsageError(f"this data keeps no state, but a checkpoint has {sorted(state)}")


def _cut(text: Exchange, length: int) -> Exchange:
    return Exchange(text.question, text.answer[: length - len(text.question)])


def _written(turns: Conversation) -> str:
    """A conversation as text that a tokenizer can learn from, a turn per line."""
    return "\n".join(turn.content for turn in turns)


def _name(config: configs.Conversations) -> str:
    return config.dataset or ", ".join(map(str, _files(config)))


def _files(config: configs.Conversations) -> Sequence[Path]:
    return [EXAMPLE] if config.paths is None else config.paths


def _conversations(config: configs.Conversations) -> Iterator[Conversation]:
    records = _lines(config) if config.dataset is None else _rows(config)
    for number, (where, record) in enumerate(records):
        if number == config.most:
            return
        yield _turns(record, config, where)


def _lines(config: configs.Conversations) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where it stands, the record) of every line of every file."""
    for path in _files(config):
        try:
            text = files.read_text(folders.expanded(str(path)))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = documents.parse(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: it is no JSON: {error}") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number}: expected a record, got {quoted(line)}")
            yield f"{path}, line {number}", record


def _rows(config: configs.Conversations) -> Iterator[tuple[str, Mapping[str, Any]]]:
    name, split = str(config.dataset), config.split or "train"
    for number, record in enumerate(opened_rows(name, config.config, split, config.revision)):
        yield f"{name}, split {split}, record {number}", record


def _turns(record: Mapping[str, Any], config: configs.Conversations, where: str) -> Conversation:
    if config.prompt is not None and config.response is not None:
        said = [_column(record, name, where) for name in (config.prompt, config.response)]
        for name, text in zip((config.prompt, config.response), said, strict=True):
            if not isinstance(text, str):
                raise DataError(f"{where}: column {name!r} is {quoted(text)}; expected a text")
        return Turn("user", said[0]), Turn("assistant", said[1])
    messages = _column(record, config.messages or "messages", where)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(f"{where}: {quoted(messages)} is no list of messages")
    return tuple(_turn(message, where) for message in messages)


def _column(record: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in record:
        there = ", ".join(sorted(record)) or "none"
        raise DataError(
            f"{where}: there is no column {name!r}; there are {there} "
            "(data.with.messages, or data.with.prompt and response, say which are meant)"
        )
    return record[name]


def _turn(message: Any, where: str) -> Turn:
    if isinstance(message, Mapping):
        role, content = message.get("role"), message.get("content")
        if role in get_args(Role) and isinstance(content, str):
            return Turn(cast(Role, role), content)
    raise DataError(
        f"{where}: {quoted(message)} is no "
        f'message {{"role": ..., "content": TEXT}}, the role one of {", ".join(get_args(Role))}'
    )
