"""What a user has stays as it is: texts, losses, a certificate and a record, for fixed seeds.

``baseline.json`` beside this file holds what the commands gave before the interfaces of plugins
changed to version 2. Texts are compared everywhere; numbers and digests of bytes bit for bit on the
kind of machine that they were stored on (:func:`machine`), to a tolerance on any other, but for
what one rounded sum can turn into another number (:data:`TURNED`). A change that means to change a
result writes the file again, and its message says what moved and why:

    python tests/test_baseline.py
"""

import hashlib
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

import dlmkit
from dlmkit.cli.app import main
from dlmkit.registry.lookup import Registry

STORED = Path(__file__).with_name("baseline.json")
STEPS = 8
SAMPLERS = {
    "euler": {},
    "ancestral": {"grid": "karras:rho=3", "exit": "entropy:threshold=2"},
    "heun": {"grid": "log-uniform"},
    "edm-churn": {"sampler": "edm-churn:s_churn=4", "grid": "sqrt-entropic"},
    "dpm-2m": {"grid": "sqrt-entropic", "prompt": "and the lord"},
    "dpm-3m": {"exit": "stable-and-confident:threshold=2;steps=1"},
    "unipc": {"grid": "linear", "guidance": "score-temperature:temperature=0.8"},
    "dpm-2m-sde": {"guidance": ["clamped:below=3", "classifier-free:scale=1.5"]},
}
"""What each solver is sampled with: between them, every grid that needs no file, and rules."""

TURNED = ("bits", "threshold", "evidence")
"""Of digests, and of a certificate, whose threshold is the last in a row of tests that passes."""

RECIPES = ["ddlm_grammar", "langflow_grammar", "plaid_grammar", "ssd_grammar", "mdlm_grammar"]
TRAIN = {"steps": 3, "batch_size": 8, "micro_batch_size": 4}


def machine():
    """What moves the last bits of a sum: torch's version, the instructions that it uses, and the
    processor, by which a product of matrices chooses its blocks."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    first = dict(
        reversed([[part.strip() for part in line.split(":", 1)] for line in lines if line])
    )
    processor = " ".join(first.get(key, "") for key in ("vendor_id", "cpu family", "model"))
    version = torch.__version__.partition("+")[0]
    return f"torch {version}, {torch.backends.cpu.get_cpu_capability()}, {processor.strip()}"


def digest(*tensors):
    """Of the tensors' bytes."""
    taken = hashlib.sha256()
    for tensor in tensors:
        taken.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return taken.hexdigest()[:16]


def drawn(model, **options):
    """Three texts in two slots: their ids and evaluations, and a digest of every noisy state."""
    steps = []
    texts = model.sample(3, seed=1, batch_size=2, progress=steps.append, **options)
    samples = sorted((s for step in steps for s in step.samples), key=lambda s: s.row)
    return {
        "texts": [text.text for text in texts],
        "ids": digest(*(torch.tensor(sample.ids) for sample in samples)),
        "evaluations": [sample.evaluations for sample in samples],
        "steps": [sample.steps for sample in samples],
        "bits": digest(
            *(t for s in steps for t in (s.x, s.prediction.query, s.prediction.x0_step))
        ),
    }


def sampled(name):
    """Texts of the model that ships, by the solver ``name``."""
    return drawn(dlmkit.load("ddlm-mini"), steps=STEPS, **{"sampler": name, **SAMPLERS[name]})


def trained(name):
    """Losses and gradients of a few steps, and texts of the weights that come of them."""
    model = dlmkit.compose(extends=name, train=TRAIN)
    records = [(record.loss, record.gradient_norm) for record in model.train()]
    return {"losses": records, "bits": drawn(model, steps=4)["bits"]}


def ran(folder, *words):
    """The document that a command writes, without what names versions, kernels and this machine."""
    path = folder / f"{words[0]}.json"
    assert main([*map(str, words), "--out", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    for part in (found, found.get("conditions", {}), found.get("protocol", {}).get("sampling", {})):
        for name in ("kernel", "versions", "execution", "sha256", "left_out"):
            part.pop(name, None)
    found.get("protocol", {}).pop("software", None)
    return found


def certificate(folder):
    """The content of an exit certificate."""
    trace = folder / "a.trace"
    words = ["ddlm-mini", "-n", 60, "--steps", 12, "--seed", 3, "--device", "cpu", "--out", trace]
    assert main(["trace", *map(str, words)]) == 0
    risk = ["--epsilon", 0.4, "--tolerance", 0.3]
    return ran(folder, "exit", "calibrate", trace, "--rule", "entropy", *risk)


def record(folder):
    """The content of an evaluation record."""
    words = ["-n", 3, "--steps", STEPS, "--metric", "distinct", "--device", "cpu"]
    return ran(folder, "eval", "ddlm-mini", *words)


MADE = {"samplers": sampled, "recipes": trained}
NAMES = {"samplers": list(SAMPLERS), "recipes": RECIPES}
DOCUMENTS = {"certificate": certificate, "record": record}


@pytest.fixture(autouse=True)
def alone():
    """One thread: how sums are shared out among several moves their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


def same(made, kept, exact, where=""):
    """Whether two documents agree: in everything if ``exact``, else but for rounding."""
    if isinstance(kept, dict):
        assert made.keys() == kept.keys(), where
        for name in kept:
            if exact or name not in TURNED:
                same(made[name], kept[name], exact, f"{where}.{name}")
    elif isinstance(kept, list):
        assert len(made) == len(kept), where
        for place, (here, there) in enumerate(zip(made, kept, strict=True)):
            same(here, there, exact, f"{where}[{place}]")
    elif isinstance(kept, float) and not exact:
        assert math.isclose(made, kept, rel_tol=1e-4, abs_tol=1e-6), (where, made, kept)
    else:
        assert made == kept, where


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in MADE for name in NAMES[kind]])
def test_texts_and_losses_are_what_they_were(kind, name, stored):
    made = json.loads(json.dumps(MADE[kind](name)))
    same(made, stored[kind][name], machine() == stored["machine"], name)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_hold_what_they_held(name, stored, tmp_path):
    same(DOCUMENTS[name](tmp_path), stored[name], machine() == stored["machine"], name)


def test_a_number_that_moved_is_seen(stored):
    """Also where only rounding may differ."""
    kept = stored["recipes"]["ddlm_grammar"]
    moved = {**kept, "losses": [[loss * 1.001, norm] for loss, norm in kept["losses"]]}
    for exact in (True, False):
        same(kept, kept, exact)
        with pytest.raises(AssertionError):
            same(moved, kept, exact)


def test_every_solver_that_ships_is_held_to_what_it_gave(stored):
    registry = Registry.load(third_party=False)
    names = {
        entry.component.name
        for entry in registry.components()
        if (entry.component.kind, entry.plugin) == ("sampler", "samplers")
    }
    assert names == set(SAMPLERS) == set(stored["samplers"])


def write():
    """Store what the commands give now."""
    torch.set_num_threads(1)
    made = {"machine": machine()}
    made |= {kind: {name: MADE[kind](name) for name in NAMES[kind]} for kind in MADE}
    with TemporaryDirectory() as folder:
        made |= {name: DOCUMENTS[name](Path(folder)) for name in DOCUMENTS}
    text = json.dumps(made, indent=1, ensure_ascii=False)
    STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
