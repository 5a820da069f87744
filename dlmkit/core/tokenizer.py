"""The tokenizer of a run: a `tokenizers` pipeline, saved with the run as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from dlmkit import documents, files
from dlmkit.errors import DataError

FILE = "tokenizer.json"
ROLES = "tokenizer_config.json"
PAD = "<pad>"
UNKNOWN = "<unk>"


MOST = 2**22
"""The largest vocabulary: sixteen times the largest of a published model (2**18)."""


class _Added(documents.Shape):
    content: str


class _Roles(documents.Shape):
    pad_token: str | _Added | None = None
    unk_token: str | _Added | None = None
    eos_token: str | _Added | None = None

    def token(self, role: str) -> str | None:
        """The token of a role, which others' folders write with all that it does."""
        value = getattr(self, f"{role}_token")
        return value.content if isinstance(value, _Added) else value


class Tokenizer:
    """Text to ids and back. ``vocab_size`` is V; ``pad_id`` fills padded positions.

    ``separator_id`` is the special token that ends every document, if the tokenizer has one.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        pad: str = PAD,
        unknown: str | None = UNKNOWN,
        separator: str | None = None,
    ) -> None:
        self.roles = {"pad_token": pad, "unk_token": unknown, "eos_token": separator}
        # otherwise a text that spells "<pad>" would be read as the token
        backend.encode_special_tokens = True
        self.backend = backend
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
        """The ids of ``text``. Raises DataError, naming what is outside the vocabulary."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{files.quoted(text)} is no text: its character {error.start + 1} is half of a "
                "UTF-16 pair (a byte that is not UTF-8 is read as one); write it in UTF-8"
            ) from error
        encoded = self.backend.encode(text, add_special_tokens=False)
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
            raise DataError(f"{folder / ROLES} cannot be read: {error}") from error
        end = roles.token("eos")
        pad = roles.token("pad") or end or PAD
        return Tokenizer(backend, pad=pad, unknown=roles.token("unk"), separator=end)


def _cut(text: str, most: int = 200) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _id(backend: tokenizers.Tokenizer, token: str, need: str) -> int:
    index: int | None = backend.token_to_id(token)
    if index is None:
        raise DataError(f"the tokenizer has no {token} token, {need}")
    return index
