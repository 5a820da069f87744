"""The document's pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlmkit import documents
from dlmkit.bench.document import Document
from dlmkit.bench.quality import headline
from dlmkit.report import (
    COLOURS,
    drawn,
    legend,
    look,
    panel,
    panels,
    plain_numbers,
    reference,
    whole_numbers,
)


def quality(content: Document) -> Figure | None:
    """Negative log-likelihood, and distance from held-out text, against evaluations per text."""
    figure, both = panels(2, (11.0, 4.6))
    for (column, title), axes in zip(
        (("nll", "NLL, nats per token"), ("ngram_tv", "n-gram distance from held-out text")),
        both,
        strict=True,
    ):
        for index, (name, entries) in enumerate(_series(content)):
            points = sorted(
                (e["extra_info"]["evaluations_mean"], worth[column])
                for e in entries
                if column in (worth := headline(e["extra_info"]["quality"]))
            )
            if points:
                line = "-" if len(points) > 1 else ""
                axes.plot(*zip(*points, strict=True), ls=line, label=name, **look(index))
        axes.set(xlabel="evaluations per text", ylabel=title, xscale="log")
        _human(axes, content, column)
        plain_numbers(axes.xaxis)
    legend(figure, both)
    return figure


def _series(content: Document) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Entries that belong on one line: the same parts and exit, at different steps."""
    series: dict[str, list[Mapping[str, Any]]] = {}
    differ = [
        key
        for key in ("sampler", "grid")
        if len({e["extra_info"][key] for e in content["benchmarks"]}) > 1
    ]
    for entry in content["benchmarks"]:
        info = entry["extra_info"]
        name = info["exit"] if info["exit"] != "none" else "full run"
        series.setdefault(", ".join((*(info[key] for key in differ), name)), []).append(entry)
    return list(series.items())


def _human(axes: Axes, content: Document, column: str) -> None:
    """A line where as much held-out text stands, if some metric says so."""
    names = {"nll": ("nll_expected", "human_nll_per_token"), "ngram_tv": ("human_ngram_tv_2",)}
    worth = content["benchmarks"][0]["extra_info"]["quality"]
    if column == "nll" and "nll" not in worth:
        names = {"nll": ("human_nll_per_token",)}
    value = next((worth[name] for name in names[column] if name in worth), None)
    if value is not None:
        reference(axes, value, "real text of this amount")


def exit_steps(content: Document) -> Figure | None:
    """How many texts halt by each step, rule by rule, beside the oracle."""
    entries = [
        e for e in content["benchmarks"] if e["extra_info"]["exit"] not in ("none", "regridded")
    ]
    entries = [e for e in entries if e["group"] == entries[0]["group"]]
    if len(entries) < 2:
        return None
    figure, axes = panel((8.4, 4.8))
    for index, entry in enumerate(entries):
        info = entry["extra_info"]
        oracle = info["exit"] == "oracle-exit"
        steps = sorted((int(k), n) for k, n in info["exit_steps"].items())
        total, done, points = sum(n for _, n in steps), 0, [(0.0, 0.0)]
        for step, number in steps:
            points += [(step, done / total), (step, (done + number) / total)]
            done += number
        points.append((info["steps"], 1.0))
        style = "-" if oracle else ("--" if info["exit"] == "fixed" else "-.")
        axes.plot(
            *zip(*points, strict=True),
            lw=2.6 if oracle else 1.6,
            ls=style,
            color=COLOURS[index % len(COLOURS)],
            label=info["exit"],
        )
    axes.set(
        xlabel="step of the grid",
        ylabel="share of texts that have halted",
        title=entries[0]["group"].rsplit(" | ", 1)[0],
    )
    whole_numbers(axes.xaxis)
    axes.legend(frameon=False, loc="upper left")
    return figure


def risk(content: Document) -> Figure | None:
    """Differing tokens at every threshold: on the texts it is chosen on, and on the others."""
    curves = [c for c in content["dlmkit"]["risk"] if len(c["points"]) > 1]
    curves = [c for c in curves if c["case"] == curves[0]["case"]]
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure, all_axes = panels(len(curves), (3.9 * columns + 0.4, 3.3 * rows + 0.6), columns)
    bound = content["dlmkit"]["protocol"]["bound"]
    for axes, curve in zip(all_axes, curves, strict=True):
        thresholds = [p["threshold"] for p in curve["points"]]
        for key, colour, name in (
            ("calibration", COLOURS[0], "chosen on"),
            ("report", COLOURS[1], "reported on"),
        ):
            values = [100 * p[key] for p in curve["points"]]
            axes.plot(thresholds, values, color=colour, lw=1.8, label=name)
        reference(axes, 100 * bound, "bound")
        axes.set(title=curve["rule"], xlabel="threshold", ylabel="tokens that differ, %")
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.set_ylim(-0.1, 100)
    all_axes[0].legend(frameon=False)
    return figure


def compaction(content: Document) -> Figure | None:
    """Row steps needed per row step executed, with refill and with a barrier, by batch size."""
    curves = content["dlmkit"]["compaction"]
    curves = [c for c in curves if c["case"] == curves[0]["case"] and c["exit"] != "fixed"]
    if not curves:
        return None
    figure, axes = panel((8.4, 4.8))
    styles = (("constant", "-", "refill"), ("barrier", ":", "barrier"))
    for index, curve in enumerate(curves[:6]):
        for key, line, name in styles:
            sizes = [p["batch"] for p in curve["points"]]
            values = [p[key] for p in curve["points"]]
            axes.plot(sizes, values, ls=line, label=f"{curve['exit']}, {name}", **look(index))
    axes.set(
        xlabel="slots (batch)",
        ylabel="row steps needed / executed",
        ylim=(None, 1.02),
        title="What halting saves of the row steps, constant shape to the end",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    legend(figure, [axes])
    return figure


def breakdown(content: Document) -> Figure | None:
    """Where a step's time goes."""
    cases = content["dlmkit"]["breakdown"]
    if not cases:
        return None
    figure, axes = panel((9.2, 1.7 + 0.7 * len(cases)))
    parts = list(cases[0]["seconds"])
    for place, case in enumerate(cases):
        left = 0.0
        for index, part in enumerate(parts):
            width = 1e3 * case["seconds"][part]
            axes.barh(
                place,
                width,
                left=left,
                height=0.6,
                color=COLOURS[index % len(COLOURS)],
                label=part if place == 0 else None,
            )
            left += width
    axes.set_yticks(range(len(cases)), [c["case"].rsplit(" | ", 1)[0] for c in cases])
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds of one step, each part by itself")
    legend(figure, [axes])
    return figure


PLOTS: Mapping[str, Callable[[Document], Figure | None]] = {
    "quality": quality,
    "exit-steps": exit_steps,
    "risk": risk,
    "compaction": compaction,
    "breakdown": breakdown,
}


def pictures(content: Document) -> dict[str, dict[str, bytes]]:
    """By theme, every picture that the document has data for, as PNG."""
    return drawn({name: partial(plot, content) for name, plot in PLOTS.items()})


def save(content: Document, folder: Path) -> list[Path]:
    """Write the light pictures as PNG into ``folder``. Raises UsageError if that fails."""
    with documents.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    light = {
        folder / f"{name}.png": picture for name, picture in pictures(content)["light"].items()
    }
    for path, picture in light.items():
        documents.write(path, picture)
    return [*light]
