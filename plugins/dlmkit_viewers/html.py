"""The analysis as files: one HTML report, its pictures, its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dlmkit import documents, report
from dlmkit.shown import escape
from dlmkit_viewers import plots
from dlmkit_viewers.summary import HEAD, UNITS, rows

CAPTIONS: Mapping[str, str] = {
    "training": "How it changed during training.",
    "loss": "Cross-entropy on held-out text at fixed noise levels. Between the dashed line, which "
    "knows token frequencies alone, and the model lies what it learned.",
    "context-gain": "How much of that is owed to the other positions: the exact context-free "
    "denoiser's cross-entropy minus the model's. At 0 the model ignores its context.",
    "warp-cdf": "Where training times were drawn: share of draws below each noise level.",
    "warp-density": "The same as a density. Flat: drawn evenly in ln sigma.",
    "switches": "Tokens whose likeliest value changed since the step before.",
    "entropy": "Entropy of the predicted tokens: how unsure the model is.",
    "kl": "Divergence of a step's prediction from the one before: how much it still moves.",
    "margin": "Probability of the likeliest token minus that of the runner-up: near 1 is decided.",
    "norm-x": "Norm of the noisy text. It falls with the noise to that of an embedding.",
    "norm-x0": "Norm of the predicted clean text. A mean of several embeddings is shorter than "
    "one of them, so it reaches the dotted line where the model has decided.",
    "score-angle": "Angle between the scores of successive steps. Small: the path is straight, "
    "and larger steps would do.",
    "settled": "Tokens that keep their value from here to the end. An oracle would stop a text "
    "when its last token settles.",
    "settled-by-position": "When tokens settle, by their place in the text.",
    "noise-scale": "Quality and diversity against the scale of the initial noise. Likelier text "
    "is no gain where diversity falls; real text is the dotted line.",
}


def write(content: Mapping[str, Any], folder: Path) -> Path:
    """Write report.html, analysis.json and every picture as PNG, light and dark.

    Returns the report's path. Raises UsageError if that fails.
    """
    with documents.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    pictures = report.drawn(plots.plots(content))
    for theme, drawn in pictures.items():
        for key, picture in drawn.items():
            documents.write(folder / f"{key}-{theme}.png", picture)
    documents.write(folder / "analysis.json", documents.text(content))
    path = folder / "report.html"
    documents.write(path, page(content, pictures))
    return path


def page(content: Mapping[str, Any], pictures: Mapping[str, Mapping[str, bytes]]) -> str:
    """The whole report; ``pictures`` are PNG by theme."""
    title = f"dlmkit analyze: {content['model']}"
    sampler, grid = content["sampler"]["use"], content["grid"]["use"]
    body = [
        f"<p>Computed on {escape(content['device'])}. "
        f"{content['texts']} texts of {content['length']} tokens, {content['steps']} steps of "
        f"{escape(sampler)} on {escape(grid)}, seed {content['seed']}; weights: "
        f"{escape(content['weights'])}.</p>",
        report.table(HEAD, rows(content)),
        f"<p>{escape(UNITS)}.</p>",
        *_left_out(content),
        *report.figures(pictures, CAPTIONS),
        report.facts({key: value for key, value in content.items() if key != "checkpoints"}),
    ]
    return report.page(title, body)


def _left_out(content: Mapping[str, Any]) -> Iterable[str]:
    for what, why in content["checkpoints"][-1]["left_out"].items():
        yield f"<p>Not measured: {escape(what)} ({escape(why)}).</p>"
