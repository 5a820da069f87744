"""Micro cases: the vocabulary step, a denoiser step, samplers and statistics.

    python -m pytest benchmarks/test_micro.py --benchmark-json FILE

V 8,192, d 128, L 64, batch 8, a network 512 wide with 6 blocks; sizes of figures are those of the
scripts beside this file. The kernel of the vocabulary step is in each case's `extra_info`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic.fields import FieldInfo
from sampling_step import NETWORKS, a_model

from dlmkit import Component
from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.kernels import vocabulary
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.parts import SamplingParts
from dlmkit.training.memory import keep_freed

pytest.importorskip("pytest_benchmark", reason="pip install 'dlmkit[test]'")

BATCH = 8
SIZE = NETWORKS["medium"]
REGISTRY = Registry.load(third_party=False)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def names(kind: str) -> list[str]:
    """Every part of `samplers` of one kind that needs no options."""
    parts = [e.component for e in REGISTRY.components(kind) if e.plugin == "samplers"]
    return [p.name for p in parts if not any(f.is_required() for f in options(p))]


def options(part: Component) -> list[FieldInfo]:
    return list(part.config.model_fields.values())


@dataclass(frozen=True)
class Subject:
    """A model in the middle of a run: its parts, inputs and two predictions."""

    parts: SamplingParts
    x: torch.Tensor
    levels: tuple[Level, Level]
    conditioning: Conditioning

    @staticmethod
    def of(way: Inference) -> Subject:
        keep_freed()
        parts = a_model(SIZE, way, DEVICE).prepared()
        shape = (BATCH, SIZE["length"])
        nothing = torch.zeros(shape, dtype=torch.bool, device=DEVICE)
        x = torch.randn(*shape, SIZE["dim"], device=DEVICE)
        ones = torch.ones(BATCH, device=DEVICE)
        return Subject(
            parts,
            x,
            (Level(ones, 3.0 * ones), Level(ones, 2.5 * ones)),
            Conditioning.of(torch.zeros_like(x), nothing, ~nothing),
        )

    def predict(self, x: torch.Tensor) -> Any:
        denoise = self.parts.denoise
        return denoise(x, self.levels[0], denoise.start(x), self.conditioning)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.of(Inference())


def timed(benchmark: Any, call: Callable[[], Any], **facts: str) -> None:
    """Time ``call`` without gradients, to the end of what it starts on a GPU."""
    benchmark.extra_info.update(facts, device=str(DEVICE), threads=torch.get_num_threads())

    @torch.no_grad()
    def run() -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(run, warmup_rounds=1, rounds=5)


@pytest.mark.parametrize("form", ["kernel", "online", "plain"])
def test_vocabulary_step(benchmark: Any, subject: Subject, form: str) -> None:
    space = subject.parts.space
    tables = space.tables()
    assert tables is not None
    query = torch.randn(BATCH * SIZE["length"], SIZE["dim"], device=DEVICE) / SIZE["dim"] ** 0.5
    call = vocabulary.choose(tables) if form == "kernel" else vocabulary.FORMS[form]
    timed(benchmark, lambda: call(query, tables), kernel=space.kernel if form == "kernel" else form)


@pytest.mark.parametrize("way", ["fp32", "int8"])
def test_denoiser_step(benchmark: Any, way: str) -> None:
    if way == "int8" and DEVICE.type != "cpu":
        pytest.skip("int8 layers are for the CPU")
    subject = Subject.of(Inference(int8=way == "int8"))
    timed(benchmark, lambda: subject.predict(subject.x), kernel=subject.parts.space.kernel)


@pytest.mark.parametrize("name", names("sampler"))
@torch.no_grad()
def test_sampler(benchmark: Any, subject: Subject, name: str) -> None:
    """What a solver adds to its evaluations, which cost nothing here."""
    context = BuildContext(
        length=SIZE["length"], vocab_size=SIZE["vocab"], parts={"space": subject.parts.space}
    )
    sampler = REGISTRY.build("sampler", Part(use=name), context)
    prediction, state = subject.predict(subject.x), sampler.init(subject.x)
    noise = Noise.keyed(0, torch.arange(BATCH, device=DEVICE), 1)
    step = Step.between(subject.x, *subject.levels, noise, None)
    timed(benchmark, lambda: sampler.step(lambda *_: prediction, subject.x, step, state))


@pytest.mark.parametrize("name", names("statistic"))
@torch.no_grad()
def test_statistic(benchmark: Any, subject: Subject, name: str) -> None:
    context = BuildContext(length=SIZE["length"], vocab_size=SIZE["vocab"])
    statistic = REGISTRY.build("statistic", Part(use=name), context)
    now, before = subject.predict(subject.x), subject.predict(1.01 * subject.x)
    yes = torch.ones(BATCH, dtype=torch.bool, device=DEVICE)
    generated = yes[:, None].expand(now.lse.shape)
    timed(benchmark, lambda: statistic(subject.parts.space, now, before, yes, generated))
