"""A report in one file: tables, verdicts and pictures, for light and dark pages, offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlmkit.bench import plots
from dlmkit.bench.document import Document
from dlmkit.bench.tables import BOUNDS, COST, FIRST, QUALITY, Entry, groups, label, lines
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


COLUMNS = {**QUALITY, **BOUNDS, **COST}


def _table(name: str, entries: Sequence[Entry]) -> Iterable[str]:
    yield f"<h2>{escape(name)}</h2>"
    cells = ([label(entry), *(cell(entry) for cell in COLUMNS.values())] for entry in entries)
    yield table((FIRST, *COLUMNS), cells)
