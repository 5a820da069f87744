"""What stands in for words that a command does not say."""

from dlmkit.bench import defaults
from dlmkit.bench.defaults import lists, quick_size

SILENT = dict.fromkeys(("sampler", "grid", "steps", "batch_size", "guidance", "precision"))


def test_quick_reports_on_fewer_texts_where_a_text_costs_more(toy, monkeypatch):
    sizes = [
        quick_size(toy, lists(toy, SILENT | {"steps": steps}, full=False, early=False))
        for steps in ("8", f"8,{2**20}")
    ]
    assert sizes == [(256, 3), (160, 1)]
    monkeypatch.setattr(defaults, "QUICK_FLOPS", 1.0)
    assert quick_size(toy, lists(toy, SILENT, full=False, early=False)) == (32, 1)
