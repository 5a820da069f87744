"""The document as tables for a terminal of 100 columns, and its verdicts in plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dlmkit.bench.cases import titled
from dlmkit.bench.compare import Comparison
from dlmkit.bench.document import Document
from dlmkit.bench.quality import headline

Entry = Mapping[str, Any]


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
        console.print(_quality(name, entries))
        console.print(_references(entries))
        console.print(_cost(entries, ours["matmul_peak"]))
    for line in lines(content):
        console.print(line)


def groups(content: Document) -> Iterator[tuple[str, list[Entry]]]:
    """Entries that differ in steps and exit alone, in order, under the name of the others."""
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


def _quality(name: str, entries: Sequence[Entry]) -> Table:
    table = Table(
        title=name,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        collapse_padding=True,
    )
    table.add_column("exit @steps", overflow="fold", min_width=16, max_width=27)
    for column in ("evals", "x evals", "tokens %", "rows %"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("NLL", "H4", "dist-4", "TV", "cert"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        info, worth = entry["extra_info"], headline(entry["extra_info"]["quality"])
        table.add_row(
            label(entry),
            f"{info['evaluations_mean']:.2f}",
            f"{info['speedup']:.2f}",
            _percent(info, "token_disagreement"),
            _percent(info, "row_disagreement", 0),
            *(_number(worth.get(key)) for key in ("nll", "entropy", "distinct", "ngram_tv")),
            certified(info["certificate"]),
        )
    return table


def _cost(entries: Sequence[Entry], peaks: Mapping[str, float]) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), collapse_padding=True, show_edge=False)
    table.add_column("exit @steps", overflow="fold", min_width=16, max_width=27)
    headings = (
        "p50",
        "p95",
        "executed",
        "seconds",
        "x wall",
        "texts/s",
        "tokens/s",
        "MFU %",
        "MiB",
    )
    for column in (*headings, "NLL"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        info, seconds = entry["extra_info"], entry["stats"]["min"]
        memory = info["peak_memory_bytes"]
        table.add_row(
            label(entry),
            f"{info['evaluations_p50']:.0f}",
            f"{info['evaluations_p95']:.0f}",
            str(info["row_evaluations"]),
            f"{seconds:.3g}",
            f"{info['speedup_wall']:.2f}",
            f"{info['texts_per_second']:.4g}",
            f"{info['tokens_per_second']:.4g}",
            f"{100 * info['utilisation']:.1f}",
            "" if memory is None else f"{memory / 2**20:.0f}",
            _number(headline(info["quality"]).get("nll")),
        )
    return table


def _percent(info: Mapping[str, Any], key: str, digits: int = 1) -> str:
    """A share with its interval; nothing for the full run, which is what it is compared with."""
    if info["exit"] == "none":
        return ""
    low, high = info[f"{key}_interval"]
    value = 100 * info[key]
    shown = f"{value:.{digits + (value < 10)}f}"
    return f"{shown} [{100 * low:.{digits}f},{100 * high:.{digits}f}]"


def certified(certificate: Mapping[str, Any] | None) -> str:
    """Whether the exit's risk is shown to be low; nothing where that is no question."""
    return "" if certificate is None else ("yes" if certificate["holds"] else "no")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def comparison(compared: Comparison) -> Table:
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
