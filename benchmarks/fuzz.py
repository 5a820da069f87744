"""Damaged recipes and damaged files of every format, read as dlmkit reads them, and counted.

    nice python benchmarks/fuzz.py --json fuzz.json               # 100,000 recipes, ten minutes
    python benchmarks/fuzz.py --recipes 300 --files 40            # per format; seconds

Recipes are shipped ones with lines, tokens and bytes changed. Files are those of a tiny run made
here: bytes are flipped, cut, doubled and pasted, and JSON is changed value by value and sealed
again, as somebody would who means it. Each is read by the function that the commands read it by,
and used as they use it. Counted are cases that end in anything but a result or an error with a
documented code ("exit 1"), that take more than ten seconds of CPU or 3 GiB more ("stuck"), and that
run something: an audit hook watches for programs, connections, files written elsewhere, unpickling,
and the import of a module that the damage names. Exits 1 if any of these is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import hashlib
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import RECIPE

from dlmkit import documents

SECONDS, BYTES = 10.0, 3 << 30
TIMERS = ((signal.ITIMER_PROF, 1), (signal.ITIMER_REAL, 12))
"""Of processor time that many seconds are too long, and of the clock's, which others slow down."""
RUNS = (
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.",
    "socket.connect", "pickle.", "ctypes.dlopen", "webbrowser.", "os.startfile",
)  # fmt: skip
SENTINEL = "planted"
"""A module on the path that nothing imports, unless what a file says is obeyed."""

WORDS = [
    ".inf", "-.inf", ".nan", "1e5", "1e999", "1e12", "-1", "0", "0x" + "f" * 5000, "9" * 5000,
    "null", "~", "true", "[]", "{}", "[[[[[[", "{a: {a: {a: ", "'", '"', "&a", "*a", "<<: *a", "!!",
    f"!!python/object/apply:{SENTINEL}.run []", f"!!python/name:{SENTINEL}.run", f"{SENTINEL}:run",
    f"!!python/object/new:os.system ['{SENTINEL}']", "---", "...", "%YAML 1.1", "%TAG ! x", "\0",
    "\x1b]52;c;YQ==\a", "\ufeff", "\u2028", "\ud7ff", "~nosuchuser/x.yaml", "/dev/zero", "/etc",
    "/dev/stdin", "../" * 40 + "etc/passwd", "a" * 5000, "a" * 5000 + ".yaml", "r.yaml", "extends",
    "use", "with", "train", "metric", "guidance", "exit", "statistic", "data", "tracker", "betas",
    "cdcd:mix", "samplers:euler", "text:files", "text:hf", "hf:hf-encoder", "markov:markov",
    "architecture", "model_type", "gpt2", "is_decoder: true", "batch_size", "length", "threads",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 2**31, 2**32, 2**63, 10**15, -(10**18), 0.5, -0.0, 1e308, math.inf,
    math.nan, "", "x", "a" * 5000, "\x1b[2J", "../../../etc/passwd", "/dev/zero", "\0",
    "~nosuchuser",
    f"{SENTINEL}:run", f"!!python/name:{SENTINEL}.run", [], {}, [[]], {"a": 1}, ["x"], [1, 2, 3],
    "DEEP", "LONG", "HALF",
]  # fmt: skip


class Watch:
    """Notes, while ``on``, what runs or writes beyond reading; installed for good."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.on = str(scratch), False
        self.seen: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event.startswith(RUNS):
            self.seen.append(f"{event} {arguments[:2]!r:.80}")
        elif event == "import" and str(arguments[0]).partition(".")[0] == SENTINEL:
            self.seen.append(f"import {arguments[0]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and not path.startswith((self.scratch, "/dev/null")):
                self.seen.append(f"open {path}")


@dataclass
class Counts:
    """Of one format: how its cases ended."""

    name: str
    cases: int = 0
    read: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    unexpected: int = 0
    stuck: int = 0
    executed: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.unexpected + self.stuck + self.executed


class Stuck(BaseException):
    """A case took too long."""


def _late(*_: object) -> None:
    raise Stuck


def attempt(counts: Counts, watch: Watch, read: Callable[[], object], what: str) -> None:
    """One case, as the program's boundary would end it."""
    from dlmkit.errors import DlmkitError

    counts.cases += 1
    watch.seen, watch.on = [], True
    for timer, seconds in TIMERS:
        signal.setitimer(timer, seconds * SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read()
        counts.read += 1
    except DlmkitError as error:
        counts.codes[error.exit_code] += 1
    except KeyboardInterrupt:
        counts.cases -= 1
        raise
    except (Stuck, MemoryError) as error:
        counts.stuck += 1
        counts.examples.append(f"{type(error).__name__}: {what}")
    except BaseException as error:  # a PanicException is no Exception
        counts.unexpected += 1
        words = " ".join(f"{type(error).__name__}: {error}".split())
        counts.examples.append(f"{words[:200]} {_place(error)}: {what}")
    finally:
        for timer, _ in TIMERS:
            signal.setitimer(timer, 0)
        watch.on = False
    if watch.seen:
        counts.executed += 1
        counts.examples.append(f"{watch.seen[0]}: {what}")


def _place(error: BaseException) -> str:
    """The last line of ours that an error passed."""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "dlmkit" in name:
            place = f"({Path(name).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def damaged(content: bytes, rng: random.Random) -> bytes:
    """``content`` with a few bytes flipped, cut out, doubled or pasted in."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        a, b = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
        b = min(b, a + rng.choice((1, 8, 200, len(content))))
        way = rng.randrange(5)
        if way == 0 and content:
            at = rng.randrange(len(content))
            content = (
                content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
            )
        elif way == 1:
            content = content[:a] + content[b:]
        elif way == 2:
            content = content[:b] + content[a:b] + content[b:]
        elif way == 3:
            pasted = rng.choice(WORDS).encode("utf-8", "surrogatepass")
            content = content[:a] + pasted + content[b if rng.random() < 0.5 else a :]
        else:
            content = content[: rng.randrange(len(content) + 1)]
        if not content:
            return content
    return content


def rewritten(text: str, lines: Sequence[str], rng: random.Random) -> str:
    """A recipe with lines of others, lines moved, and tokens exchanged for bad ones."""
    rows = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at, way = rng.randrange(len(rows) + 1), rng.randrange(6)
        if way == 0:
            rows.insert(at, rng.choice(lines))
        elif way == 1 and rows:
            rows.pop(at % len(rows))
        elif way == 2 and rows:
            rows.insert(at, rows[rng.randrange(len(rows))])
        elif way == 3 and rows:
            rows[at % len(rows)] = rng.choice(("  ", "    ")) + rows[at % len(rows)]
        elif rows:
            row = rows[at % len(rows)]
            key, colon, value = row.partition(":")
            swapped = rng.choice(WORDS)
            if way == 4:
                rows[at % len(rows)] = f"{key}{colon or ':'} {swapped}"
            else:
                rows[at % len(rows)] = f"{' ' * (len(row) - len(row.lstrip()))}{swapped}:{value}"
    return "\n".join(rows) + "\n"


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with a few of its parts exchanged, dropped, renamed or moved."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        way = rng.randrange(6)
        if way <= 2:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif way == 3:
            del holder[key]
        elif way == 4:
            other, at = rng.choice(places)
            with contextlib.suppress(LookupError):
                holder[key] = copy.deepcopy(other[at])
        elif isinstance(holder, dict):
            holder[rng.choice(("x", "", "../x", "a" * 300, "\x1b[2J", "4294967296"))] = holder.pop(
                key
            )
        else:
            holder += holder[:3]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def written(value: Any) -> bytes:
    """JSON, with what json.dumps cannot write put in by hand."""
    text = json.dumps(value, indent=1)
    text = text.replace('"DEEP"', "[" * 2000 + "]" * 2000).replace('"LONG"', "9" * 5000)
    return text.replace('"HALF"', '"\\ud800"').encode()


def plain(value: Any) -> bytes:
    return written(value)


def sealed(value: Any) -> bytes:
    """With the sha256 that dlmkit's documents carry of themselves."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if key != documents.SEAL}
        with contextlib.suppress(ValueError, TypeError, UnicodeError, RecursionError):
            value = documents.sealed(json.loads(written(value)))
    return written(value)


def manifest(value: Any) -> bytes:
    """As a manifest is written: sorted, and sealed."""
    if not isinstance(value, dict):
        return written(value)
    body = {key: item for key, item in value.items() if key != documents.SEAL}
    return (json.dumps(documents.sealed(body), sort_keys=True, indent=1) + "\n").encode()


def traced(content: bytes, rng: random.Random) -> bytes:
    """A trace whose header or tensors are changed, sealed again."""
    import torch
    from safetensors.torch import load, save

    from dlmkit.exits.trace_file import _KEY

    size = int.from_bytes(content[:8], "little")
    head = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_KEY])
    tensors, way = load(content), rng.randrange(4)
    name = rng.choice(sorted(tensors))
    if way == 0:
        other = rng.choice((torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64))
        tensors[name] = tensors[name].to(other)
    elif way == 1:
        tensors[name] = rng.choice((tensors[name][:-1], tensors[name][None], torch.zeros(0)))
    elif way == 2:
        tensors[rng.choice(("x", "positions.x", "norms.", "statistics.sigma"))] = tensors.pop(name)
    else:
        head = changed(head, rng)
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        head = json.loads(written(head))
        head.pop(documents.SEAL, None)
        head = documents.sealed(head, tensors)
    return bytes(save(tensors, {_KEY: written(head).decode()}))


def reheaded(header: Any, rng: random.Random) -> bytes:
    """The header of a file of safetensors changed, also inside of what it says in JSON."""
    about = header.get("__metadata__", {})
    nested = {key: json.loads(text) for key, text in about.items() if text.startswith("{")}
    header = changed({**header, "__metadata__": about | nested} if about else header, rng)
    about = header.get("__metadata__")
    for key in nested if isinstance(about, dict) else ():
        if not isinstance(about.get(key, ""), str):
            about[key] = written(about[key]).decode()
    return written(header)


@dataclass(frozen=True)
class Format:
    """A kind of file: a good one, how it is read and used, and how changed JSON is written."""

    name: str
    path: Path
    read: Callable[[], object]
    write: Callable[..., bytes] | None = None
    by_line: bool = False
    by_header: bool = False

    def fuzz(self, counts: Counts, watch: Watch, rng: random.Random, cases: int) -> None:
        good = self.path.read_bytes()
        self.read()  # it can be read: what is refused is the damage
        try:
            for index in range(cases):
                content = self._bad(good, rng, index)
                self.path.write_bytes(content)
                attempt(counts, watch, self.read, f"{self.name} {index}: {content[:3000]!r}")
        finally:
            self.path.write_bytes(good)

    def _bad(self, good: bytes, rng: random.Random, index: int) -> bytes:
        if self.write is traced:
            return traced(good, rng)
        if self.by_header and index % 2 == 0:
            size = int.from_bytes(good[:8], "little")
            header = reheaded(json.loads(good[8 : 8 + size]), rng)
            return len(header).to_bytes(8, "little") + header + good[8 + size :]
        if self.write is None or index % 4 == 0:
            return damaged(good, rng)
        if self.by_line:
            lines = good.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = self.write(changed(json.loads(lines[at]), rng)).replace(b"\n", b" ")
            return b"\n".join(lines) + b"\n"
        return self.write(changed(json.loads(good), rng))


def make(folder: Path) -> None:
    """A tiny run, its export, a trace, a certificate and a record, by the program itself."""
    from dlmkit.cli.app import main
    from dlmkit.exits.certificate import Certificate
    from dlmkit.exits.trace_file import load_trace

    (folder / "tiny.yaml").write_text(RECIPE)
    run, hub = folder / "run", folder / "hub"
    for words in (
        ["train", str(folder / "tiny.yaml"), "--out", str(run)],
        ["export", str(run), str(hub)],
        ["trace", str(run), "-n", "40", "--steps", "6", "--positions", "entropy", "--out",
         str(folder / "small.trace")],
        ["eval", str(run), "-n", "4", "--steps", "4", "--metric", "grammar", "--out",
         str(folder / "record.json")],
    ):  # fmt: skip
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            code = main(words)
        assert code == 0, f"{words}: {code}: {said.getvalue()}"
    rule = {"use": "samplers:fixed", "with": {"step": 3}}
    conditions = load_trace(folder / "small.trace").about["conditions"]
    Certificate(rule, 3.0, {"epsilon": 0.05}, conditions, {}).save(folder / "exit.json")


def formats(folder: Path) -> list[Format]:
    """Every kind of file that dlmkit reads, in ``folder``, which :func:`make` has filled."""
    makers = (_of_models, _of_released, _of_documents, _of_texts)
    return [format_ for maker in makers for format_ in maker(folder)]


def _of_models(folder: Path) -> Iterator[Format]:
    import torch.distributed.checkpoint as dcp

    from dlmkit.core.tokenizer import Tokenizer
    from dlmkit.model import load_model
    from dlmkit.model.card import _records
    from dlmkit.model.folder import check_folder
    from dlmkit.recipe.assemble import assemble
    from dlmkit.recipe.load import load_recipe
    from dlmkit.registry.lookup import Registry
    from dlmkit.released.stored import in_file
    from dlmkit.training import environment, origin
    from dlmkit.training.checkpoint import MANIFEST, find, saved_step
    from dlmkit.training.folder import RunFolder, read_environment
    from dlmkit.training.loop import Learner
    from dlmkit.training.parallel import Single
    from dlmkit.training.state import (
        EMA,
        MODEL,
        OPTIMISER,
        SHARDS,
        STATE,
        exported,
        load_weights,
        restore,
        sharded,
        tensors_of,
    )  # fmt: skip
    from dlmkit.training.tracking import Progress

    registry = Registry.load()
    run, hub = folder / "run", folder / "hub"
    last = run / "checkpoints" / "step-00000006"
    assembly = assemble(load_recipe(str(folder / "tiny.yaml"), (), registry).config, registry)
    world = Single(assembly.context.device)
    learner = Learner.begin(assembly.objective, assembly.config.train, world)
    now = environment.environment(registry, 0, assembly.network, world)

    def resumed(checkpoint: Path = last) -> None:
        Progress.of(restore(learner, checkpoint, world))

    def remembered() -> None:
        origin.advice(hub, (hub / "recipe.yaml").read_text(), registry)
        if before := read_environment(hub):
            environment.changed(before, now)

    def spoken() -> None:
        tokenizer = Tokenizer.load(hub)
        tokenizer.decode(range(min(tokenizer.vocab_size, 64)))
        tokenizer.pieces()
        tokenizer.encode(" ".join(tokenizer.pieces()[3:5]))

    def logged() -> None:
        RunFolder(folder / "again").rewind(4, (), run)
        _records(logged_by)

    def resealed() -> None:
        listed = json.loads((hub_copy / MANIFEST).read_text())
        content = (hub_copy / "config.json").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        listed["files"]["config.json"] = {"size": len(content), "sha256": digest}
        (hub_copy / MANIFEST).write_bytes(manifest(listed))
        exported(hub_copy)
        check_folder(hub_copy, "somebody/model")

    hub_copy = folder / "told"
    shutil.copytree(hub, hub_copy)
    logged_by = load_model(run)
    again = lambda: (find(last), saved_step(last))  # noqa: E731
    yield Format("manifest.json", last / MANIFEST, again, manifest)
    yield Format("state.json", last / STATE, resumed, plain)
    yield Format("optimiser.safetensors", last / OPTIMISER, resumed, by_header=True)
    parts = folder / "parts"  # as two processes write it, but of one
    shutil.copytree(last, parts, ignore=shutil.ignore_patterns(MODEL, EMA, Path(OPTIMISER).name))
    resumed()
    tensors = sharded(tensors_of(learner))
    ranks = {name: 1 + number % 2 for number, name in enumerate(tensors)}
    writer = dcp.HuggingFaceStorageWriter(str(parts / SHARDS), ranks, save_distributed=True)
    with warnings.catch_warnings(action="ignore"):  # of being alone
        dcp.save(tensors, storage_writer=writer, no_dist=True)
    part = min((parts / SHARDS).iterdir())
    yield Format("part of a checkpoint", part, lambda: resumed(parts), by_header=True)
    weights = hub / "model.safetensors"
    load = lambda: load_weights(assembly.objective, in_file(weights))  # noqa: E731
    yield Format("model.safetensors", weights, load, by_header=True)
    yield Format("a model's manifest.json", hub / MANIFEST, lambda: load_model(hub), manifest)
    yield Format("config.json", hub_copy / "config.json", resealed, plain)
    yield Format("environment.json", hub / "environment.json", remembered, plain)
    yield Format("tokenizer.json", hub / "tokenizer.json", spoken, plain)
    yield Format("tokenizer_config.json", hub / "tokenizer_config.json", spoken, plain)
    yield Format("metrics.jsonl", run / "metrics.jsonl", logged, plain, by_line=True)


def _of_released(folder: Path) -> Iterator[Format]:
    """Of models that others released, small ones from the tests."""
    from safetensors.torch import load_file, save_file

    from dlmkit.registry.lookup import Registry
    from dlmkit.released.opening import open_released
    from dlmkit.released.verify import verify

    registry = Registry.load()
    golden = Path(__file__).parent.parent / "tests" / "golden"
    whole, parts, pickled = (folder / n for n in ("released", "released-parts", "released-pickled"))
    decoded = folder / "released-decoded"
    for source, target in (("llada", whole), ("llada", parts), ("llada", decoded)):
        shutil.copytree(golden / source, target)
    shutil.copytree(golden / "ssd-lm", pickled)
    (whole / "decoding.json").unlink()  # slow, and not what is damaged there
    runs = json.loads((decoded / "decoding.json").read_text())
    (decoded / "decoding.json").write_text(json.dumps({"runs": runs["runs"][:1]}))
    weights = load_file(parts / "model.safetensors")
    (parts / "model.safetensors").unlink()
    names, where = sorted(weights), dict[str, str]()
    for number, held in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in held}, parts / file, {"format": "pt"})
        where |= dict.fromkeys(held, file)
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))

    checked = lambda: verify(whole, registry)  # noqa: E731
    again = lambda: verify(decoded, registry)  # noqa: E731
    united = lambda: open_released(parts, registry)  # noqa: E731
    yield Format("a released model's config.json", whole / "config.json", checked, plain)
    yield Format("meta.json of cases", whole / "meta.json", checked, plain)
    yield Format("cases.safetensors", whole / "cases.safetensors", checked, by_header=True)
    yield Format("decoding.json", decoded / "decoding.json", again, plain)
    yield Format("index of shards", index, united, plain)
    yield Format("shard", parts / file, united, by_header=True)
    pickle = pickled / "embed_sum_layer.pt"
    yield Format("pickle", pickle, lambda: open_released(pickled, registry, pickled=True))


def _of_documents(folder: Path) -> Iterator[Format]:
    from dlmkit.bench import compare as bench
    from dlmkit.bench import document
    from dlmkit.cli import records
    from dlmkit.evaluation.conditions import certified, require
    from dlmkit.evaluation.record import RECORD, Record, compare
    from dlmkit.exits import replay
    from dlmkit.exits.certificate import Certificate
    from dlmkit.exits.trace_file import load_trace
    from dlmkit.model import load_model
    from dlmkit.recipe.assemble import assemble_sampling
    from dlmkit.recipe.load import load_recipe
    from dlmkit_acceptance import document as acceptance
    from dlmkit_hub import evidence
    from dlmkit_viewers.film import film

    model, whole = load_model(folder / "run"), Record.load(folder / "record.json")
    trace, certificate, record = (folder / n for n in ("small.trace", "exit.json", "record.json"))

    def replayed() -> None:
        read = load_trace(trace)
        film(read, int(read.row[0]), "entropy")
        replay.full(read)

    def applied() -> None:
        read = Certificate.load(certificate)
        load_recipe(str(folder / "tiny.yaml"), [certified(read, ())])
        require(read, model, model.requests(1), 6)

    def compared() -> None:
        read = Record.load(record)
        records.table(read)
        records.changes(compare(whole, read))
        evidence._record(RECORD.read(record, evidence._Evaluation))

    def benched() -> None:
        read = document.read(bench_file)
        bench.compare(read, read).failures(0.05)

    def accepted() -> None:
        read = acceptance.load(accept_file)
        acceptance.markdown(read)
        acceptance.shortfalls(read)
        evidence._acceptance(read, {})
        evidence._samples(read)

    def fitted() -> None:
        assembled = assemble_sampling(model.assembly, config)
        assembled.grid.points(model.assembly.schedule, 8)

    entry = document.entry("a", "euler | b", {}, [0.1, 0.2], {"evaluations_mean": 8.0,
                                                              "quality": {"nll": 2.0}})  # fmt: skip
    bench_file, accept_file, grid = (folder / n for n in ("b.json", "accept.json", "grid.json"))
    document.write(document.document({}, {"seed": 0}, [entry, entry], {}), bench_file)
    shipped = Path(__file__).parent.parent / "plugins/dlmkit_ddlm/models/ddlm-mini"
    shutil.copy(shipped / "acceptance.json", accept_file)
    grid.write_text(json.dumps({"sigma": [0.5, 1.0, 20.0], "entropy": [0.1, 0.5, 2.0]}))
    part = f"grid={{use: fitted, with: {{path: {json.dumps(str(grid))}}}}}"
    config = load_recipe(str(folder / "tiny.yaml"), [part]).config
    yield Format("trace", trace, replayed, by_header=True)
    yield Format("trace, sealed again", trace, replayed, traced)
    yield Format("certificate", certificate, applied, sealed)
    yield Format("evaluation record", record, compared, sealed)
    yield Format("bench document", bench_file, benched, plain)
    yield Format("acceptance document", accept_file, accepted, sealed)
    yield Format("fitted grid", grid, fitted, plain)


def _of_texts(folder: Path) -> Iterator[Format]:
    from dlmkit.evaluation.texts import read_texts
    from dlmkit.model import load_model
    from dlmkit.recipe.load import load_recipe
    from dlmkit_glue import data
    from dlmkit_glue.tasks import TASKS
    from dlmkit_hf import pretrained
    from dlmkit_text import prepared
    from dlmkit_text.shards import JsonShards
    from dlmkit_text.sources import text_files

    listed, lines, prompts = (folder / n for n in ("texts.json", "texts.jsonl", "prompts.txt"))
    rows, book, shard = (folder / n for n in ("rte/train.jsonl", "own.txt", "x.json.gz"))
    encoder, meta = folder / "encoder.json", folder / "meta.json"
    (folder / "rte").mkdir()
    listed.write_text(json.dumps(["the dog", {"text": "a cat"}]))
    lines.write_text('{"text": "the dog"}\n{"text": "a cat"}\n')
    row = {"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}
    rows.write_text((json.dumps(row) + "\n") * 3)
    shutil.copy(rows, rows.with_name("validation.jsonl"))
    book.write_text("In the beginning.\n\nAnd the earth.\n")
    with gzip.open(shard, "wt") as file:
        file.write('{"text": "the dog"}\n' * 5)
    encoder.write_text(json.dumps({"model_type": "bert", "hidden_size": 8, "vocab_size": 9}))
    meta.write_text(json.dumps({"x": 1}))
    model = load_model(folder / "run")
    words = " ".join(model.assembly.tokenizer.pieces()[3:5])
    prompts.write_text(f"{words}\n{words} ___ {words}\n")

    def asked() -> None:
        from dlmkit.cli.options import lines_of

        model.requests(1, lines=lines_of(prompts))

    recipe = folder / "run" / "checkpoints" / "step-00000006" / "recipe.yaml"
    task = TASKS["rte"]
    yield Format("texts.json", listed, lambda: read_texts(listed), plain)
    yield Format("texts.jsonl", lines, lambda: read_texts(lines), plain, by_line=True)
    yield Format("prompts", prompts, asked)
    yield Format("GLUE rows", rows, lambda: data.load(task, folder), plain, by_line=True)
    yield Format("text file", book, lambda: text_files([book], "paragraph"))
    yield Format("shard, gzip", shard, lambda: list(JsonShards([shard], "x").read(0)))
    yield Format("encoder.json", encoder, lambda: pretrained._described(
        pretrained._read(encoder), "encoder.json"), plain)  # fmt: skip
    yield Format("prepared corpus's meta.json", meta, lambda: prepared.whole(folder), plain)
    yield Format("recipe of a run", recipe, lambda: load_recipe(str(recipe)))


def recipes(counts: Counts, watch: Watch, rng: random.Random, folder: Path, cases: int) -> None:
    """Recipes of ours, rewritten, through the whole check."""
    from dlmkit.recipe.load import load_recipe
    from dlmkit.recipe.shelf import shipped
    from dlmkit.registry.lookup import Registry

    registry = Registry.load(third_party=False)
    texts = [recipe.path.read_text() for recipe in shipped(registry)]
    texts += [load_recipe(name, (), registry).text() for name in ("ddlm_grammar", "ddlm_small")]
    lines = [line for text in texts for line in text.splitlines()]
    path = folder / "r.yaml"
    for index in range(cases):
        text = rewritten(rng.choice(texts), lines, rng)
        content = text.encode("utf-8", "surrogatepass")
        if index % 3 == 0:
            content = damaged(content, rng)
        path.write_bytes(content)
        overrides = [
            f"{rng.choice(('seed', 'length', 'metric.0', 'train.betas'))}={rng.choice(WORDS)}"
        ]
        used = overrides if index % 5 == 0 else []
        attempt(
            counts,
            watch,
            lambda given=used: load_recipe(str(path), given, registry),  # type: ignore[misc]
            f"recipe {index} {used}: {content[:3000]!r}",
        )


def table(rows: Sequence[Counts]) -> str:
    """As Markdown."""
    head = ("format", "cases", "read all the same", "refused", "exit 1", "stuck", "executed")
    lines = [head, ("---", *["--:"] * (len(head) - 1))]
    for row in rows:
        codes = ", ".join(f"{n:,} with {code}" for code, n in sorted(row.codes.items())) or "0"
        ends = map(str, (row.unexpected, row.stuck, row.executed))
        lines.append((row.name, f"{row.cases:,}", f"{row.read:,}", codes, *ends))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=4_000, help="cases of each format")
    parser.add_argument("--only", action="append", help="a format's name; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write counts and examples")
    options = parser.parse_args()
    began, counts = time.process_time(), list[Counts]()
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _late)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="dlmkit-fuzz-") as name:
        folder = Path(name)
        os.environ["DLMKIT_CACHE"] = str(folder / "cache")
        (folder / "site").mkdir()
        (folder / "site" / f"{SENTINEL}.py").write_text("def run(*_):\n    return 0\n")
        sys.path.insert(0, str(folder / "site"))
        os.chdir(folder)
        make(folder)
        known = formats(folder)
        watch = Watch(folder)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, resource.RLIM_INFINITY))
        with contextlib.suppress(KeyboardInterrupt):  # what is counted until then is told
            if options.recipes and not options.only:
                counts.append(Counts("recipe"))
                recipes(counts[-1], watch, random.Random(options.seed), folder, options.recipes)
            for form in known if options.files else []:
                if options.only and form.name not in options.only:
                    continue
                counts.append(Counts(form.name))
                rng = random.Random(f"{options.seed} {form.name}")
                form.fuzz(counts[-1], watch, rng, options.files)
                print(f"{form.name}: {counts[-1].bad} bad of {counts[-1].cases}", file=sys.stderr)
    print(table(counts))
    print(f"\n{time.process_time() - began:.0f} s of CPU, seed {options.seed}")
    for row in counts:
        for example in row.examples[:5]:
            print(f"\nnot as expected: {example[:600]}", file=sys.stderr)
    if options.json:
        content = [{**vars(row), "codes": dict(row.codes)} for row in counts]
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(row.bad for row in counts))


if __name__ == "__main__":
    sys.exit(main())
