"""Conversations, and the template by which a model's tokenizer writes them as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dlmkit.errors import DataError, UsageError
from dlmkit.files import quoted

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says."""

    role: Role
    content: str


Conversation = tuple[Turn, ...]


@dataclass(frozen=True)
class Template:
    """A Jinja template over ``messages``, as tokenizers of transformers bring one.

    ``tokens`` are the names that it may use for special tokens, such as ``eos_token``. It runs in
    Jinja's sandbox, where it reaches nothing but the conversation, and knows no date: the same
    conversation is the same text on every day.
    """

    source: str
    tokens: Mapping[str, str]

    @staticmethod
    def of(tokenizer: Any) -> Template | None:
        """The template of a tokenizer of transformers; of several the one called default."""
        source = tokenizer.chat_template
        if isinstance(source, Mapping):
            source = source.get("default")
        named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        return None if source is None else Template(source, named)

    def text(self, turns: Sequence[Turn]) -> str:
        """The conversation ``turns``, and the beginning of the model's answer.

        Raises DataError if the template cannot be read, and UsageError, in its own words, if it
        refuses these turns.
        """
        from jinja2 import TemplateError, TemplateSyntaxError

        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            template = _environment().from_string(self.source)
            return str(
                template.render(messages=messages, add_generation_prompt=True, **self.tokens)
            )
        except TemplateSyntaxError as error:
            raise DataError(f"the tokenizer's chat template cannot be read: {error}") from error
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UsageError(
                f"the tokenizer's chat template refuses this conversation: {error}"
            ) from error


def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """What marks the model's own words in templates for training: here just its body."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(
                ("name:endgeneration",), drop_needle=True
            )
            return body

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    return environment


def conversations(chat: Any, system: str | None = None) -> list[Conversation]:
    """What ``chat`` asks for: a text is one user's turn, a list of ``{"role", "content"}`` a
    conversation, and a list of these is several; None is none.

    ``system`` stands before each of them. Raises UsageError for anything else, for a conversation
    whose last turn is not the user's, and for ``system`` without one or beside one of its own.
    """
    if chat is None:
        if system is not None:
            raise UsageError("system goes with chat: there is no conversation that it is for")
        return []
    single = isinstance(chat, str) or (_listed(chat) and all(isinstance(t, Mapping) for t in chat))
    asked = [chat] if single else chat
    if not _listed(asked) or not asked or (single and not chat):
        raise UsageError(
            f"chat is {quoted(chat)}; expected a text, a list of turns "
            '{"role": ..., "content": ...}, or a list of these'
        )
    return [_conversation(given, number, system) for number, given in enumerate(asked)]


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _conversation(given: Any, number: int, system: str | None) -> Conversation:
    where = f"chat: conversation {number}"
    if isinstance(given, str):
        turns = [Turn("user", given)]
    elif _listed(given) and given:
        turns = [_turn(turn, f"{where}, turn {place}") for place, turn in enumerate(given)]
    else:
        raise UsageError(f"{where} is {quoted(given)}; expected a text or a list of turns")
    if turns[-1].role != "user":
        raise UsageError(
            f"{where} ends with a turn of the {turns[-1].role}; the last must be the user's, which "
            "is answered"
        )
    if system is None:
        return tuple(turns)
    if not isinstance(system, str):
        raise UsageError(f"system is {quoted(system)}; expected a text")
    if turns[0].role == "system":
        raise UsageError(f"{where} begins with a system turn of its own, and system is given too")
    return Turn("system", system), *turns


def _turn(given: Any, where: str) -> Turn:
    if isinstance(given, Mapping):
        content = given.get("content")
        for role in get_args(Role):
            if given.get("role") == role and isinstance(content, str):
                return Turn(role, content)
    raise UsageError(
        f'{where} is {quoted(given)}; expected {{"role": ..., "content": TEXT}}, the role one of '
        f"{', '.join(get_args(Role))}"
    )
