"""Files of each kind, as written before one module read them all, still load and compare.

``fixtures/written`` holds what commit 413d9be wrote of a run of four steps; nothing in it is made
anew, so that what users have stays readable.
"""

import copy
import json
import shutil
from pathlib import Path

import pytest

import dlmkit
from dlmkit import documents
from dlmkit.bench import document
from dlmkit.bench.compare import compare as compare_runs
from dlmkit.cli.app import main
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.evaluation.record import FRONTIER, Record, compare
from dlmkit.exits.certificate import CERTIFICATE, Certificate
from dlmkit.exits.replay import full
from dlmkit.exits.trace_file import load_trace, save_trace
from dlmkit.training.checkpoint import find, listed, saved_step, verify
from dlmkit.training.curves import drawn
from dlmkit.training.folder import read_environment

WRITTEN = Path(__file__).parent / "fixtures" / "written"
SHIPPED = Path(dlmkit.__file__).parent.parent / "plugins/dlmkit_ddlm/models/ddlm-mini"


def test_a_record_is_read_and_written_again_alike():
    record = Record.load(WRITTEN / "record.json")
    assert record.results["text:distinct"]["entropy_4"]["value"] == pytest.approx(5.8403, abs=1e-4)
    assert documents.text(record.content()) == (WRITTEN / "record.json").read_text()
    assert all(change.before == change.after for change in compare(record, record))


def test_a_frontier_holds_records_that_compare():
    content = FRONTIER.read(WRITTEN / "frontier.json")
    one, other = (Record.of(point["record"]) for point in content["points"])
    with pytest.raises(UsageError, match=r"\n  sampling\.steps: 3 -> 6\n"):
        compare(one, other)
    assert compare(one, other, ["steps"])


def test_a_certificate_is_read_and_written_again_alike(tmp_path):
    certificate = Certificate.load(WRITTEN / "certificate.json")
    assert certificate.rule == {"use": "samplers:fixed", "with": {"step": 3}}
    certificate.save(tmp_path / "again.json")
    again = (tmp_path / "again.json").read_text()
    assert again == (WRITTEN / "certificate.json").read_text()


def test_a_trace_is_read_and_written_again_alike(tmp_path):
    trace = load_trace(WRITTEN / "full.trace")
    assert full(trace).steps.tolist() == [6, 6, 6, 6]
    save_trace(trace, tmp_path / "again.trace")
    assert (tmp_path / "again.trace").read_bytes() == (WRITTEN / "full.trace").read_bytes()


def test_a_measurement_is_read_and_compares():
    content = document.read(WRITTEN / "bench.json")
    found = compare_runs(content, copy.deepcopy(content))
    assert (found.failures(0.0), found.notes, len(found.changes)) == ([], (), 2)


def test_a_runs_folder_is_read():
    checkpoint = find(WRITTEN / "run")
    assert (checkpoint.name, saved_step(checkpoint)) == ("step-00000004", 4)
    assert listed(checkpoint) == {"weights", "training/state.json"}
    assert read_environment(WRITTEN / "run")["seed"] == 0
    assert [bool(axes.lines) for axes in drawn(WRITTEN / "run").axes] == [True, True]


def test_a_shipped_model_is_read():
    verify(SHIPPED)
    assert main(["eval", "compare", *[str(SHIPPED / "evaluation.json")] * 2]) == 0


@pytest.mark.parametrize("name", ["record.json", "certificate.json", "frontier.json"])
def test_an_edit_of_any_of_them_is_noticed(name, tmp_path):
    kinds = {"certificate.json": CERTIFICATE, "frontier.json": FRONTIER}
    edited = json.loads((WRITTEN / name).read_text())
    next(value for value in edited.values() if isinstance(value, dict | list)).clear()
    (tmp_path / name).write_text(json.dumps(edited))
    with pytest.raises(CheckpointError, match="altered since it was written"):
        kinds[name].read(tmp_path / name) if name in kinds else Record.load(tmp_path / name)


def test_an_edit_of_a_manifest_is_noticed(tmp_path):
    folder = shutil.copytree(WRITTEN / "run/checkpoints/step-00000004", tmp_path / "step-00000004")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"size": 16', '"size": 17'))
    with pytest.raises(CheckpointError, match="its sha256 is not the saved one"):
        verify(folder)
