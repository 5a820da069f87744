"""``dlmkit perplexity``: how well a model predicts text files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dlmkit import files
from dlmkit.cli import options
from dlmkit.cli.output import result, result_json, say
from dlmkit.errors import DataError, UsageError
from dlmkit.plugin import MOST


def perplexity(
    model: options.Sampled,
    texts: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Text files, in UTF-8.")],
    context: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Tokens of a window.  [default: the model's length]"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Tokens that a window scores, given those before them in the window; the first "
            "window scores all of its own.  [default: half the context]",
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(min=2, max=MOST, help="Keyed draws of the bound of a window; an even number."),
    ] = 128,
    block: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Of masked models: score so many tokens at a time, left to right; 1 is exact and "
            "needs no draws.  [default: all of a window at once]",
        ),
    ] = None,
    seed: Annotated[int, options.seed("Of the draws.")] = 0,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    as_json: Annotated[bool, options.json("The result on stdout.")] = False,
) -> None:
    """Say how well MODEL, masked or continuous, predicts texts that it has not seen.

    A window of --context tokens slides by --stride; every token is scored once. A bound on the
    likelihood gives a bound on the perplexity: read it beside others' of the same protocol, which
    the result names.
    """
    from dlmkit import devices
    from dlmkit.evaluation.perplexity import perplexity as measured
    from dlmkit.evaluation.score import Scoring, scorer
    from dlmkit.model import open_model

    if draws % 2:
        raise UsageError(f"--draws {draws}: expected an even number")
    read = []
    for path in texts:
        try:
            read.append(files.read_text(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {files.why(error)}") from error
    opened = open_model(model, overrides or (), device=devices.choose(device))
    longest = opened.config.length
    if context is not None and context > longest:
        raise UsageError(f"--context {context}: the model's texts have at most {longest} tokens")
    size = context or longest
    given = {"draws": draws, "block": block, "seed": seed}
    chosen = Scoring.model_validate(given)
    pairs = [(text, opened.assembly.tokenizer.encode(text)) for text in read]
    scored = measured(scorer(opened.parts, chosen), pairs, size, stride or max(1, size // 2), say)
    if as_json:
        result_json({"model": model, **asdict(scored)})
        return
    protocol = scored.protocol
    result(
        f"{model}: {scored.tokens} tokens, {scored.bytes} bytes of {scored.files} file(s); "
        f"{scored.windows} windows of {protocol.context} tokens, stride {protocol.stride}; "
        f"{protocol.likelihood}"
    )
    for name, value, (low, high) in (
        ("nats per token", scored.nats_per_token, scored.nats_per_token_interval),
        ("perplexity per token", scored.perplexity, scored.perplexity_interval),
        ("bits per byte", scored.bits_per_byte, scored.bits_per_byte_interval),
    ):
        result(f"{name:<21} {value:.4f}  95 % interval {low:.4f} to {high:.4f}")
