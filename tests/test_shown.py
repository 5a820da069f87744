"""What a terminal would obey is shown instead, whatever way the text takes out."""

import ast
import io
import json
import sys
from pathlib import Path

import pytest

from dlmkit import shown
from dlmkit.cli.app import main
from dlmkit.cli.output import result, result_json
from dlmkit.report import page, picture, table
from dlmkit.shown import Talk, console, escape, say, visible
from dlmkit.training.console import Lines

ROOT = Path(__file__).parent.parent
CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
HOSTILE = f"a{CLIPBOARD}b\x9b2Jc\rd\u202ee\ud800f\x08g\x7f"
SHOWN = r"a\u001b]52;c;ZXZpbA==\u0007b\u009b2Jc\u000dd\u202ee\ud800f\u0008g\u007f"
OBEYED = [c for c in HOSTILE if c not in SHOWN]


def test_every_character_that_is_obeyed_is_shown_and_no_other():
    assert visible(HOSTILE) == SHOWN
    assert visible(SHOWN) == SHOWN
    plain = "tab\t newline\n é 漢字 שלום 👩‍👩‍👧 a\u00a0b \\u001b"
    assert visible(plain) == plain


def test_results_and_talk(capsys):
    result(HOSTILE)
    say(HOSTILE)
    assert capsys.readouterr() == (f"{SHOWN}\n", f"{SHOWN}\n")


def test_json_stays_json_and_exact(capsys):
    value = {HOSTILE: [HOSTILE, "é"]}
    result_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert not set(OBEYED) & set(out)
    assert "é" in out


def test_a_console_shows_text_as_it_is_without_mark_up(capsys):
    from rich.table import Table

    sheet = Table("[link=http://evil]name[/link]")
    sheet.add_row(f"{HOSTILE} :skull:")
    console(width=200).print(sheet)
    out = capsys.readouterr().out
    assert SHOWN in out
    assert "[link=http://evil]name[/link]" in out
    assert ":skull:" in out
    assert not set(OBEYED) & set(out)


def test_a_terminals_own_colours_stay(monkeypatch):
    from rich.text import Text

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console(width=200).print(Text(HOSTILE, style="bold"))
    out = sys.stdout.getvalue()
    assert out.startswith("\x1b[1m")
    assert "\\u001b]52;c;" in out
    assert CLIPBOARD not in out


def test_what_a_run_says_of_its_samples(capsys):
    lines = Lines(console(talk=True, width=300))
    lines.begin(0, 1)
    lines.log({"kind": "sample", "step": 1, "texts": [HOSTILE]})
    err = capsys.readouterr().err
    assert SHOWN in err
    assert not set(OBEYED) & set(err)


def test_pages_escape_mark_up_and_controls():
    text = f"<script>\"'&{HOSTILE}"
    whole = page(text, [table([text], [[text]]), picture(b"", b"", text)])
    assert "<script>" not in whole
    assert not set(OBEYED) & set(whole)
    assert escape(text).startswith("&lt;script&gt;&quot;&#x27;&amp;a\\u001b")


@pytest.mark.parametrize(
    "words",
    [
        ("recipe", "check", f"./{HOSTILE}.yaml"),
        ("train", "ddlm_grammar", "--set", f"{HOSTILE}=1"),
        ("sample", HOSTILE),
        ("sample", "ddlm-mini", f"--{HOSTILE}"),
        ("sample", "ddlm-mini", HOSTILE),
        (HOSTILE,),
        ("plugins", "check", HOSTILE),
        ("trace", "ddlm-mini", "--out", f"/nowhere/{CLIPBOARD}"),
        ("--debug", "recipe", "check", HOSTILE),
    ],
)
def test_errors_repeat_nothing_that_a_terminal_obeys(words, capsys):
    assert main(words) in (2, 3, 4)
    out, err = capsys.readouterr()
    assert not set(OBEYED) & set(out + err)
    assert "\\u001b" in err or "\\x1b" in err


def test_a_recipes_keys(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = json.dumps(f"a{CLIPBOARD}")
    Path("r.yaml").write_text(f"{key}: 1\nsummary: {key}\n")
    assert main(["recipe", "check", "r.yaml"]) == 3
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "1b]52" in err


def test_talk_that_nobody_hears_stops_nothing(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    for stream in (Gone(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        say("words")
        lines = Lines(console(talk=True))
        lines.say("words")
        lines.say("more")
    closed = io.StringIO()
    closed.close()
    Talk(closed).write("words")


def sources():
    for folder in ("dlmkit", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_there_is_no_other_way_out():
    """Nobody prints, echoes, makes a console or escapes HTML but the two modules that do."""
    allowed = {Path(shown.__file__), ROOT / "dlmkit" / "cli" / "output.py"}
    others = []
    for path, tree in sources():
        if path in allowed:
            continue
        for node in ast.walk(tree):
            match node:
                case (
                    ast.Call(func=ast.Name(id="print" | "Console"))
                    | ast.Call(func=ast.Attribute(attr="echo" | "secho" | "print_exc" | "Console"))
                    | ast.ImportFrom(module="html")
                    | ast.Call(
                        func=ast.Attribute(
                            attr="write",
                            value=ast.Attribute(attr="stdout" | "stderr"),
                        )
                    )
                ):
                    others.append(f"{path}:{node.lineno}")
    assert others == []
