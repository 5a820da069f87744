"""Faults injected into training runs, counted: kills, damaged bytes, full disks, and bad parts.

    python benchmarks/faults.py --json faults.json              # the full counts
    python benchmarks/faults.py --kills 8 --random 3 --corruptions 12 --full 6   # some seconds
    python benchmarks/faults.py --part 2/8 --json 2.json        # an eighth of each fault's cases
    python benchmarks/faults.py --join 1.json 2.json ...        # parts in one table

Every case is a real run of the program in a process of its own, forked from one that has already
imported it. What costs most there and is no matter here is cut short: the picture of its curves is
written without being drawn, and fewer tokens are counted for a validation. A run that was hit is
resumed with ``--resume auto`` and must end as the straight run does: weights, averages, optimiser
and state byte by byte, and every record of metrics.jsonl but for what a clock measured. A count of
0 leaves its faults out. Exits 1 if any case is not as expected.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECIPE = """\
extends: ddlm_grammar
space: {use: normalised, with: {dim: 16}}
network: {use: transformer, with: {width: 32, heads: 2, blocks: 1, time_features: 16}}
train:
  steps: 6
  batch_size: 4
  threads: 1
  warmup_steps: 2
  log_every: 1
  checkpoint_every: 2
  keep_last: 1
  validate_every: 4
  validation_rows: 4
  sample_every: 4
sample: {count: 2, measured: 2, steps: 2}
metric: []
"""
LAST, EARLIER = "step-00000006", "step-00000004"
COMMANDS = (
    "dlmkit.evaluation.evaluate", "dlmkit.exits.record_run", "dlmkit_glue.run", "dlmkit_hub.export",
    "dlmkit_text.prepared", "dlmkit_text.diversity",
)  # fmt: skip
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
CLOCKS = {"seconds", "data_seconds", "total_seconds", "tokens_per_second", "step_seconds"}
CLOCKS |= {"data_share"}

PLUGIN = """\
    from dlmkit import Component, Config, hookimpl, part_of

    api = 2

    class Inner(Config):
        inner: part_of("data")
        step: int = 3

    @hookimpl
    def register_components():
        from dlmkit_cdcd.configs import Transformer
        return [
            Component("data", "ends-early", "text that ends early", Inner, "faulty:ends_early"),
            Component("network", "nan", "not a number", Transformer, "faulty:nan"),
            Component("tracker", "raises", "always raises", Config, "faulty:raises"),
        ]

    def ends_early(config, context):
        from dlmkit.errors import DataError
        data = context.build("data", config.inner)
        start = data.stream

        def stream(seed, size):
            inner = start(seed, size)
            if size > 100:  # not the run's own: what validation counts frequencies in
                return inner
            read = inner.read

            def until(step, slots):
                if step == config.step:
                    raise DataError("shard 3 of 7 ends early, in line 1204")
                return read(step, slots)

            inner.read = until
            return inner

        data.stream = stream
        return data

    def nan(config, context):
        import torch
        from dlmkit_cdcd.network import Transformer

        class Nan(Transformer):
            passes = 0

            def forward(self, x, level, conditioning, previous):
                query = super().forward(x, level, conditioning, previous)
                self.passes += self.training and torch.is_grad_enabled()
                return query * float("nan") if self.passes == 4 else query

        return Nan(config, context)

    def raises(config, context):
        from dlmkit.core.tracker import Tracker

        class Raises(Tracker):
            def open(self, folder, recipe):
                pass

            def log(self, record):
                raise ConnectionError("the tracker's server is gone")

            def close(self):
                raise ConnectionError("still gone")

        return Raises()
"""


class Strikes:
    """Counts this process's changes of the disk under ``folder``, and does ``act`` at one of them.

    A change is what an audit hook sees (opening a file for writing, making, renaming and removing
    files and folders), a write through a Python file (before it, and after half of it), a file
    that the tensors library writes (before it, and cut to half of it), and an fsync.
    """

    def __init__(self, folder: Path, at: int, act: Callable[[str], None]) -> None:
        self.folder, self.at, self.act = str(folder), at, act
        self.seen: list[str] = []

    def strike(self, kind: str) -> None:
        self.seen.append(kind)
        if len(self.seen) - 1 == self.at:
            self.act(kind)

    def install(self) -> None:
        """Watch this process from now on; there is no way back."""
        from dlmkit.training import state

        sys.addaudithook(self._audit)
        self._fsync, self._open, self._save = os.fsync, io.open, state.save_file
        mine = ((os, "fsync", self._synced), (io, "open", self._opened))
        for module, name, watched in (*mine, (state, "save_file", self._saved)):
            setattr(module, name, watched)

    def _inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self._inside(arguments[0]):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.strike("open")
        elif event in CHANGES and self._inside(arguments[0]):
            self.strike(event[3:])

    def _synced(self, descriptor: int) -> None:
        self.strike("fsync")
        self._fsync(descriptor)

    def _opened(self, file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        opened = self._open(file, mode, *more, **options)
        written = self._inside(file) and not set(mode).isdisjoint("wax+")
        return Written(opened, self.strike) if written else opened

    def _saved(self, tensors: Any, path: Path) -> None:
        self.strike("write")
        self._save(tensors, path)
        if len(self.seen) != self.at:
            self.strike("write half")
            return
        half = path.stat().st_size // 2
        with self._open(path, "r+b") as file:  # half of it is on the disk; after a pause the rest
            file.seek(half)
            rest = file.read()
            file.truncate(half)
            self.strike("write half")
            file.seek(half)
            file.write(rest)


class Written:
    """A file for writing that strikes before every write and in its middle."""

    def __init__(self, file: Any, strike: Callable[[str], None]) -> None:
        self._file, self._strike = file, strike

    def write(self, content: Any) -> int:
        self._strike("write")
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        self._strike("write half")
        self._file.write(content[half:])
        self._file.flush()
        return len(content)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass
class Outcome:
    """How one process ended: exit code (negative: the signal) and what it said."""

    code: int
    said: str


LINE = 512
"""Bytes that a message of a run may have."""


@dataclass
class Bench:
    """Forked runs in a folder of their own, and what is expected of them."""

    folder: Path
    rng: random.Random
    part: tuple[int, int] = (0, 1)
    failures: list[str] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    _names: Iterable[int] = field(default_factory=itertools.count)

    @property
    def recipe(self) -> Path:
        return self.folder / "faults.yaml"

    def cases(self, count: int) -> range:
        """Those of ``count`` cases that this part does."""
        return range(self.part[0], count, self.part[1])

    def fresh(self) -> Path:
        """A run folder that nobody has used."""
        return self.folder / f"run-{next(iter(self._names))}"

    def start(self, run: Path, *changes: str, before: Callable[[], None] = lambda: None) -> int:
        """Fork ``dlmkit train --resume auto``; its process id. ``before`` runs in it first."""
        sets = [word for change in changes for word in ("--set", change)]
        words = ["train", str(self.recipe), "--out", str(run), "--resume", "auto", *sets]
        return self.fork(words, run, before)

    def fork(self, words: Sequence[str], run: Path, before: Callable[[], None]) -> int:
        """Fork the program with ``words``; its process id. What it says is kept for ``run``."""
        # opened here, since the child may be killed before it opens anything
        log = os.open(self.log(run), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        child = os.fork()
        if child == 0:
            os.dup2(log, 1), os.dup2(log, 2)
            code = 99
            try:
                before()
                code = importlib.import_module("dlmkit.cli.app").main(words)
            finally:
                os._exit(code)
        os.close(log)
        return child

    def log(self, run: Path) -> Path:
        return self.folder / f"{run.name}.log"

    def wait(self, child: int, run: Path) -> Outcome:
        _, status = os.waitpid(child, 0)
        return Outcome(os.waitstatus_to_exitcode(status), self.log(run).read_text())

    def train(self, run: Path, *changes: str, **how: Any) -> Outcome:
        return self.wait(self.start(run, *changes, **how), run)

    def command(
        self, words: Sequence[str], run: Path, before: Callable[[], None] = lambda: None
    ) -> Outcome:
        return self.wait(self.fork(words, run, before), run)

    def expect(self, holds: bool, case: str, detail: str = "") -> bool:
        """Note ``case`` as failed unless it ``holds``."""
        if not holds:
            self.failures.append(f"{case}: {detail.strip()}")
        return holds

    def resumes_equal(self, run: Path, case: str) -> bool:
        """Whether the run goes on to the straight run's end, bit by bit; it is deleted then."""
        after = self.train(run)
        if not self.expect(after.code == 0, case, f"the resume exits {after.code}: {after.said}"):
            return False
        now = ending(run)
        differs = [name for name in self.end if now.get(name) != self.end[name]]
        if not self.expect(not differs and now.keys() == self.end.keys(), case, f"{differs}"):
            return False
        shutil.rmtree(run)
        return True


def ending(run: Path) -> dict[str, Any]:
    """What two equal runs share: the digest of every tensor file, the state, records, samples."""
    last = run / "checkpoints" / LAST
    files = [*last.rglob("*.safetensors"), *(run / "samples").glob("*")]
    content: dict[str, Any] = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    content["state"] = unclocked(json.loads((last / "training" / "state.json").read_text()))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    content["metrics"] = [unclocked(json.loads(line)) for line in lines]
    content["folders"] = sorted(path.name for path in (run / "checkpoints").iterdir())
    return content


def unclocked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: unclocked(v) for k, v in value.items() if k not in CLOCKS}
    return [unclocked(item) for item in value] if isinstance(value, list) else value


def kill(kind: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pause(kind: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


class Full:
    """From one change of the disk on, everything that takes space fails."""

    def __init__(self) -> None:
        self.since = False

    def __call__(self, kind: str) -> None:
        self.since = True


def fill(strikes: Strikes, full: Full) -> None:
    """Make ``strikes`` a disk that is full from the struck change on, for what takes space."""
    strike = strikes.strike

    def filling(kind: str) -> None:
        strike(kind)
        if full.since and kind not in ("rename", "remove", "rmdir", "truncate"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    strikes.strike = filling  # type: ignore[method-assign]


def spread(count: int, total: int) -> list[int]:
    """``count`` of ``total`` places, evenly; all of them, and some again, if ``count`` is more."""
    if count <= total:
        return [i * total // count for i in range(count)]
    return [i % total for i in range(count)]


def at_the_end(act: Callable[[], object]) -> None:
    """In a child: ``act`` before it ends by itself."""
    exits = os._exit

    def ended(code: int) -> None:
        act()
        exits(code)

    os._exit = ended  # type: ignore[assignment]


def changes_of_the_disk(bench: Bench) -> list[str]:
    """The kinds of change that a straight run makes, in order; also a check that it is straight."""
    run, counted = bench.fresh(), bench.folder / "changes.json"

    def watch() -> None:
        strikes = Strikes(run, -1, kill)
        strikes.install()
        at_the_end(lambda: strikes._open(counted, "w").write(json.dumps(strikes.seen)))

    outcome = bench.train(run, before=watch)
    assert outcome.code == 0, outcome.said
    bench.expect(ending(run) == bench.end, "a watched run", "is not the straight run")
    seen: list[str] = json.loads(counted.read_text())
    return seen


Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A command beside training: its words after the model, and what of its output is compared."""

    name: str
    words: Callable[[Path, Path], list[str]]
    same: Callable[[Path], Any]
    cache: bool = False


def _document(path: Path) -> Any:
    """A JSON document without what a clock or a folder's name puts into it."""
    content = json.loads(path.read_text())
    return {k: v for k, v in unclocked(content).items() if k not in ("sha256", "execution")}


def _folder(path: Path) -> dict[str, str]:
    """Every file of a folder by its digest, but for those that name when and where."""
    unlike = ("manifest.json", "environment.json", "README.md")
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in unlike]
    names = {str(file.relative_to(path)): file for file in files}
    return {n: hashlib.sha256(file.read_bytes()).hexdigest() for n, file in names.items()}


def _told(out: Path) -> Any:
    """The JSON that a command of ours printed, without clocks."""
    said = out.with_name(f"{out.name}.log").read_text()
    return unclocked(json.loads(said[said.index("{\n") : said.rindex("}") + 1]))


def jobs(folder: Path) -> list[Job]:
    """Every command that reads a model or text and writes something, or takes long."""
    rows, text = folder / "glue" / "rte", folder / "text.txt"
    rows.mkdir(parents=True)
    for split, count in (("train", 8), ("validation", 4)):
        lines = [
            json.dumps(
                {
                    "sentence1": "ada admired the barn .",
                    "sentence2": "the otter",
                    "label": i % 2,
                    "idx": i,
                }
            )
            for i in range(count)
        ]
        (rows / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    text.write_text("\n\n".join(f"The {n} dogs saw a cat and ran home." for n in range(400)))
    metric = ["--metric", "distinct", "-n", "4", "--steps", "2"]
    # what the recipe of ours says of data, and a tokenizer and rows that are made from own text
    data = f"data={{use: text:text, with: {{paths: [{text}], rows: padded}}}}"
    return [
        Job("eval", lambda run, out: ["eval", str(run), *metric, "--out", str(out)], _document),
        Job(
            "trace",
            lambda run, out: ["trace", str(run), "-n", "4", "--steps", "3", "--out", str(out)],
            lambda out: out.read_bytes(),
        ),
        Job(
            "GLUE",
            lambda run, out: [
                *("glue", "rte", "--model", str(run), "--data", str(folder / "glue"), "--json"),
                *("--seeds", "1", "--epochs", "1", "--device", "cpu"),
            ],
            _told,
        ),
        Job("export", lambda run, out: ["export", str(run), str(out)], _folder),
        Job(
            "a cache built",
            lambda run, out: [
                *("train", str(folder / "faults.yaml"), "--out", str(out), "--resume", "auto"),
                *("--set", data, "--set", "length=16", "--set", "train.steps=1"),
            ],
            lambda out: _folder(out / "checkpoints" / "step-00000001")["model.safetensors"],
            cache=True,
        ),
    ]


def killed_jobs(bench: Bench, count: int) -> list[Row]:
    """SIGKILL at moments of other commands, spread over the time that each takes."""
    model = bench.fresh()
    assert bench.train(model).code == 0
    rows = []
    for job in jobs(bench.folder):
        good = hit = 0
        whole, seconds = _straight_job(bench, job, model)
        for index in bench.cases(count):
            out, case = bench.fresh(), f"{job.name} killed, {index}"
            words, fresh = job.words(model, out), _own_cache(bench, job)
            child = bench.fork(words, out, fresh)
            time.sleep(seconds * (index + bench.rng.random()) / count)
            os.kill(child, signal.SIGKILL)
            hit += bench.wait(child, out).code == -signal.SIGKILL
            again = bench.command(words, out, fresh)
            ended = again.code == 0 or (again.code == 2 and "exists already" in again.said)
            if bench.expect(ended, case, f"exits {again.code}: {again.said}"):
                good += bench.expect(job.same(out) == whole, case, "is not the straight one")
                good -= not bench.expect(not _litter(out), case, f"leaves {_litter(out)}")
            _clean(out)
        where = f"within {seconds:.1f} s; {hit} before the end"
        cases = len(bench.cases(count))
        rows.append(row(f"{job.name}: killed", cases, good, "done again, equal", where))
    return rows


def _own_cache(bench: Bench, job: Job) -> Callable[[], None]:
    """In a child: a cache that nobody has used, if the job is to build one."""
    folder = bench.fresh().with_suffix(".cache")
    return lambda: os.environ.update(DLMKIT_CACHE=str(folder)) if job.cache else None


def _straight_job(bench: Bench, job: Job, model: Path) -> tuple[Any, float]:
    out, began = bench.fresh(), time.monotonic()
    outcome = bench.command(job.words(model, out), out, _own_cache(bench, job))
    assert outcome.code == 0, outcome.said
    return job.same(out), time.monotonic() - began


def _litter(out: Path) -> list[str]:
    """Unfinished folders beside ``out``: a hidden file of a killed process may lie there."""
    return [p.name for p in out.parent.glob(f".*{out.name}*") if p.is_dir()]


def _clean(out: Path) -> None:
    for path in (out, *out.parent.glob(f".*{out.name}*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def two_on_one_run(bench: Bench, count: int) -> Row:
    """A second training on the folder of one that is stopped in its middle."""
    good, cases = 0, bench.cases(count)
    for index in cases:
        run, case = bench.fresh(), f"two trainings on one folder, {index}"
        place = 30 + 100 * index // count
        first = bench.start(run, before=Strikes(run, place, pause).install)
        os.waitpid(first, os.WUNTRACED)
        second = run.with_name(f"{run.name}-second")
        words = ["train", str(bench.recipe), "--out", str(run), "--resume", "auto"]
        outcome = bench.command(words, second)
        refused = outcome.code == 2 and "another process is training in" in outcome.said
        os.kill(first, signal.SIGCONT)
        ended = bench.wait(first, run)
        bench.expect(refused, case, f"the second exits {outcome.code}: {outcome.said}")
        equal = ended.code == 0 and ending(run) == bench.end
        good += bench.expect(equal, case, f"the first exits {ended.code}: {ended.said}") and refused
    return row(
        "two trainings on one --out", len(cases), good, "the second exits 2, the first as ever"
    )


def two_on_one_cache(bench: Bench, count: int) -> Row:
    """Two trainings at once on text that nobody has prepared; one is interrupted every other
    time."""
    job, good, cases = jobs_of(bench)["a cache built"], 0, bench.cases(count)
    whole, seconds = _straight_job(bench, job, bench.folder)
    for index in cases:
        case, fresh = f"two on one cache, {index}", _own_cache(bench, job)
        runs = [bench.fresh() for _ in range(2)]
        children = [bench.fork(job.words(bench.folder, run), run, fresh) for run in runs]
        struck = index % 2
        if struck:
            time.sleep(bench.rng.uniform(0.0, seconds))
            os.kill(children[1], signal.SIGINT)
        ends = [bench.wait(child, run) for child, run in zip(children, runs, strict=True)]
        codes = [end.code for end in ends]
        fine = codes[0] == 0 and codes[1] in ((0, 130, -signal.SIGINT) if struck else (0,))
        said = f"exit {codes}: {ends[0].said} {ends[1].said}"
        equal = fine and all(
            job.same(r) == whole for r, c in zip(runs, codes, strict=True) if not c
        )
        good += bench.expect(equal, case, said)
    return row("two trainings on one cache", len(cases), good, "both end as one alone")


def jobs_of(bench: Bench) -> dict[str, Job]:
    folder = bench.fresh()
    folder.mkdir()
    shutil.copy(bench.recipe, folder)
    return {job.name: job for job in jobs(folder)}


def elsewhere(bench: Bench) -> list[Row]:
    """A stopped run that is moved, copied, made read-only, given to another user; and a clock
    that is set back by a day."""
    half = bench.fresh()
    assert bench.train(half, "train.stop_after=3").code == 0

    def copied() -> Path:
        return Path(shutil.copytree(half, bench.fresh(), copy_function=shutil.copy))

    moved = bench.fresh() / "far" / "away"
    shutil.copytree(half, moved)
    rows = [row("run moved", 1, bench.resumes_equal(moved, "moved"), "resumed, bitwise equal")]
    rows.append(
        row("run copied", 1, bench.resumes_equal(copied(), "copied"), "resumed, bitwise equal")
    )
    back = copied()
    for path in back.rglob("*"):
        os.utime(path, (time.time() + 86_400,) * 2)
    outcome = bench.train(back, before=_a_day_ago)
    fine = bench.expect(outcome.code == 0, "clock set back", outcome.said)
    fine = fine and bench.expect(ending(back) == bench.end, "clock set back", "differs")
    rows.append(row("clock set back by a day", 1, fine, "resumed, bitwise equal"))
    for name, mode in (("run read-only", 0o555), ("run of another user", 0o755)):
        rows.append(_without_rights(bench, copied(), name, mode))
    return rows


def _a_day_ago() -> None:
    real, clock = time.time, time.monotonic
    time.time = lambda: real() - 86_400
    assert clock() > 0


def _obey_modes() -> None:
    """Give up CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER: capset(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; and of the upper 32 bits
    assert libc.capget(header, sets) == 0
    for place in range(2):
        sets[place] &= ~0b1110
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def _without_rights(bench: Bench, run: Path, name: str, mode: int) -> Row:
    """Without root's right to pass over modes and owners; nothing of the run may change."""
    if os.getuid() != 0:
        return row(name, 0, 0, "needs root, to give files away")
    for path in (run, *run.rglob("*")):
        owner = 0 if mode == 0o555 else 65_534
        os.chown(path, owner, owner)
        path.chmod(mode if path.is_dir() else mode & 0o666)
    before = _folder(run)
    outcome = bench.train(run, before=_obey_modes)
    clear = outcome.code in (2, 6) and "unexpected" not in outcome.said
    clear = clear and "Traceback" not in outcome.said
    fine = bench.expect(clear, name, f"exits {outcome.code}: {outcome.said}")
    fine = bench.expect(_folder(run) == before, name, "something changed") and fine
    for path in (run, *run.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return row(name, 1, int(fine), "exit 2 or 6, nothing changed")


def kills(bench: Bench, count: int, kinds: Sequence[str]) -> Row:
    """SIGKILL at chosen changes of the disk."""
    places, good, struck = spread(count, len(kinds)), 0, Counter[str]()
    places = [places[index] for index in bench.cases(count)]
    for place in places:
        run = bench.fresh()
        case = f"kill at change {place} ({kinds[place]})"
        outcome = bench.train(run, before=lambda r=run, p=place: Strikes(r, p, kill).install())
        struck[kinds[place]] += 1
        killed = bench.expect(outcome.code == -signal.SIGKILL, case, f"exits {outcome.code}")
        good += killed and bench.resumes_equal(run, case)
    detail = ", ".join(f"{n} {kind}" for kind, n in struck.most_common())
    where = f"{len(set(places))} of {len(kinds)} changes of the disk: {detail}"
    return row("killed at a change of the disk", len(places), good, "resumed, bitwise equal", where)


def random_kills(bench: Bench, count: int, seconds: float) -> Row:
    """SIGKILL at random moments of a run."""
    good, hit, cases = 0, 0, bench.cases(count)
    for index in cases:
        run = bench.fresh()
        child = bench.start(run)
        time.sleep(bench.rng.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        hit += bench.wait(child, run).code == -signal.SIGKILL
        good += bench.resumes_equal(run, f"random kill {index}")
    where = f"within {seconds:.1f} s; {hit} before the run's end"
    return row("killed at a random moment", len(cases), good, "resumed, bitwise equal", where)


def corruptions(bench: Bench, count: int) -> Row:
    """One flipped bit, or a cut, in any file of the newest of two checkpoints."""
    whole = bench.fresh()
    assert bench.train(whole, "train.keep_last=2").code == 0
    (whole / "checkpoints" / LAST / "training").stat()
    files = sorted(p for p in (whole / "checkpoints" / LAST).rglob("*") if p.is_file())
    good, cut, cases = 0, 0, bench.cases(count)
    for index in cases:
        path = files[index % len(files)]
        content, place = path.read_bytes(), bench.rng.randrange(path.stat().st_size)
        cuts = index // len(files) % 2 == 1
        flipped = bytes([content[place] ^ (1 << bench.rng.randrange(8))])
        path.write_bytes(content[:place] + (b"" if cuts else flipped + content[place + 1 :]))
        outcome = bench.train(whole, "train.keep_last=2")
        offered = str(whole / "checkpoints" / EARLIER) in outcome.said and path.name in outcome.said
        good += bench.expect(
            outcome.code == 6 and offered,
            f"{'cut' if cuts else 'flip'} at byte {place} of {path.name}",
            f"exits {outcome.code}: {outcome.said}",
        )
        cut += cuts
        path.write_bytes(content)
    assert bench.train(whole, "train.keep_last=2").code == 0
    detail = f"{len(cases) - cut} flips, {cut} cuts, over {len(files)} files"
    return row("damaged checkpoint", len(cases), good, "exit 6, earlier one offered", detail)


def full_disks(bench: Bench, count: int, kinds: Sequence[str]) -> Row:
    """ENOSPC from a change of the disk on, in the saves after the first checkpoint."""
    takes = [
        i for i, k in enumerate(kinds) if k in ("open", "write", "write half", "mkdir", "fsync")
    ]
    first = next(i for i, kind in enumerate(kinds) if kind == "rename" and i > 40)
    places = [i for i in takes if i > first]
    good = 0
    cases = spread(count, len(places))
    cases = [places[cases[index]] for index in bench.cases(count)]
    for place in cases:
        run = bench.fresh()

        def refuse(run: Path = run, place: int = place) -> None:
            full = Full()
            strikes = Strikes(run, place, full)
            fill(strikes, full)
            strikes.install()

        outcome = bench.train(run, before=refuse)
        good += survives_full(bench, run, outcome, f"disk full at change {place} ({kinds[place]})")
    what = "exit 6, checkpoint intact, resumed, bitwise equal"
    return row("disk full (ENOSPC)", len(cases), good, what, f"{len(places)} places after step 2")


def survives_full(bench: Bench, run: Path, outcome: Outcome, case: str) -> bool:
    clear = outcome.code == 6 and "Traceback" not in outcome.said
    curves_only = outcome.code == 0 and "could not be written" in outcome.said
    noted = bench.expect(clear or curves_only, case, f"exits {outcome.code}: {outcome.said}")
    return noted and bench.resumes_equal(run, case)


def file_limits(bench: Bench) -> Row:
    """RLIMIT_FSIZE below the size of each file of a checkpoint that is longer than a message.

    What the run says goes to a file as well, which has to take a line.
    """
    run = bench.fresh()
    assert bench.train(run, "train.stop_after=2").code == 0
    saved = run / "checkpoints" / "step-00000002"
    sizes = sorted({p.stat().st_size for p in saved.rglob("*") if p.is_file()})
    sizes = [size for size in sizes if size > LINE]
    good = 0
    for size in sizes:
        hit = bench.fresh()
        shutil.copytree(run, hit)
        limit = (size - 1, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        lower = lambda pair=limit: resource.setrlimit(resource.RLIMIT_FSIZE, pair)  # noqa: E731
        outcome = bench.train(hit, before=lower)
        good += survives_full(bench, hit, outcome, f"no file over {size - 1} bytes")
    what = "exit 6, checkpoint intact, resumed, bitwise equal"
    return row("file size limit (RLIMIT_FSIZE)", len(sizes), good, what, "one below each file")


def ends_early(bench: Bench) -> Row:
    """The text ends in the middle of the run."""
    part = "data={use: ends-early, with: {inner: {use: grammar:grammar}}}"
    run = bench.fresh()
    outcome = bench.train(run, part)
    saved = (run / "checkpoints" / "step-00000003").is_dir()
    good = outcome.code == 5 and saved and "ends early" in outcome.said
    bench.expect(good, "text that ends early", f"exits {outcome.code}: {outcome.said}")
    return row("text that ends early", 1, int(good), "exit 5, last whole step saved")


def nan(bench: Bench) -> Row:
    """A network that gives NaN in step 4."""
    run = bench.fresh()
    outcome = bench.train(run, "network.use=nan", "train.validate_every=100")
    intact = (run / "checkpoints" / "step-00000002").is_dir()
    good = outcome.code == 7 and intact and "step 4: the loss is nan" in outcome.said
    bench.expect(good, "NaN", f"exits {outcome.code}: {outcome.said}")
    return row("NaN in a step", 1, int(good), "exit 7, step and rows named, checkpoint intact")


def tracker(bench: Bench) -> Row:
    """A tracker that raises at every record."""
    run = bench.fresh()
    outcome = bench.train(run, "tracker=[{use: raises}]")
    good = outcome.code == 0 and outcome.said.count("failed to") == 1 and ending(run) == bench.end
    bench.expect(good, "tracker", f"exits {outcome.code}: {outcome.said}")
    return row("tracker that raises", 1, int(good), "run goes on, bitwise equal")


def row(fault: str, count: int, good: int, expected: str, detail: str = "") -> Row:
    print(f"{fault}: {good} of {count}", file=sys.stderr, flush=True)
    return {
        "fault": fault,
        "count": count,
        "good": int(good),
        "expected": expected,
        "detail": detail,
    }


def prepare(folder: Path) -> None:
    """Import all that a run and the other commands import and start no thread, so that a fork is
    a fresh process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    (folder / "site" / "faulty-1.dist-info").mkdir(parents=True)
    (folder / "site" / "faulty.py").write_text(textwrap.dedent(PLUGIN))
    info = folder / "site" / "faulty-1.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dlmkit]\nfaulty = faulty\n")
    sys.path.insert(0, str(folder / "site"))
    bench = Bench(folder, random.Random(0))
    bench.recipe.write_text(RECIPE)
    importlib.import_module("dlmkit.cli.app")
    modules = folder / "modules.txt"
    note = lambda: modules.write_text("\n".join(sys.modules))  # noqa: E731
    outcome = bench.train(folder / "prepared", before=lambda: at_the_end(note))
    assert outcome.code == 0, outcome.said
    for name in (*modules.read_text().split(), *COMMANDS):
        with contextlib.suppress(ImportError):  # of one that is no module of its own
            importlib.import_module(name)
    importlib.import_module("dlmkit.training.evaluate")._COUNTED = 10_000  # type: ignore[attr-defined]
    figure = importlib.import_module("matplotlib.figure").Figure
    figure.savefig = lambda self, path, **how: Path(path).write_bytes(b"not drawn")
    gc.freeze()  # children would copy what a collection of the garbage touches
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads would not survive a fork"


def straight(bench: Bench) -> float:
    """The run that all others must equal; the seconds that it took."""
    run, began = bench.fresh(), time.monotonic()
    outcome = bench.train(run)
    assert outcome.code == 0, outcome.said
    bench.end = ending(run)
    return time.monotonic() - began


def joined(files: Sequence[Path]) -> tuple[list[Row], list[str], float]:
    """The rows of parts added up, what failed in them, and their seconds of CPU."""
    parts = [json.loads(path.read_text()) for path in files]
    rows: dict[str, Row] = {}
    for row_ in (row_ for part in parts for row_ in part["rows"]):
        sums = {
            key: rows.get(row_["fault"], {key: 0})[key] + row_[key] for key in ("count", "good")
        }
        rows[row_["fault"]] = {**row_, **sums, "detail": ""}
    failures = [failure for part in parts for failure in part["failures"]]
    return list(rows.values()), failures, sum(part["cpu"] for part in parts)


def report(rows: Sequence[Row], cpu: float) -> str:
    lines = ["| fault | cases | as expected | expected | detail |", "|---|---|---|---|---|"]
    lines += ["| {fault} | {count} | {good} | {expected} | {detail} |".format(**r) for r in rows]
    cases, good = (sum(row[key] for row in rows) for key in ("count", "good"))
    return "\n".join([*lines, f"\n{good} of {cases}; {cpu:.0f} s of CPU"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=600, help="at changes of the disk")
    parser.add_argument("--random", type=int, default=240, help="kills at random moments")
    parser.add_argument("--corruptions", type=int, default=1000, help="damaged checkpoints")
    parser.add_argument("--full", type=int, default=30, help="disks that are full from a change on")
    parser.add_argument("--jobs", type=int, default=40, help="kills of each other command")
    parser.add_argument("--pairs", type=int, default=20, help="of trainings on one folder or cache")
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="every N-th case, from the K-th"
    )
    parser.add_argument("--join", nargs="+", type=Path, metavar="FILE", help="of parts' --json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    if options.join:
        rows, failures, cpu = joined(options.join)
    else:
        with tempfile.TemporaryDirectory(prefix="dlmkit-faults-") as name:
            rows, failures = measured(Path(name), options)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    print(report(rows, cpu))
    for failure in failures:
        print(f"\nnot as expected: {failure}", file=sys.stderr)
    if options.json:
        content = {"rows": rows, "failures": failures, "seed": options.seed, "cpu": cpu}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(bool(failures))


def measured(folder: Path, options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The rows of one part, and what was not as expected."""
    number, parts = map(int, options.part.split("/"))
    prepare(folder)
    rng = random.Random(f"{options.seed} {options.part}")
    bench = Bench(folder, rng, (number - 1, parts))
    seconds = straight(bench)
    kinds = changes_of_the_disk(bench)
    rows = [
        kills(bench, options.kills, kinds),
        random_kills(bench, options.random, seconds),
        corruptions(bench, options.corruptions),
        full_disks(bench, options.full, kinds),
        *killed_jobs(bench, options.jobs),
        two_on_one_run(bench, options.pairs),
        two_on_one_cache(bench, options.pairs),
    ]
    if number == 1:
        single = (file_limits, ends_early, nan, tracker)
        rows += [*(fault(bench) for fault in single), *elsewhere(bench)]
    return rows, bench.failures


if __name__ == "__main__":
    sys.exit(main())
