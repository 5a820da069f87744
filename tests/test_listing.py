"""`dlmkit plugins list` names the plugin that ends, crashes, hangs or lingers, and lists all."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from dlmkit.cli.app import main
from dlmkit.errors import PluginError
from dlmkit.registry import listing, loading
from dlmkit.registry.lookup import Registry

GOOD = """
from dlmkit import Component, Config, hookimpl

@hookimpl
def register_components():
    return [Component("masking", "mine", "a masking", Config, "nowhere:Mine")]
"""
CRASH = """
import faulthandler, os, signal
faulthandler.disable()
os.kill(os.getpid(), signal.SIGSEGV)
"""
LEAVE = "import ctypes; ctypes.CDLL(None)._exit(0)"
LINGER = (
    f"import threading\nthreading.Thread(target=threading.Event().wait, name='x').start()\n{GOOD}"
)
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes by fork")


def listed(**options):
    return {plugin.name: plugin for plugin in listing.plugins(**options)}


def test_a_healthy_list_is_the_registrys_own(install):
    install("acme", GOOD)
    assert listing.plugins() == Registry.load().plugins


@fork
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (LEAVE, "its import ended the process (exit code 0)"),
        (CRASH, "its import ended the process (SIGSEGV)"),
        ("import os; os._exit(0)", "it ends the process when it is imported (os._exit(0))"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        (LINGER, "its import left a thread running (x)"),
    ],
)
def test_a_plugin_that_ends_or_lingers_is_one_failed_line(install, source, reason):
    install("bad", source)
    install("good", GOOD)
    found = listed()
    assert (found["bad"].state, found["bad"].provides) == ("failed", ())
    assert reason in found["bad"].reason
    assert (found["good"].state, found["good"].provides) == ("ok", ("masking/mine",))
    assert found["cdcd"].state == "ok"


@fork
def test_a_plugin_that_hangs_is_left_after_a_while_with_the_way_round(install, capsys):
    install("bad", "import threading; threading.Event().wait()")
    found = listed(limit=0.2)
    assert found["bad"].state == "failed"
    assert "its import did not end within 0.2 s" in found["bad"].reason
    assert "dlmkit --no-plugins" in found["bad"].reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os; os._exit(0)", "os._exit(0)"),
        ("import threading\ndef f(): import os; os._exit(3)\nf()", "os._exit(3)"),
        (LINGER, "left a thread running (x)"),
    ],
)
def test_every_other_command_goes_on_without_it(install, source, reason, capsys):
    install("bad", source)
    leave, start = os._exit, threading.Thread.start
    assert main(["recipe", "check", "ddlm_grammar"]) == 0
    assert main(["recipe", "check", "ddlm_grammar", "--set", "sampler.use=bad:x"]) == 4
    assert reason in capsys.readouterr().err
    assert (os._exit, threading.Thread.start) == (leave, start)


def test_a_crash_below_python_names_the_plugins_file(install, site):
    install("bad", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = (sys.executable, "-m", "dlmkit", "recipe", "ls")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGSEGV
    assert f'{site / "bad.py"}", line 2 in <module>' in done.stderr


def test_a_thread_that_is_left_does_not_keep_the_program_from_ending(install, site):
    install("bad", LINGER)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = (sys.executable, "-m", "dlmkit", "recipe", "check", "ddlm_grammar")
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    assert done.stdout == b"ddlm_grammar: valid\n"


def test_an_import_that_takes_long_is_named_with_the_way_round(install, capsys, monkeypatch):
    monkeypatch.setattr(loading, "PATIENCE", 0.0)
    said = threading.Event()
    monkeypatch.setattr(loading, "say", lambda text: print(text) or said.set())
    monkeypatch.setattr(threading, "said_in_this_test", said, raising=False)
    install("slow", f"import threading\nthreading.said_in_this_test.wait(60)\n{GOOD}")
    assert Registry.load().find("masking", "slow:mine").plugin == "slow"
    assert "'slow' (slow 1.0) is still being imported; " in capsys.readouterr().err


def test_dlmkits_own_metadata_missing_is_a_damaged_installation(monkeypatch, capsys):
    monkeypatch.setattr(loading.metadata, "distributions", lambda: iter(()))
    with pytest.raises(PluginError, match="the installation of dlmkit is damaged"):
        Registry.load()
    for words in (["--help"], ["recipe", "ls"], ["plugins", "list"]):
        assert main(words) == 4
        err = capsys.readouterr().err
        assert err.startswith("error: the installation of dlmkit is damaged: its package metadata")
