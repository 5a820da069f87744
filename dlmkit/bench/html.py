"""A report in one file: tables, verdicts and pictures, for light and dark pages, offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlmkit.bench import plots
from dlmkit.bench.document import Document
from dlmkit.bench.quality import headline
from dlmkit.bench.tables import certified, groups, label, lines
from dlmkit.report import facts, figures, page, table
from dlmkit.shown import escape

CAPTIONS: Mapping[str, str] = {
    "quality": "Quality against evaluations. Good text lies near the dotted line: likelier than "
    "real text means less varied.",
    "exit-steps": "When texts halt. The oracle halts at the first step after which no token "
    "changes.",
    "risk": "Tokens that differ from the full run at every threshold.",
    "compaction": "Halting saves only what slots are reused for. Row steps are counted, not timed.",
    "breakdown": "Where the time of one step goes.",
}

STYLE = """
.verdict { padding: .4rem .8rem; margin: .4rem 0; border-left: 4px solid var(--rule);
  background: var(--soft) }
.gain { border-left-color: #009e73 }
"""

Entry = Mapping[str, Any]


def report(content: Document) -> str:
    """The whole page."""
    ours = content["dlmkit"]
    protocol = ours["protocol"]
    title = f"dlmkit bench sampler: {protocol['model']}"
    body = [
        f"<p>{protocol['texts']} texts of {protocol['length']} tokens, seed {protocol['seed']}, on "
        f"{escape(str(protocol['device']))}, {escape(content['datetime'][:19])} UTC.</p>",
        *_verdicts(ours["verdicts"]),
        *(part for name, entries in groups(content) for part in _table(name, entries)),
        *(f"<p>{escape(line)}</p>" for line in lines(content)[1 + len(ours["verdicts"]) :] if line),
        *figures(plots.pictures(content), CAPTIONS),
        facts(protocol, ours["versions"]),
    ]
    return page(title, body, STYLE)


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if verdicts:
        yield "<h2>Verdicts</h2>"
    for verdict in verdicts:
        kind = "verdict gain" if verdict["gain"] else "verdict"
        case = verdict["case"].rsplit(" | ", 1)[0]
        yield f'<p class="{kind}">{escape(case)}: {escape(verdict["sentence"])}</p>'


COLUMNS = (
    "exit @steps",
    "evaluations",
    "p50",
    "p95",
    "executed",
    "x evals",
    "x fixed",
    "x oracle",
    "seconds",
    "x wall",
    "texts/s",
    "tokens/s",
    "MFU %",
    "tokens differ %",
    "rows differ %",
    "NLL",
    "H4",
    "distinct-4",
    "TV",
    "certificate",
)


def _table(name: str, entries: Sequence[Entry]) -> Iterable[str]:
    yield f"<h2>{escape(name)}</h2>"
    yield table(COLUMNS, map(_cells, entries))


def _cells(entry: Entry) -> list[str]:
    info, worth = entry["extra_info"], headline(entry["extra_info"]["quality"])
    shares = []
    for key in ("token_disagreement", "row_disagreement"):
        low, high = info[f"{key}_interval"]
        text = f"{100 * info[key]:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        shares.append("" if info["exit"] == "none" else text)
    return [
        label(entry),
        f"{info['evaluations_mean']:.2f}",
        f"{info['evaluations_p50']:.0f}",
        f"{info['evaluations_p95']:.0f}",
        f"{info['row_evaluations']}",
        f"{info['speedup']:.2f}",
        f"{info['speedup_best_fixed']:.2f}",
        f"{info['speedup_oracle_exit']:.2f}",
        f"{entry['stats']['min']:.3g}",
        f"{info['speedup_wall']:.2f}",
        f"{info['texts_per_second']:.4g}",
        f"{info['tokens_per_second']:.4g}",
        f"{100 * info['utilisation']:.1f}",
        *shares,
        *(
            "" if worth.get(key) is None else f"{worth[key]:.3f}"
            for key in ("nll", "entropy", "distinct", "ngram_tv")
        ),
        certified(info["certificate"]),
    ]
