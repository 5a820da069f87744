"""Checks of embedding spaces and of the corruption they own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.schedule import Level
from dlmkit.core.start import TextStart
from dlmkit.noise import Noise
from dlmkit.testing.compare import Exercise, agree, differs, finite, pure, require
from dlmkit.testing.outcome import NotApplicable
from dlmkit.testing.parts import LENGTH
from dlmkit.testing.subject import Subject, oracle_queries
from dlmkit.testing.suite import check

KIND = "space"
ROWS = 6


def random_ids(space: EmbeddingSpace, rows: int = ROWS) -> Tensor:
    """Rows of random tokens."""
    u = Noise.keyed(0, torch.arange(rows), 7).uniform(0, (LENGTH,))
    return (u * space.vocab_size).long()


def random_query(space: EmbeddingSpace) -> Tensor:
    """Queries of standard normal channels."""
    noise = Noise.keyed(0, torch.arange(ROWS), 8)
    return noise.normal(0, (LENGTH, space.query_dim))


def levels(count: int = ROWS, low: float = 0.05, high: float = 20.0) -> Level:
    """Variance-preserving levels from the noise-to-signal ratio ``low`` to ``high``."""
    s = torch.logspace(math.log10(low), math.log10(high), count)
    alpha = torch.rsqrt(1.0 + s * s)
    return Level(alpha, s * alpha)


def clean(x: Tensor) -> Level:
    """The level without noise for every row of ``x``."""
    return Level(torch.ones(len(x)), torch.zeros(len(x)))


def noise_of(rows: int, step: int = 0) -> Noise:
    """Noise keyed by row."""
    return Noise.keyed(5, torch.arange(rows), step)


def _exercise(subject: Subject) -> Exercise:
    space = subject.built

    @torch.no_grad()
    def call(ids: Tensor, query: Tensor, level: Level, noise: Noise) -> tuple[Tensor, ...]:
        x0 = space.embed(ids)
        x = space.corruption.corrupt(x0, level, noise)
        prior = space.corruption.prior(x0, level, noise)
        read = space.corruption.input(x, level)
        mean, lse = space.read(query)
        return x0, x, prior, read, mean, lse, space.decode(x, query)

    return Exercise(call, (random_ids(space), random_query(space), levels(), noise_of(ROWS)), 1e-5)


pure(KIND, _exercise)


@check(KIND)
@torch.no_grad()
def expects_its_embeddings(subject: Subject) -> None:
    """expect of a one-hot distribution is the token's embedding"""
    space = subject.built
    ids = random_ids(space)
    certain = torch.nn.functional.one_hot(ids, space.vocab_size).float()
    agree(space.expect(certain), space.embed(ids), "expect(one_hot(ids)) and embed(ids)", 1e-5)


@check(KIND)
@torch.no_grad()
def reads_as_it_defines(subject: Subject) -> None:
    """read(query) is the mean under softmax(logits) and the logits' log-sum-exp"""
    space, query = subject.built, random_query(subject.built)
    logits = space.logits(query)
    require(logits.shape[-1] == space.vocab_size, f"there are {logits.shape[-1]} logits, not V")
    agree(
        space.read(query),
        (space.expect(logits.softmax(dim=-1)), logits.logsumexp(dim=-1)),
        "read(query) and its definition",
        1e-4,
    )


@check(KIND)
@torch.no_grad()
def tied_as_claimed(subject: Subject) -> None:
    """A space that says it is tied has logits q . e_v, so that q . x0 is their mean"""
    space = subject.built
    query = random_query(space)
    require(
        space.tied == ("tied" in subject.component.provides | subject.config.capabilities()),
        f"the space's tied is {space.tied}, and what it provides says otherwise",
    )
    if not space.tied:
        raise NotApplicable("not tied")
    logits, (mean, _) = space.logits(query), space.read(query)
    agree(
        (query * mean).sum(dim=-1),
        (logits.softmax(dim=-1) * logits).sum(dim=-1),
        "q . x0 and the mean of the logits",
        1e-4,
    )


@check(KIND)
@torch.no_grad()
def norms_as_claimed(subject: Subject) -> None:
    """A space that provides unit-norm has embeddings of norm sqrt(D)"""
    if "unit-norm" not in subject.component.provides:
        raise NotApplicable("makes no claim about norms")
    space = subject.built
    norm = space.embed(torch.arange(space.vocab_size)[None]).norm(dim=-1)
    agree(norm, torch.full_like(norm, math.sqrt(space.dim)), "norms and sqrt(D)", 1e-4)


@check(KIND)
def gaussian_as_claimed(subject: Subject) -> None:
    """A space that provides gaussian is noised by a GaussianCorruption, and no other is"""
    claim = "gaussian" in subject.component.provides
    corruption = subject.built.corruption
    require(
        isinstance(corruption, GaussianCorruption) == claim,
        f"its corruption is {type(corruption).__name__}",
    )


@check(KIND)
def gradient_reaches_the_table(subject: Subject) -> None:
    """Every parameter gets a finite gradient, and not only zeros

    From embeddings, from logits, or from what the network reads of given noisy tokens.
    """
    space = subject.build()
    if not list(space.parameters()):
        raise NotApplicable("no parameters")
    ids = random_ids(space)
    x0 = space.embed(ids)
    read = space.corruption.input(x0.detach(), levels())
    loss = space.logits(random_query(space)).softmax(-1).square().sum()
    for value in (x0, read):
        loss = loss + (value * torch.linspace(-1.0, 1.0, value.numel()).view_as(value)).sum()
    loss.backward()
    for name, parameter in space.named_parameters():
        require(parameter.grad is not None, f"{name} gets no gradient")
        finite(parameter.grad, f"the gradient of {name}")
        require(parameter.grad.abs().sum() > 0, f"the gradient of {name} is zero")


@check(KIND)
def starts_from_the_text_alone(subject: Subject) -> None:
    """A space that starts from the text gets equal weights for equal text, whatever is drawn"""
    if not isinstance(subject.built, TextStart):
        raise NotApplicable("it does not start from the text")
    started = []
    for seed in (1, 2):
        space, data = subject.build(), subject.parts.part("data")
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        space.start_from(data)
        require(torch.equal(torch.get_rng_state(), state), "it drew from a global generator")
        started.append(list(space.state_dict().values()))
        finite(started[-1], "the weights that it starts with")
    agree(started[1], started[0], "the weights of two starts from one text")


@check(KIND)
@torch.no_grad()
def clean_level_is_clean(subject: Subject) -> None:
    """At alpha 1 and sigma 0 nothing is corrupted"""
    space = subject.built
    x0 = space.embed(random_ids(space))
    x = space.corruption.corrupt(x0, clean(x0), noise_of(ROWS))
    agree(x, x0, "x0 and its corruption at the clean level", 1e-6)


@check(KIND)
@torch.no_grad()
def corrupts_towards_its_prior(subject: Subject) -> None:
    """At the last level corrupted tokens are distributed as the prior"""
    space, rows = subject.built, 512
    x0 = space.embed(random_ids(space, rows))
    last = Level(torch.full((rows,), 1e-4), torch.ones(rows))
    x = space.corruption.corrupt(x0, last, noise_of(rows)).double().flatten()
    prior = space.corruption.prior(x0, last, noise_of(rows, 1)).double().flatten()
    require(x.shape == prior.shape, "the prior has another shape than corrupted tokens")
    # a prior of one state has no spread of its own
    scale = torch.maximum(prior.std(), x0.double().std())
    shift = ((x.mean() - prior.mean()) / scale).abs().item()
    require(shift < 0.1, f"their means differ by {shift:.2f} standard deviations")
    spread = (x.std() / scale - (prior.std() / scale)).abs().item()
    require(spread < 0.1, f"their standard deviations differ by {spread:.0%}")


@check(KIND)
@torch.no_grad()
def corruption_grows(subject: Subject) -> None:
    """The further the level, the further corrupted tokens are from clean ones"""
    space, rows = subject.built, 128
    x0 = space.embed(random_ids(space, rows))
    far = []
    for s in (0.05, 0.5, 5.0):
        alpha = torch.full((rows,), 1.0 / math.sqrt(1.0 + s * s))
        x = space.corruption.corrupt(x0, Level(alpha, s * alpha), noise_of(rows))
        far.append((x - x0).double().square().mean().item())
    require(far[0] < far[1] < far[2], f"mean squares at ratios 0.05, 0.5, 5: {far}")


@check(KIND)
@torch.no_grad()
def input_is_what_networks_read(subject: Subject) -> None:
    """The network's input is finite and of D channels at every level, clean included"""
    space = subject.built
    x0 = space.embed(random_ids(space))
    for level in (levels(low=1e-4, high=1e4), clean(x0)):
        x = space.corruption.corrupt(x0, level, noise_of(ROWS))
        read = space.corruption.input(x, level)
        shape = (ROWS, LENGTH, space.dim)
        require(read.shape == shape, f"its shape is {tuple(read.shape)}, not {shape}")
        require(read.is_floating_point(), f"its dtype is {read.dtype}")
        finite(read, "the input")


@check(KIND)
@torch.no_grad()
def positions_embed_alone(subject: Subject) -> None:
    """A token's embedding does not depend on the other tokens of its row"""
    space = subject.built
    ids = random_ids(space)
    changed = torch.cat((ids[:, :1], (ids[:, 1:] + 1) % space.vocab_size), dim=1)
    first = space.embed(ids)[:, 0]
    agree(space.embed(changed)[:, 0], first, "an embedding among other neighbours", 1e-6)
    require(differs(space.embed(changed), space.embed(ids)), "all tokens have one embedding")


@check(KIND)
@torch.no_grad()
def decodes_what_is_certain(subject: Subject) -> None:
    """A row that ends clean, predicted with certainty, decodes to its tokens"""
    space = subject.built
    ids = random_ids(space)
    decoded = space.decode(space.embed(ids), oracle_queries(space)[ids])
    require(decoded.dtype == torch.int64, f"decode gives {decoded.dtype}, not ids")
    agree(decoded, ids, "the tokens and what was decoded")
