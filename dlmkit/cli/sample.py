"""``dlmkit sample``: draw text from a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.cli.output import answer, say
from dlmkit.errors import UsageError
from dlmkit.plugin import MOST
from dlmkit.recipe import short

if TYPE_CHECKING:
    from dlmkit.model import Model, Text
    from dlmkit.sampling.requests import Request


def sample(
    model: options.Sampled,
    count: Annotated[
        int | None,
        options.count(
            "Texts to draw, of each prompt if there are several.  [default: 8; 1 of each "
            "of several prompts, and of a chat]"
        ),
    ] = None,
    seed: options.Seed = None,
    offset: Annotated[
        int,
        typer.Option(
            min=0, max=2**63 - 1, metavar="I", help="The first text's index: texts I, I+1, ..."
        ),
    ] = 0,
    batch_size: options.BatchSize = None,
    prompt: options.Prompt = None,
    infill: options.Infill = None,
    prompts: options.Prompts = None,
    chat: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What a user says; the text is the answer. By the tokenizer's own template; "
            "repeatable: in turns.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system turn before every conversation.")
    ] = None,
    chat_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='A conversation of several turns as JSON, [{"role": "user", "content": TEXT}, '
            "...], or a list of these; the last turn is the user's.",
        ),
    ] = None,
    length: options.Length = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            metavar="N",
            help="Tokens to draw behind a prompt, instead of --length.  [default: 128 of an "
            "answer]",
        ),
    ] = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    grid: options.Grid = None,
    exit: options.Exit = None,  # noqa: A002
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar=options.PART, help="An exit rule by which single positions settle; or none."
        ),
    ] = None,
    guidance: options.Guidance = None,
    overrides: options.Overrides = None,
    exit_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Halt, or write, by the rule of a certificate, where it holds alone; in as many "
            "steps unless --steps says otherwise.",
        ),
    ] = None,
    weights: options.Held = None,
    device: options.Device = "auto",
    as_json: Annotated[bool, options.json("A list of {index, seed, text, steps, ...}.")] = False,
) -> None:
    """Draw text from a trained model, alone or under torchrun.

    With --seed alone fixed, text i is the same whatever -n, --batch-size and the number of
    processes are. Several prompts take turns: of P prompts, text i answers number i mod P, in
    the order --prompt, --infill, --prompts, --chat, --chat-file.
    """
    from dlmkit import devices
    from dlmkit.evaluation.conditions import certified, require
    from dlmkit.exits.certificate import Certificate
    from dlmkit.model import Run, open_model
    from dlmkit.training.memory import keep_freed
    from dlmkit.training.parallel import world

    keep_freed()
    set_ = [*short.overrides(sampler, grid, exit, freeze, guidance or ()), *(overrides or ())]
    certificate = None if exit_certificate is None else Certificate.load(exit_certificate)
    if certificate is not None:
        set_.append(certified(certificate, set_))
        steps = steps or certificate.conditions.get("steps")
    lines = options.lines_of(prompts)
    chats = [*(chat or []), *_conversations(chat_file)]
    several = len(prompt or []) + len(infill or []) + len(lines) + len(chats) > 1
    count = count or (1 if several or chats else 8)
    with world(device=devices.choose(device)) as processes:
        loaded = open_model(model, set_, weights=weights, device=processes.device)
        requests = loaded.requests(
            count,
            prompt,
            infill,
            length,
            lines,
            offset,
            chat=chats or None,
            system=system,
            max_new_tokens=max_new_tokens,
        )
        if certificate is not None:
            require(certificate, loaded, requests, steps)
        seed = options.seed_of(loaded, seed, set_)
        if processes.first:
            _tell(loaded, model, requests, steps)
        samples = loaded.run(requests, Run(seed, steps, batch_size), progress=True, world=processes)
        texts = loaded.texts(samples, seed)
    if not processes.first:
        return
    answer(as_json, [asdict(text) for text in texts], _lines(texts))


def _conversations(file: Path | None) -> list[Any]:
    """The conversations of --chat-file. Raises UsageError if it holds none."""
    if file is None:
        return []
    try:
        content = documents.read(file)
    except OSError as error:
        raise UsageError(f"--chat-file {file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--chat-file {file}: it is not JSON: {error}") from error
    if not isinstance(content, list) or not content:
        raise UsageError(
            f'--chat-file {file}: expected a list of turns {{"role": ..., "content": ...}}, or a '
            "list of such lists"
        )
    return [content] if all(isinstance(turn, dict) for turn in content) else content


def _tell(model: Model, name: str, requests: Sequence[Request], steps: int | None) -> None:
    """Say what is about to be drawn."""
    config = model.config
    cache = "" if config.sample.cache == "none" else f", cache {config.sample.kept}"
    sizes = sorted({len(request.tokens) for request in requests})
    say(
        f"{model.folder or name}: {len(requests)} texts of "
        f"{' or '.join(map(str, sizes))} tokens, {steps or config.sample.steps} steps, "
        f"{config.sampler.use} on {config.grid.use}, vocabulary step by {model.parts.kernel}{cache}"
    )


def _lines(texts: Sequence[Text]) -> str:
    """One text per line; an empty line between them if a text holds line breaks itself."""
    between = "\n\n" if any("\n" in text.text for text in texts) else "\n"
    return between.join(text.text for text in texts)
