"""The closed envelope of a recipe. The options of each part are checked by its own config."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dlmkit.plugin import Config, Part, Size, part_of

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainConfig(Config):
    """How long, how fast and how safely to train."""

    steps: PositiveInt = Field(description="optimiser steps of the whole run")
    stop_after: PositiveInt | None = Field(
        None, description="end early, with a checkpoint, after this step"
    )
    start_from: str | None = Field(
        None,
        description="the model whose weights training starts from, strictly: a folder, a shipped "
        "model, or a name on the hub (owner/name[@revision]); default: fresh weights, or what the "
        "parts bring themselves",
    )
    batch_size: Size = Field(32, description="rows of the global batch of one step")
    micro_batch_size: Size | None = Field(
        None, description="rows of one forward pass of one process; default: all of its rows"
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="under torchrun: whole copies of the model, or FSDP2's shards of it"
    )
    learning_rate: PositiveFloat = Field(1e-3, description="peak rate of AdamW")
    warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up")
    decay: Literal["cosine", "constant"] = Field("cosine", description="the rate after warm-up")
    final_rate: float = Field(0.0, ge=0.0, le=1.0, description="end of cosine, as a share of peak")
    betas: tuple[Decay, Decay] = Field((0.9, 0.99), description="AdamW's moment decays")
    weight_decay: float = Field(0.01, ge=0.0, description="on matrices only")
    clip: PositiveFloat | None = Field(1.0, description="largest gradient norm")
    ema: float = Field(0.999, ge=0.0, lt=1.0, description="decay of the weights' moving average")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="dtype of the network's passes")
    activation_checkpointing: bool = Field(False, description="trade compute for memory")
    compile: bool = Field(False, description="torch.compile the network's blocks")
    threads: PositiveInt | None = Field(
        None, le=1024, description="CPU threads; default: torch's own"
    )
    checkpoint_every: PositiveInt = Field(500, description="steps between checkpoints")
    checkpoint_async: bool = Field(
        False,
        description="fsdp: train on while a checkpoint is written, from a copy of a process's part "
        "in the host's memory",
    )
    keep_last: PositiveInt = Field(2, description="checkpoints to keep, beside the best")
    validate_every: PositiveInt = Field(500, description="steps between validations")
    validation_rows: Size = Field(256, description="held-out rows per noise level")
    sample_every: PositiveInt = Field(500, description="steps between samples")
    log_every: PositiveInt = Field(10, description="steps between log lines")


EXACT = ("none", "exact")
"""The values of ``sample.cache`` that change no text."""


class SampleConfig(Config):
    """How this model is sampled unless the command says otherwise."""

    count: Size = Field(4, description="texts to draw while training")
    measured: Size = Field(
        64, description="texts that the recipe's metrics measure when training ends"
    )
    steps: Size = Field(64, description="points of the grid: evaluations of a 1-NFE sampler")
    batch_size: Size = Field(32, description="rows sampled side by side")
    stop: list[str] = Field(
        default_factory=list,
        description="tokens that end a text, as end-of-text does: what follows is left out",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="the network and the vocabulary step; fp32: as the weights are"
    )
    cache: Literal["none", "exact", "prefix", "dual", "delayed"] = Field(
        "none",
        description="keys and values that are kept. exact: of finished blocks, where attention is "
        "by blocks; texts are those without, to rounding. The others change texts: prefix, of what "
        "stands before the window (Fast-dLLM); dual, of what stands behind it too; delayed, of "
        "tokens since the second step that they are written (dKV-Cache)",
    )
    refresh: Size = Field(
        8, description="of delayed: steps from one computation of whole rows to the next"
    )
    compile: bool = Field(False, description="torch.compile the network's blocks")
    cuda_graphs: bool = Field(False, description="record a step's kernels once per batch shape")
    int8: bool = Field(False, description="the blocks' linear layers in int8, on the CPU")

    @property
    def kept(self) -> str:
        """The cache in words, for records: which, and whether it changes texts."""
        refresh = f" every {self.refresh} steps" if self.cache == "delayed" else ""
        return self.cache if self.cache in EXACT else f"{self.cache}{refresh}, approximate"

    @model_validator(mode="after")
    def _int8(self) -> Self:
        if self.cache != "none" and (self.precision != "fp32" or self.cuda_graphs):
            raise ValueError(
                f"cache: {self.cache} goes with precision: fp32 and without cuda_graphs"
            )
        if self.int8 and (self.precision != "fp32" or self.compile):
            raise ValueError("int8 goes with precision: fp32 and without compile")
        return self


TOKENS = 2**32
"""Positions that one step of training, or one turn of sampling, can ask for."""


class RecipeConfig(Config):
    """A resolved recipe: one part of each kind, and how to train and sample."""

    summary: str = Field("", description="one line for `dlmkit recipe ls`")
    seed: int = Field(0, ge=0, lt=2**63, description="the seed of everything")
    length: Size = Field(64, description="L, positions of a row")
    attention: Literal["auto", "sdpa", "xformers", "flex"] = Field(
        "auto", description="attention backend; a named one that cannot run is an error"
    )
    data: part_of("data")
    schedule: part_of("schedule")
    space: part_of("space")
    network: part_of("network")
    masking: part_of("masking")
    objective: part_of("objective")
    sampler: part_of("sampler") = Part(use="samplers:euler")
    grid: part_of("grid") = Part(use="samplers:warped")
    exit: part_of("exit") | None = None
    freeze: part_of("exit") | None = None
    guidance: list[part_of("guidance")] = Field(default_factory=list)
    statistic: list[part_of("statistic")] = Field(default_factory=list)
    metric: list[part_of("metric")] = Field(default_factory=list)
    tracker: list[part_of("tracker")] = Field(default_factory=list)
    train: TrainConfig
    sample: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for where, rows in (("train", self.train.batch_size), ("sample", self.sample.batch_size)):
            if rows * self.length > TOKENS:
                raise ValueError(
                    f"{where}.batch_size x length = {rows:,} x {self.length:,} = "
                    f"{rows * self.length:,} positions at once; the most is {TOKENS:,}"
                )
        return self
