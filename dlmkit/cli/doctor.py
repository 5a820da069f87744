"""``dlmkit doctor``: what works on this machine, shown by calling it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from dlmkit.cli import options
from dlmkit.cli.output import answer, columns, say
from dlmkit.registry.lookup import Registry


def doctor(
    as_json: Annotated[bool, options.json("One JSON document.")] = False,
) -> None:
    """Show what works on this machine.

    Versions, devices, how CPU threads wait, attention backends and torch.compile (called, not
    guessed), plugins, cache folders, and what is missing for what. Exits 0 whatever it finds.
    """
    report = _examine()
    words = "\n\n".join(_section(name, report[name]) for name in report)
    answer(as_json, report, words)


def _examine() -> dict[str, Any]:
    from dlmkit import folders
    from dlmkit.cli import checks

    registry = Registry.load()
    for note in registry.notes:
        say(f"note: {note}")
    torch = checks.attempt(_torch)
    if not torch["works"]:
        say(f"torch does not import: {torch['detail']}")
    say("calling devices, attention backends and torch.compile ...")
    devices = checks.devices() if torch["works"] else []
    usable = [device["device"] for device in devices if device["works"]]
    return {
        "versions": checks.versions(),
        "devices": devices,
        "threads": checks.threads() if torch["works"] else {},
        "attention": [row for device in usable for row in checks.attention(device)],
        "compile": [checks.compiling(device) for device in usable],
        "plugins": [asdict(plugin) for plugin in registry.plugins],
        "folders": [
            checks.folder("built corpora", folders.cache()),
            checks.folder("hub", folders.hub()),
        ],
        "missing": checks.missing(),
    }


def _torch() -> str:
    import torch

    return str(torch.__version__)


def _section(name: str, content: Any) -> str:
    rows = content.items() if isinstance(content, dict) else map(_row, content)
    cells = [tuple(str("-" if cell is None else cell) for cell in row) for row in rows]
    table = columns([("", *row) for row in cells]) if cells else "  nothing"
    return f"{name}\n{table}"


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    shown = {key: value for key, value in item.items() if key != "provides"}
    if "works" in shown:
        shown["works"] = "works" if shown["works"] else "does not work:"
    if "bytes" in shown:
        size = f"{shown.pop('bytes') / 2**20:.1f} MiB"
        state = size if shown.pop("exists") else "not there yet"
        return (shown["what"], shown["path"], state if shown["writable"] else "cannot be written")
    return tuple(str(value) for value in shown.values())
