"""Shape annotations are checked while the tests run, by beartype, from the modules' import on."""

import os
import signal
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import annotations
import pytest
from hypothesis import settings

from dlmkit.plugin import API

if TYPE_CHECKING:
    import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells leave it in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children inherit that it is heeded

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors are tiny; read when torch is imported

ROOT = Path(__file__).parent.parent
FOLDERS = [
    "dlmkit/core",
    "dlmkit/evaluation",
    "dlmkit/exact",
    "dlmkit/exits",
    "dlmkit/kernels",
    "dlmkit/sampling",
    "dlmkit/testing",
    "dlmkit/training",
    "plugins/*",
]
# torch.compile cannot see through the checks; the pretend device's run at every operation
LEFT_OUT = {"attention", "pretend"}


def checked_modules() -> list[str]:
    """The modules whose functions check the shapes of what they get and return."""
    files = [file for folder in FOLDERS for file in sorted(ROOT.glob(f"{folder}/*.py"))]
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removeprefix("plugins.")
        for file in files
        if file.stem not in LEFT_OUT and "Tensor" in file.read_text()
    ]
    return ["dlmkit.noise", "dlmkit.rows", *names]


annotations.install(checked_modules())

settings.register_profile("dlmkit", deadline=None)  # a busy machine is not a failure
settings.load_profile("dlmkit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A process that is done takes from what another has left. No option, for with one
    pytest-benchmark times nothing."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def drawing() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Runs that end draw no curves, which takes half a second, but within what this gives."""
    from dlmkit.training.curves import CurvesPicture

    close = CurvesPicture.close

    @contextmanager
    def drawn() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CurvesPicture, "close", close)
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CurvesPicture, "close", lambda curves: None)
        yield drawn


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path`` that packages are installed into for one test."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Callable[..., Path]:
    """Installs a real little package: a module, and its metadata with one entry point.

    A module that does not say which plugin API it is written for is for this one.
    """

    def write(
        distribution: str,
        source: str,
        plugin: str | None = None,
        version: str = "1.0",
        entry_points: str | None = None,
    ) -> Path:
        module = distribution.replace("-", "_")
        api = "" if "api = " in source else f"\napi = {API}\n"
        (site / f"{module}.py").write_text(textwrap.dedent(source) + api)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        points = entry_points or f"[dlmkit]\n{plugin or distribution} = {module}\n"
        (info / "entry_points.txt").write_text(points)
        return site

    return write


@pytest.fixture
def install_folder(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Installs a package's folder for one test, as its own pyproject.toml says."""
    folders: list[Path] = []

    def link(folder: Path) -> None:
        folders.append(folder)
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        words = f"Name: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\n{words}")
        points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["dlmkit"].items())
        (info / "entry_points.txt").write_text(f"[dlmkit]\n{points}")
        monkeypatch.syspath_prepend(folder)

    yield link
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(tuple(map(str, folders))):
            del sys.modules[name]


def pytest_sessionstart() -> None:
    """The pretend accelerator is set up before anything else: no backward pass may come before,
    and a module of tests may make one as it is imported."""
    from dlmkit.testing import pretend

    pretend.set_up()


@pytest.fixture
def accelerator() -> Iterator["torch.device"]:
    """The test runs on a machine with an accelerator: the pretend one, which it gets."""
    from dlmkit.testing import pretend

    with pretend.accelerator() as device:
        yield device
