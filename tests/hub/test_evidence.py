"""What was measured of a model goes with it and stands in its card, of that model alone."""

import json
import shutil

import pytest

import dlmkit
from dlmkit import documents
from dlmkit.cli.app import main
from dlmkit.evaluation.record import Record
from dlmkit.training.checkpoint import listed, verify
from dlmkit_acceptance.document import ACCEPTANCE
from dlmkit_hub.evidence import Evidence

SAMPLES = ["in the ```beginning```", *(f"text {i}" for i in range(1, 20))]


def number(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "error": 0.05}


def record(digest):
    sampling = {"seed": 3, "steps": 8, "sampler": {"use": "s:euler"}, "grid": {"use": "s:warped"}}
    results = {"text:ngram-judge": {"nll": number(2.5), "human_nll": number(1.25)}}
    return Record(
        {"name": "tiny", "sha256": digest}, {"sampling": sampling}, {"count": 64}, results, {}
    ).content()


def acceptance(digest):
    level = {"sigma": 1.5, "context_free": 4.0, "bigram": 3.0, "trigram": 2.0, "model": 3.5}
    level |= {"model_minus_bigram": number(0.5), "share": number(0.25), "verdict": "worse"}
    at = {"model": number(2.0), "bigram": number(3.0), "verdicts": {"bigram": "better"}}
    frontier = {
        "human": {"nll_per_character": number(1.0)},
        "writers": {"model": [], "bigram": []},
        "at_human": {"entropy_4": at, "entropy_1": at},
    }
    return ACCEPTANCE.sealed(
        {
            "subject": {"name": "tiny", "sha256": digest},
            "protocol": {"rows": 4, "texts": 64, "infilled": 8, "seed": 0},
            "levels": [level],
            "frontier": frontier,
            "infilling": {"writers": {"model": {"likeliest": number(0.5)}}},
            "samples": SAMPLES,
        }
    )


@pytest.fixture(scope="module")
def measured(run, tmp_path_factory):
    """Documents of the run, and pictures beside one of them."""
    folder, digest = tmp_path_factory.mktemp("measured"), dlmkit.load(run).digest()
    (folder / "eval.json").write_text(documents.text(record(digest)))
    (folder / "accept.json").write_text(documents.text(acceptance(digest)))
    for name in ("accept.png", "accept-dark.png"):
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode())
    return folder


@pytest.fixture(scope="module")
def out(run, measured, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "tiny"
    words = ["--record", str(measured / "eval.json"), "--acceptance", str(measured / "accept.json")]
    assert main(["export", str(run), str(out), *words, "--license", "cc0-1.0"]) == 0
    return out


def test_documents_and_pictures_go_along_under_names_of_their_own(out, measured):
    carried = {
        "evaluation.json": "eval.json",
        "acceptance.json": "accept.json",
        "acceptance.png": "accept.png",
        "acceptance-dark.png": "accept-dark.png",
    }
    for name, before in carried.items():
        assert (out / name).read_bytes() == (measured / before).read_bytes()
        assert name in listed(out)
    verify(out)
    assert len(dlmkit.load(out).sample(1)) == 1


def test_the_card_shows_them(out):
    text = (out / "README.md").read_text()
    for words in (
        "64 texts of seed 3, 8 steps of `s:euler` on `s:warped`",
        "| text:ngram-judge, nll | 2.5000 [2.4000, 2.6000] | 1.2500 [1.1500, 1.3500] |",
        "It is not met.",
        'srcset="acceptance-dark.png"><img src="acceptance.png"',
        "| 1.50 | 4.0000 | 3.0000 | 2.0000 | 3.5000 |",
        "- Its cross-entropy is above the exact bigram denoiser's at noise-to-signal ratio 1.50.",
    ):
        assert words in text, words
    shown = text.partition("``````text\n")[2].partition("``````")[0]
    assert shown == "".join(f"--- {i}\n{sample}\n" for i, sample in enumerate(SAMPLES))


def test_exported_again_they_go_along(out, tmp_path):
    again = tmp_path / "again"
    assert main(["export", str(out), str(again)]) == 0
    files = sorted(path.name for path in out.iterdir() if path.name != "manifest.json")
    assert sorted(path.name for path in again.iterdir() if path.name != "manifest.json") == files
    for name in files:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_with_another_licence_the_rest_of_the_card_stays(out, tmp_path):
    edited, again = tmp_path / "edited", tmp_path / "again"
    shutil.copytree(out, edited)
    with (edited / "README.md").open("a") as card:
        card.write("\nA word by hand.\n")
    dlmkit.load(edited).save(again, name="other", licence="mit")
    text = (again / "README.md").read_text()
    for words in ("license: mit", "\n# other\n", "It is not met.", "A word by hand."):
        assert words in text, words
    assert "cc0-1.0" not in text
    assert (again / "acceptance-dark.png").is_file()


def test_of_another_model_they_are_refused(run, measured, tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text(documents.text(record("0" * 64)))
    assert main(["export", str(run), str(tmp_path / "x"), "--record", str(other)]) == 2
    assert f"{other} is of another model (tiny)" in capsys.readouterr().err
    words = ["--record", str(measured / "accept.json")]
    assert main(["export", str(run), str(tmp_path / "x"), *words]) == 2
    assert "is no dlmkit-evaluation-record" in capsys.readouterr().err
    changed = json.loads((measured / "accept.json").read_text()) | {"samples": ["picked"]}
    other.write_text(json.dumps(changed))
    assert main(["export", str(run), str(tmp_path / "x"), "--acceptance", str(other)]) == 6
    assert "has been altered" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_was_measured_of_the_model_that_ships_is_of_its_weights_and_options():
    """Also after its parts got more options, which it has at their defaults."""
    model = dlmkit.load("ddlm-mini")
    found = Evidence.of(model)
    assert found.record is not None
    assert found.acceptance is not None
