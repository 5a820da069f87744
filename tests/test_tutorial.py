"""The tutorial of CONTRIBUTING.md: its files are the fixture's, and its commands run as written."""

import ast
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tests" / "fixtures" / "third_party_plugin"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
TUTORIAL = TEXT[TEXT.index("### From nothing") : TEXT.index("### Checks")]

FILES = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)```$", TUTORIAL, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"```bash\n(.*?)```", TUTORIAL, re.DOTALL)


def test_its_files_are_those_of_the_package():
    files = [
        path
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {str(path.relative_to(PACKAGE)): path.read_text() for path in files} == FILES


def test_it_is_short():
    assert len(FILES) <= 5
    parts = ast.parse(FILES["acme/parts.py"]).body
    lines = [part.end_lineno - part.lineno + 1 for part in parts if isinstance(part, ast.ClassDef)]
    assert len(lines) == 2
    assert max(lines) <= 20


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> Path:
    """An environment of its own, in which what is installed here can be imported."""
    folder = tmp_path_factory.mktemp("tutorial") / "environment"
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if Path(path).is_dir() and "site-packages" in path]
    (site / "here.pth").write_text("\n".join([*paths, str(ROOT), str(ROOT / "plugins")]))
    for name in ("pip", "dlmkit"):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {name} "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.mark.slow
def test_its_commands_run_as_written(environment, tmp_path):
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    settings = {
        **os.environ,
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "PIP_NO_BUILD_ISOLATION": "false",  # which means: without it, as nothing is downloaded
        "PIP_NO_DEPS": "1",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
    }
    settings.pop("PYTHONPATH", None)
    benched = (ROOT / "dlmkit" / "cli" / "bench.py").exists()
    for block in COMMANDS:
        for command in block.strip().splitlines():
            if command.startswith("dlmkit bench") and not benched:
                continue
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, env=settings, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert shutil.which("dlmkit", path=settings["PATH"]).startswith(str(environment))
