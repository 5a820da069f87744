"""A model made without memory for its weights, and filled from files, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from dlmkit import shown
from dlmkit.core.finite import refuse_non_finite
from dlmkit.core.importer import Conversion, Place, Slot, Split
from dlmkit.errors import CheckpointError
from dlmkit.released.stored import Folder

LISTED = 8
"""Names of tensors that a message lists, at most."""


@dataclass(frozen=True)
class Owner:
    """Every place in a module that holds one parameter or buffer."""

    tensor: Tensor
    homes: tuple[tuple[nn.Module, str], ...]

    def put(self, value: Tensor) -> None:
        kept = value
        if isinstance(self.tensor, nn.Parameter):
            kept = nn.Parameter(value, requires_grad=self.tensor.requires_grad)
        for module, name in self.homes:
            setattr(module, name, kept)


Named = Callable[[str], str | None]


def _same(name: str) -> str:
    return name


def owners(module: nn.Module, named_as: Named = _same) -> dict[str, Owner]:
    """The parameters and persistent buffers of ``module`` by their first name, as ``named_as``
    calls them; without those that it calls None."""
    homes: dict[int, list[tuple[nn.Module, str]]] = {}
    for inner in module.modules():
        for name, tensor in [*inner._parameters.items(), *inner._buffers.items()]:
            if tensor is not None:
                homes.setdefault(id(tensor), []).append((inner, name))
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        named.setdefault(id(tensor), (name, tensor))
    by_name = {
        named_as(name): Owner(tensor, tuple(homes[key])) for key, (name, tensor) in named.items()
    }
    return {name: owner for name, owner in by_name.items() if name is not None}


@torch.no_grad()
def fill(
    module: nn.Module,
    conversion: Conversion,
    folder: Folder,
    device: torch.device,
    dtype: torch.dtype | None = None,
    named_as: Named = _same,
) -> None:
    """Give every tensor of ``module`` what ``folder`` holds for it, on ``device``, with a bar.

    Tensors stay of the dtype that they are stored in; ``dtype`` converts those that are floating
    point. Raises CheckpointError, before any is read, unless every tensor of the folder is used,
    every one of the module filled, and all shapes fit; and for values that are not finite. With
    ``named_as`` tensors of the module go by other names, or, as None, stay as they are.
    """
    places = owners(module, named_as)
    check(places, conversion, folder)
    sizes = {n: s.shape.numel() * s.dtype.itemsize for n, s in folder.tensors.items()}
    stacks: dict[str, Tensor] = {}
    columns = TextColumn("loading"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
    with shown.bar(*columns) as bar:
        task = bar.add_task("", total=sum(sizes.values()))
        for name, tensor in folder.read():
            for place, part in _parts(conversion.tensors.get(name), tensor):
                refuse_non_finite([(name, part)], str(folder.tensors[name].path))
                part = part.to(device, dtype if part.is_floating_point() else None)
                if isinstance(place, Slot):
                    stack = stacks.get(place.name)
                    if stack is None:
                        shape = places[place.name].tensor.shape
                        stack = stacks[place.name] = part.new_empty(shape)
                        places[place.name].put(stack)
                    stack[place.at] = part
                else:
                    places[place].put(part.contiguous())
            bar.advance(task, sizes[name])
    module.to(device)


def refill(
    module: nn.Module,
    folder: Folder,
    device: torch.device,
    dtype: torch.dtype | None = None,
    named_as: Named = _same,
) -> None:
    """:func:`fill` from tensors of the module's own names, as an exported model has them."""
    conversion = Conversion({}, {name: name for name in owners(module, named_as)}, 0, None)
    fill(module, conversion, folder, device, dtype, named_as=named_as)


def check(places: Mapping[str, Owner], conversion: Conversion, folder: Folder) -> None:
    """Raise CheckpointError, naming tensors, unless ``folder`` fills ``places`` exactly."""
    known = {*conversion.tensors, *conversion.copies, *conversion.unused, *conversion.computed}
    problems = [
        ("unexpected", sorted(set(folder.tensors) - known)),
        ("missing", sorted(set(conversion.tensors) - set(folder.tensors))),
    ]
    wrong, filled, twice = [], dict[Place, str](), []
    for name, target in conversion.tensors.items():
        stored = folder.tensors.get(name)
        if stored is None:
            continue
        for place, part in _parts(target, torch.empty(stored.shape, device="meta")):
            if place in filled:
                twice.append(f"{name} and {filled[place]}")
            filled[place] = name
            expected = _shape(places, place)
            if expected is not None and part.shape != expected:
                wrong.append(f"{name} {_size(stored.shape)}, expected {_size(expected)}")
    problems.append(("of another shape", wrong))
    problems.append(("for one place", twice))
    if not any(names for _, names in problems):
        problems.append(("filled by none: the importer's", _unfilled(places, filled)))
    for name, other in conversion.copies.items():
        if name in folder.tensors and not _equal(folder, name, other):
            problems.append(("duplicated and different", [f"{name} and {other}"]))
    others = [name for name, value in conversion.computed.items() if _other(folder, name, value)]
    problems.append(("other than what this model computes", others))
    words = [f"{len(names)} {what} ({_few(names)})" for what, names in problems if names]
    if words:
        path = next(iter(folder.tensors.values())).path
        raise CheckpointError(
            f"{path.parent}: its tensors are not those of this model: {'; '.join(words)}"
        )


def _parts(target: Place | Split | None, tensor: Tensor) -> list[tuple[Place, Tensor]]:
    if target is None:
        return []
    if not isinstance(target, Split):
        return [(target, tensor)]
    return list(zip(target.places, target.parts(tensor), strict=True))


def _shape(places: Mapping[str, Owner], place: Place) -> torch.Size | None:
    if isinstance(place, Slot):
        return places[place.name].tensor.shape[1:] if place.name in places else None
    return places[place].tensor.shape if place in places else None


def _unfilled(wanted: Mapping[str, Owner], filled: Mapping[Place, str]) -> list[str]:
    """Tensors of the model that nothing goes to, and places that it does not have."""
    indices: dict[str, set[int]] = {}
    for place in filled:
        if isinstance(place, Slot):
            indices.setdefault(place.name, set()).add(place.at)
    whole = {place for place in filled if isinstance(place, str)}
    whole |= {
        n for n, there in indices.items() if n in wanted and len(there) == len(wanted[n].tensor)
    }
    return sorted(set(wanted) ^ whole)


def _equal(folder: Folder, name: str, other: str) -> bool:
    first, second = folder.tensors[name], folder.tensors.get(other)
    if second is None or (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    return torch.equal(folder.tensor(first), folder.tensor(second))


def _other(folder: Folder, name: str, value: Tensor) -> bool:
    """Whether the folder has ``name`` with another value, beyond what half precision rounds."""
    if name not in folder.tensors:
        return False
    stored = folder.tensor(folder.tensors[name])
    return stored.shape != value.shape or not torch.allclose(
        stored.double(), value.double(), rtol=1e-2, atol=0.0
    )


def _size(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _few(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
