"""The document as tables for a terminal of 100 columns, and its verdicts in plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dlmkit.bench.cases import titled
from dlmkit.bench.compare import CaseComparison
from dlmkit.bench.document import Document
from dlmkit.bench.quality import headline

Entry = Mapping[str, Any]
Cell = Callable[[Entry], str]


def show(content: Document, console: Console) -> None:
    """Quality beside evaluations, what it took, and the verdicts."""
    ours = content["dlmkit"]
    protocol = ours["protocol"]
    console.print(
        f"{protocol['model']}: {protocol['texts']} texts of {protocol['length']} tokens, seed "
        f"{protocol['seed']}, {protocol['rounds']} interleaved rounds on {protocol['device']}, "
        f"{protocol['threads']} thread(s)",
    )
    for name, entries in groups(content):
        console.print()
        title = {"title": name, "title_justify": "left", "title_style": "bold"}
        console.print(_table(QUALITY, entries, **title))
        console.print(_references(entries))
        console.print(_table({**COST, "NLL": QUALITY["NLL"]}, entries, show_edge=False))
    for line in lines(content):
        console.print(line)


def groups(content: Document) -> Iterator[tuple[str, list[Entry]]]:
    """Entries in order, in groups that differ in steps and exit alone, under the group's name."""
    named: dict[str, list[Entry]] = {}
    for entry in content["benchmarks"]:
        named.setdefault(group_of(entry), []).append(entry)
    yield from named.items()


def group_of(entry: Entry) -> str:
    """All that a group has in common."""
    info = entry["extra_info"]
    words = [info["sampler"], info["grid"], f"batch {info['batch_size']}", info["dtype"]]
    words += [] if info["guidance"] == "none" else [info["guidance"]]
    return " | ".join([*words, info["kernel"]])


def label(entry: Entry) -> str:
    """Exit and steps of a row."""
    info = entry["extra_info"]
    return f"{titled(info['exit'], info['threshold'])} @{info['steps']}"


def lines(content: Document) -> list[str]:
    """Verdicts, notes and what the columns mean."""
    ours = content["dlmkit"]
    said = ["", *(f"{v['case'].rsplit(' | ', 1)[0]}: {v['sentence']}" for v in ours["verdicts"])]
    said += [f"note: {note}" for note in ours["notes"]]
    bound = ours["protocol"]["bound"]
    said += [
        "",
        "x evals: evaluations of the full run per evaluation made. tokens, rows: share that "
        "differs from the full run, with 95 % intervals; a row differs if more than 1 % of its "
        f"tokens do. Thresholds and the fixed exit keep tokens within {100 * bound:g} % on other "
        "texts than these. cert: at most 5 % of rows differ, at 95 % confidence over all rules. "
        "x wall: fastest rounds. MFU: needed matmul FLOPs against the best matmul of this run.",
    ]
    return said


def _references(entries: Sequence[Entry]) -> str:
    """What could be saved at best, of every step count in the group."""
    best = {}
    for info in (entry["extra_info"] for entry in entries):
        if info["exit"] == "none":
            best[info["steps"]] = (
                f"{info['steps']} steps: best fixed exit {info['speedup_best_fixed']:.2f}x, "
                f"oracle exit {info['speedup_oracle_exit']:.2f}x"
            )
    return "\n".join(best.values())


def _of(key: str, form: str) -> Cell:
    return lambda entry: format(entry["extra_info"][key], form)


def _worth(column: str) -> Cell:
    return lambda entry: _number(headline(entry["extra_info"]["quality"]).get(column))


def _percent(key: str, digits: int) -> Cell:
    """A share with its interval; nothing for the full run, which is what it is compared with."""

    def cell(entry: Entry) -> str:
        info = entry["extra_info"]
        if info["exit"] == "none":
            return ""
        value, low, high = (100 * v for v in (info[key], *info[f"{key}_interval"]))
        return f"{value:.{digits + (value < 10)}f} [{low:.{digits}f},{high:.{digits}f}]"

    return cell


def _certified(entry: Entry) -> str:
    """Whether the exit's risk is shown to be low; nothing where that is no question."""
    certificate = entry["extra_info"]["certificate"]
    return "" if certificate is None else ("yes" if certificate["holds"] else "no")


def _mebibytes(entry: Entry) -> str:
    memory = entry["extra_info"]["peak_memory_bytes"]
    return "" if memory is None else f"{memory / 2**20:.0f}"


QUALITY: Mapping[str, Cell] = {
    "evals": _of("evaluations_mean", ".2f"),
    "x evals": _of("speedup", ".2f"),
    "tokens %": _percent("token_disagreement", 1),
    "rows %": _percent("row_disagreement", 0),
    "NLL": _worth("nll"),
    "H4": _worth("entropy"),
    "dist-4": _worth("distinct"),
    "TV": _worth("ngram_tv"),
    "cert": _certified,
}
COST: Mapping[str, Cell] = {
    "p50": _of("evaluations_p50", ".0f"),
    "p95": _of("evaluations_p95", ".0f"),
    "executed": _of("row_evaluations", "d"),
    "seconds": lambda entry: f"{entry['stats']['min']:.3g}",
    "x wall": _of("speedup_wall", ".2f"),
    "texts/s": _of("texts_per_second", ".4g"),
    "tokens/s": _of("tokens_per_second", ".4g"),
    "MFU %": lambda entry: f"{100 * entry['extra_info']['utilisation']:.1f}",
    "MiB": _mebibytes,
}
BOUNDS: Mapping[str, Cell] = {
    "x fixed": _of("speedup_best_fixed", ".2f"),
    "x oracle": _of("speedup_oracle_exit", ".2f"),
}
"""Columns by heading: what the texts are worth, what they took, and what could be saved at best."""

FIRST = "exit @steps"


def _table(columns: Mapping[str, Cell], entries: Sequence[Entry], **look: Any) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), collapse_padding=True, **look)
    table.add_column(FIRST, overflow="fold", min_width=16, max_width=27)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(label(entry), *(cell(entry) for cell in columns.values()))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def comparison(compared: CaseComparison) -> Table:
    """Before and after, case by case."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), collapse_padding=True, show_edge=False)
    table.add_column("case", overflow="fold")
    for column in ("seconds", "now", "time %", "evals", "now", "evals %", "NLL", "now"):
        table.add_column(column, justify="right", no_wrap=True)
    for change in compared.changes:
        nll = [_number(quality.get("nll")) for quality in change.quality]
        table.add_row(
            change.name,
            *(f"{value:.3g}" for value in change.seconds),
            f"{100 * change.slower:+.1f}",
            *(f"{value:.2f}" for value in change.evaluations or ()),
            *(("", "", "") if change.more is None else (f"{100 * change.more:+.1f}",)),
            *nll,
        )
    return table
