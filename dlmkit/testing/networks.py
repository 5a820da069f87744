"""Checks of score networks, in evaluation mode unless said otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.testing.compare import Exercise, agree, copied, finite, pure, require
from dlmkit.testing.outcome import CheckFailed, NotApplicable
from dlmkit.testing.parts import LENGTH
from dlmkit.testing.spaces import levels
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "network"
ROWS = 5

Inputs = tuple[Tensor, Level, Conditioning, Tensor]


def attend() -> Tensor:
    """The last k positions of row k are padding, but for a few."""
    return torch.arange(LENGTH) < (LENGTH - torch.arange(ROWS) % 4)[:, None]


def inputs(dim: int, low: float = 0.05, high: float = 20.0) -> Inputs:
    """(x, level, conditioning, previous) of random rows, the first position given."""
    noise = Noise.keyed(1, torch.arange(ROWS), 0)
    x, clean, previous = (noise.normal(k, (LENGTH, dim)) for k in range(3))
    given = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    given[:, 0] = True
    return x, levels(ROWS, low, high), Conditioning.of(clean, given, attend()), previous


def stirred(subject: Subject) -> ScoreNetwork:
    """The network with all parameters random: those that start at zero would hide a lot."""
    network: ScoreNetwork = subject.build().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def _exercise(subject: Subject) -> Exercise:
    network = stirred(subject)

    @torch.no_grad()
    def call(*values: Any) -> Tensor:
        query: Tensor = network(*values)
        return query

    return Exercise(call, inputs(subject.space.dim), 1e-4)


pure(KIND, _exercise)


@check(KIND)
@torch.no_grad()
def answers_in_queries(subject: Subject) -> None:
    """It puts out one vector of the space's query_dim a position, finite at every level"""
    network = stirred(subject)
    query = network(*inputs(subject.space.dim, 1e-4, 1e4))
    shape = (ROWS, LENGTH, subject.space.query_dim)
    require(query.shape == shape, f"its shape is {tuple(query.shape)}, not {shape}")
    finite(query, "the output")


@check(KIND)
@torch.no_grad()
def padding_is_not_read(subject: Subject) -> None:
    """What stands at padding changes nothing elsewhere"""
    network = stirred(subject)
    x, level, conditioning, previous = inputs(subject.space.dim)
    pad = ~conditioning.attend[..., None]
    first = network(x, level, conditioning, previous)
    noisy = tuple(torch.where(pad, 9.0, value) for value in (x, conditioning.clean, previous))
    other = network(noisy[0], level, replace(conditioning, clean=noisy[1]), noisy[2])
    agree(other[~pad[..., 0]], first[~pad[..., 0]], "outputs with other padding", 1e-4)


@check(KIND)
@torch.no_grad()
def padding_can_be_cut(subject: Subject) -> None:
    """A row gives the same with its padding and without"""
    network, size = stirred(subject), LENGTH - 3
    # the last three positions of this row are padding
    x, level, conditioning, previous = rows.take(inputs(subject.space.dim), torch.tensor([3]))
    whole = network(x, level, conditioning, previous)
    x, conditioning, previous = rows.mapped((x, conditioning, previous), lambda v: v[:, :size])
    cut = network(x, level, conditioning, previous)
    agree(cut, whole[:, :size], "outputs with and without padding", 1e-4)


@check(KIND)
def gradients_reach_all(subject: Subject) -> None:
    """Every parameter gets a finite gradient, and from random weights not only zeros"""
    network = stirred(subject).train()
    if not list(network.parameters()):
        raise NotApplicable("no parameters")
    query = network(*inputs(subject.space.dim))
    weight = torch.linspace(-1.0, 1.0, query.numel()).view_as(query)
    (query * weight).sum().backward()
    for name, parameter in network.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            raise CheckFailed(f"{name} gets no gradient")
        finite(gradient, f"the gradient of {name}")
        require(gradient.abs().sum() > 0, f"the gradient of {name} is zero")


@check(KIND)
def shard_units_run(subject: Subject) -> None:
    """Its shard units are called, in the order it lists them, so that hooks of wrappers fire"""
    network, called = stirred(subject), []
    units = list(network.shard_units())
    for index, unit in enumerate(units):
        unit.register_forward_pre_hook(lambda module, args, index=index: called.append(index))
    with torch.no_grad():
        network(*inputs(subject.space.dim))
    order = list(dict.fromkeys(called))
    require(order == list(range(len(units))), f"of {len(units)} units, {order} ran in this order")


@check(KIND)
def shard_units_are_its_own(subject: Subject) -> None:
    """Its shard units are different submodules that share no parameter"""
    network = subject.build()
    modules, units = set(network.modules()), list(network.shard_units())
    require(set(units) <= modules, "a shard unit is no submodule of the network")
    owned = [id(parameter) for unit in units for parameter in unit.parameters()]
    require(len(owned) == len(set(owned)), "two shard units share a parameter")
    total = sum(parameter.numel() for parameter in network.parameters())
    require(owned or not total, "its shard units hold no parameter")


@check(KIND)
@torch.no_grad()
def weights_travel(subject: Subject) -> None:
    """A network built with another seed that loads the state_dict gives the same output"""
    first, again = stirred(subject), subject.build(seed=11).eval()
    again.load_state_dict(first.state_dict())
    use = inputs(subject.space.dim)
    agree(again(*use), first(*copied(use)), "outputs of one state_dict", 1e-6)
