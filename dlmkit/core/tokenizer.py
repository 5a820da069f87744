"""The tokenizer of a run: a `tokenizers` pipeline, saved with the run as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tokenizers

from dlmkit import documents, files
from dlmkit.core.chat import Template, Turn
from dlmkit.errors import DataError, UsageError

FILE = "tokenizer.json"
ROLES = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
PAD = "<pad>"
UNKNOWN = "<unk>"


MOST = 2**22
"""The largest vocabulary: sixteen times the largest of a published model (2**18)."""


class _Added(documents.Shape):
    content: str


class _Named(documents.Shape):
    name: str
    template: str


class _Roles(documents.Shape):
    pad_token: str | _Added | None = None
    unk_token: str | _Added | None = None
    eos_token: str | _Added | None = None
    bos_token: str | _Added | None = None
    sep_token: str | _Added | None = None
    cls_token: str | _Added | None = None
    mask_token: str | _Added | None = None
    chat_template: str | list[_Named] | None = None

    def token(self, role: str) -> str | None:
        """The token of a role, which others' folders write with all that it does."""
        value = getattr(self, f"{role}_token")
        return value.content if isinstance(value, _Added) else value

    def tokens(self) -> dict[str, str]:
        """The tokens of all roles that there are, by the names that templates use."""
        by_role = {
            name: self.token(name.removesuffix("_token"))
            for name in type(self).model_fields
            if name.endswith("_token")
        }
        return {name: token for name, token in by_role.items() if token is not None}

    def template(self) -> str | None:
        """The chat template; of several the one called default."""
        if isinstance(self.chat_template, list):
            return {named.name: named.template for named in self.chat_template}.get("default")
        return self.chat_template


class Tokenizer:
    """Text to ids and back. ``vocab_size`` is V; ``pad_id`` fills padded positions.

    ``separator_id`` is the special token that ends every document, if the tokenizer has one, and
    ``template`` writes conversations, if it has one.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        pad: str = PAD,
        unknown: str | None = UNKNOWN,
        separator: str | None = None,
        template: Template | None = None,
    ) -> None:
        self.roles = {"pad_token": pad, "unk_token": unknown, "eos_token": separator}
        # otherwise a text that spells "<pad>" would be read as the token
        backend.encode_special_tokens = True
        self.backend, self.template = backend, template
        self.pad_id: int = _id(backend, pad, "which padded positions need")
        self.separator_id = (
            None if separator is None else _id(backend, separator, "which is to end documents")
        )
        self.unknown_id: int | None = None if unknown is None else backend.token_to_id(unknown)
        self.vocab_size: int = max(backend.get_vocab().values(), default=-1) + 1
        if not 0 < self.vocab_size <= MOST:
            raise DataError(
                f"the tokenizer's largest id is {self.vocab_size - 1}: a vocabulary has 1 to "
                f"{MOST:,} tokens"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``. Raises DataError, naming what is outside the vocabulary.

        What spells a special token is text like any other.
        """
        return self._encoded(text)

    def conversation(self, turns: Sequence[Turn]) -> list[int]:
        """The ids of a conversation, up to where the model's answer begins, by its template.

        What spells a special token in a turn is text like any other. Raises UsageError if there
        is no template, or it refuses these turns, and DataError as :meth:`encode`.
        """
        if self.template is None:
            raise UsageError(
                "this model's tokenizer has no chat template, so the model was probably not made "
                "to chat: give the text as a prompt, or put the template of the same model beside "
                f"its tokenizer as {TEMPLATE}"
            )
        said = "".join(turn.content for turn in turns)
        opens, closes = [chr(i) for i in range(0xE000, 0xF8FF) if chr(i) not in said][:2]
        # a turn that spells one is marked, and read apart from what the template writes
        marked = [
            replace(turn, content=f"{opens}{turn.content}{closes}")
            if self._spells_special(turn.content)
            else turn
            for turn in turns
        ]
        pieces = re.split(f"{opens}(.*?){closes}", self.template.text(marked), flags=re.DOTALL)
        if any(opens in piece or closes in piece for piece in pieces):
            raise UsageError(
                "a turn of the conversation spells a special token, and the tokenizer's chat "
                "template takes it apart: leave that out of the turn"
            )
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            ids += self._encoded(piece, special=place % 2 == 0)
        return ids

    def _spells_special(self, text: str) -> bool:
        added = self.backend.get_added_tokens_decoder()
        return any(i in added and added[i].special for i in self._encoding(text, special=True).ids)

    def _encoding(self, text: str, special: bool) -> tokenizers.Encoding:
        """``text`` encoded; with ``special`` what spells a special token is that token."""
        self.backend.encode_special_tokens = not special
        try:
            return self.backend.encode(text, add_special_tokens=False)
        finally:
            self.backend.encode_special_tokens = True

    def _encoded(self, text: str, special: bool = False) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{files.quoted(text)} is no text: its character {error.start + 1} is half of a "
                "UTF-16 pair (a byte that is not UTF-8 is read as one); write it in UTF-8"
            ) from error
        encoded = self._encoding(text, special)
        ids: list[int] = encoded.ids
        if self.unknown_id is not None and self.unknown_id in ids:
            spans = zip(ids, encoded.offsets, strict=True)
            unknown = dict.fromkeys(text[a:b] for i, (a, b) in spans if i == self.unknown_id)
            named, more = list(map(files.quoted, unknown))[:9], len(unknown) - 9
            words = f"{', '.join(named)}{f' and {more} more' if more > 0 else ''}"
            raise DataError(
                f"{files.quoted(text)} holds {words}, which this model's tokenizer does not know: "
                f"leave it out or write it otherwise; {self._known()}"
            )
        return ids

    def _known(self) -> str:
        """What texts can be written in, cut where it is long."""
        pieces = sorted(set(self.pieces()) - set(self.roles.values()))
        letters = [piece for piece in pieces if len(piece) == 1]
        if any(map(str.isalpha, letters)):
            return f"it knows the characters {_cut(''.join(letters))}"
        return f"it knows the words {_cut(' '.join(pieces))}"

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out. Documents stand on lines of their own."""
        ends = [i for i, token in enumerate(ids) if token == self.separator_id]
        bounds = zip([-1, *ends], [*ends, len(ids)], strict=True)
        documents = [self._decode(ids[start + 1 : end]) for start, end in bounds]
        return "\n".join(filter(None, documents))

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text

    def pieces(self) -> list[str]:
        """The vocabulary in order of id. Raises DataError if some id has no token."""
        pieces = [self.backend.id_to_token(i) for i in range(self.vocab_size)]
        if None in pieces:
            raise DataError(f"the tokenizer has no token for id {pieces.index(None)}")
        return [piece for piece in pieces if piece is not None]

    def save(self, folder: Path) -> None:
        """Write the pipeline into ``folder``, and beside it which token has which role.

        The folder can be read by ``transformers.AutoTokenizer`` too.
        """
        # not by its own save(), which reports a full disk as a bare Exception
        (folder / FILE).write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        named = {role: token for role, token in self.roles.items() if token is not None}
        if self.template is not None:
            named = {**self.template.tokens, **named, "chat_template": self.template.source}
        roles = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
        (folder / ROLES).write_text(json.dumps(roles, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """What :meth:`save` wrote, or a tokenizer of transformers; one without a token for padded
        positions pads by what ends a text. Raises DataError if it is missing or broken."""
        path = folder / FILE
        if not path.is_file():
            raise DataError(f"{folder} holds no {FILE}")
        try:
            text = files.read_text(path)
            documents.parse(text)
            backend = tokenizers.Tokenizer.from_str(text)
            backend.no_padding()
            backend.no_truncation()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # bare Exception for every fault; PanicException is none
            raise DataError(f"{path} is not a tokenizer: {_words(error)}") from error
        if not (folder / ROLES).is_file():  # saved by a version that knew one set of names
            return Tokenizer(backend)
        try:
            roles = documents.shaped(documents.read(folder / ROLES), _Roles)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / ROLES} cannot be read: {files.why(error)}") from error
        end = roles.token("eos")
        pad = roles.token("pad") or end or PAD
        template = _template(folder, roles)
        return Tokenizer(
            backend, pad=pad, unknown=roles.token("unk"), separator=end, template=template
        )


def _template(folder: Path, roles: _Roles) -> Template | None:
    source, path = roles.template(), folder / TEMPLATE
    if path.is_file():
        try:
            source = files.read_text(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {files.why(error)}") from error
    return None if source is None else Template(source, roles.tokens())


def _cut(text: str, most: int = 200) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _id(backend: tokenizers.Tokenizer, token: str, need: str) -> int:
    index: int | None = backend.token_to_id(token)
    if index is None:
        raise DataError(f"the tokenizer has no {token} token, {need}")
    return index
