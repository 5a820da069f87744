"""A pretend accelerator for machines without one: torch device ``pretend``.

Its tensors live in host memory and compute by the CPU's own kernels, so results are the CPU's bit
for bit, and under autocast those of the CPU's kernels behind CUDA's casts. But they say
``pretend:0`` and refuse to meet a CPU tensor in one operation, as a GPU's do: a forgotten
``device=`` fails here as it would there. And what makes a GPU slow is counted exactly: kernel
launches, waits of the host for the device, and copies between the two.

    with pretend.accelerator() as device, pretend.counted(sites=True) as seen:
        model.sample(...)
    print(seen)

Inside :func:`accelerator`, ``torch.accelerator`` finds this device, and so does ``--device auto``.
Outside it the device exists (``torch.device("pretend")``), and nothing chooses it.

It stands on torch's hook for backends written in Python (PrivateUse1, torch 2.10 and later), of
which a process has one. :func:`set_up` registers it, which must come before the first backward pass
of the process: autograd starts its threads, one per device, at that moment. It replaces no function
that CPU tensors use, so nothing else in the process computes otherwise or slower.

As on CUDA: 0-dim CPU tensors may take part in elementwise operations; CPU indices may index; a
boolean index, ``nonzero``, ``item`` and a blocking copy make the host wait; 0-dim CPU tensors in
``torch.where`` are copied; autocast casts by CUDA's lists.

Not shown: kernels themselves (those that one operation launches count as one), streams, graphs,
pinned memory, memory used, time. Casts of weights are not cached under autocast, and random numbers
without a generator are the CPU's. In-place changes of shape (``squeeze_``) are not supported.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_HOST = torch.device("cpu")
_LIBRARIES: list[torch.library.Library] = []  # an implementation lasts as long as its library
_present = False


class MixedDevices(RuntimeError):
    """One operation got tensors of the accelerator and of the CPU."""


class _Backend:
    """``torch.pretend``: what torch asks of a device's module."""

    def is_available(self) -> bool:
        return _present

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return int(_present)

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        """There is one."""

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        yield

    def get_device_name(self, device: Any = None) -> str:
        return "computes on the CPU"

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def manual_seed_all(self, seed: int) -> None:
        """Its numbers come from the CPU's generator."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def synchronize(self, device: Any = None) -> None:
        _count("wait", "synchronize")


def set_up() -> torch.device:
    """The device, registered with torch; once a process.

    Raises RuntimeError if a backward pass has run in this process already, or another backend
    has taken the place.
    """
    device = _registered()
    _try_backward(device)
    return device


@cache
def _try_backward(device: torch.device) -> None:
    try:
        with torch.enable_grad():
            torch.ones(1, device=device, requires_grad=True).sum().backward()
    except RuntimeError as error:
        if "device_ready_queues_" not in str(error):
            raise
        raise RuntimeError(
            "the pretend accelerator must be set up before the first backward pass of a process: "
            "call dlmkit.testing.pretend.set_up() earlier, or in a process of its own"
        ) from None


@cache
def _registered() -> torch.device:
    taken = torch._C._get_privateuse1_backend_name()
    if taken != "privateuseone":
        raise RuntimeError(f"torch has a backend {taken!r} in the place of the pretend accelerator")
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    device = torch.device(NAME, 0)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    # torch.tensor copies below Python's own dispatch, where no fallback is asked, and under a
    # dispatch mode makes the tensor there too
    aten.impl("copy_", _copy_into, "PrivateUse1")
    aten.impl("detach_", lambda tensor: tensor, "PrivateUse1")
    for name in (*_RESIZING, *_WHOLE, *_BELOW):
        for func in _overloads(name):
            aten.impl(func._schema.name + _dotted(func), partial(_make, func), "PrivateUse1")
    aten.impl("scaled_dot_product_attention", _choose_attention, "AutogradPrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in CASTS:
        for func in _overloads(name.removeprefix("aten::")):
            aten.impl(name + _dotted(func), _casting(func), "AutocastPrivateUse1")
    _LIBRARIES.extend((everything, aten))
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    for known in (optimizer._foreach_supported_types, _foreach_utils._foreach_supported_types):
        if Pretend not in known:
            # as CUDA's tensors are: one kernel for many parameters
            known.append(Pretend)  # type: ignore[arg-type]
    _let_synchronize()
    return device


def _let_synchronize() -> None:
    """``torch.accelerator.synchronize``, which asks a backend in Python for what it cannot give.

    torch.utils.benchmark keeps calling it if it was imported while the device was present.
    """
    given = torch.accelerator.synchronize

    def synchronize(device: Any = None, /) -> None:
        if _present or (device is not None and torch.device(device).type == NAME):
            _count("wait", "synchronize")
        elif device is not None:
            given(device)
        elif torch.cuda.is_available():
            torch.cuda.synchronize()

    torch.accelerator.synchronize = synchronize


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """The block runs on a machine whose accelerator is this device. Raises what set_up raises."""
    global _present
    device, before, generator = set_up(), _present, torch.Generator
    apply = torch.nn.Module._apply
    _present, torch.Generator = True, _Generator  # type: ignore[misc]
    torch.nn.Module._apply = _keeping_ties(apply)  # type: ignore[method-assign]
    try:
        yield device
    finally:
        _present, torch.Generator = before, generator  # type: ignore[misc]
        torch.nn.Module._apply = apply  # type: ignore[method-assign]


def _keeping_ties(apply: Callable[..., Any]) -> Callable[..., Any]:
    """``Module._apply``, by which ``module.to`` moves: parameters of several modules stay one.

    To CUDA torch moves what a parameter holds. Between the CPU and a tensor of another class it
    makes a new parameter, one for every module that has it.
    """

    def keep(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        homes: dict[int, list[tuple[torch.nn.Module, str]]] = {}
        for inner in module.modules():
            for name, parameter in inner._parameters.items():
                if parameter is not None:
                    homes.setdefault(id(parameter), []).append((inner, name))
        moved = apply(module, *args, **kwargs)
        for (owner, name), *others in homes.values():
            for other, called in others:
                other._parameters[called] = owner._parameters[name]
        return moved

    return keep


class _Generator(torch.Generator):
    """A generator of any device; one of ours is the CPU's with a mark."""

    ours: set[int] = set()  # noqa: RUF012 - addresses, since torch passes on no Python object

    def __new__(cls, device: Any = "cpu") -> _Generator:
        ours = torch.device(device).type == NAME
        made = super().__new__(cls, "cpu" if ours else device)  # type: ignore[call-arg]
        if ours:
            cls.ours.add(made._cdata)  # type: ignore[attr-defined]
        return made

    def __del__(self) -> None:
        _Generator.ours.discard(self._cdata)  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        ours = self._cdata in _Generator.ours  # type: ignore[attr-defined]
        return torch.device(NAME, 0) if ours else super().device


class Site(NamedTuple):
    """Where something was counted: the innermost line that is not torch's."""

    kind: str
    operation: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        place = "/".join(Path(self.file).parts[-3:])
        return f"{self.kind} {self.operation} {place}:{self.line} {self.function}"


@dataclass
class DeviceCounts:
    """What a block did on the device.

    ``launches`` are operations that launch a kernel in eager torch; views and empty tensors are
    none. ``waits`` are moments at which the host waits for the device: it reads a value, needs a
    size that depends on values, or makes a blocking copy. ``copies`` go to the device or back.
    ``sites`` says where, if asked for; backward passes have the line "backward".
    """

    launches: int = 0
    waits: int = 0
    copies: int = 0
    sites: Counter[Site] | None = None

    def __str__(self) -> str:
        head = f"{self.launches} launches, {self.waits} waits, {self.copies} copies"
        sites = (self.sites or Counter()).most_common()
        return "\n".join([head, *(f"{count:6} {site}" for site, count in sites)])

    def at(self, kind: str) -> Counter[str]:
        """The counted ``kind`` (launch, wait, copy) by file, line, function and operation."""
        counts: Counter[str] = Counter()
        for site, count in (self.sites or {}).items():
            if site.kind == kind:
                counts[str(site).partition(" ")[2]] += count
        return counts


_counting: list[DeviceCounts] = []


@contextmanager
def counted(sites: bool = False) -> Iterator[DeviceCounts]:
    """Counts what the block does, in all threads. ``sites``: where, too, which takes longer."""
    seen = DeviceCounts(sites=Counter() if sites else None)
    _counting.append(seen)
    try:
        yield seen
    finally:
        _counting[:] = [other for other in _counting if other is not seen]


def _count(kind: str, operation: str, times: int = 1) -> None:
    for counts in _counting:
        if kind == "launch":
            counts.launches += times
        elif kind == "wait":
            counts.waits += times
        else:
            counts.copies += times
        if counts.sites is not None and times:
            counts.sites[_site(kind, operation)] += times


_NOT_THE_CALLER = (str(Path(torch.__file__).parent), __file__, "<")
_WRAPPERS = ("/jaxtyping/", "/beartype/", "/functools.py", "/contextlib.py")


def _site(kind: str, operation: str) -> Site:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_NOT_THE_CALLER) and not any(w in file for w in _WRAPPERS):
            return Site(kind, operation, file, frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back  # type: ignore[assignment]
    return Site(kind, operation, "backward", 0, "")


class Pretend(torch.Tensor):
    """A tensor of the device: a shell that says so, around ``on_host`` on the CPU."""

    on_host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Pretend:
        made: Pretend = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        made.on_host = inner
        return made

    def __init__(self, inner: torch.Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretend {self.on_host!r}"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to "
                "copy the tensor to host memory first."
            )
        return self.detach().cpu().numpy(force=True)

    def untyped_storage(self) -> torch.UntypedStorage:
        """That of its numbers, so that a view can be told from a copy."""
        return self.on_host.untyped_storage()

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, Pretend):
            raise MixedDevices("data of the accelerator cannot be set to a CPU tensor")
        torch._C.TensorBase.data.__set__(self, value)  # type: ignore[attr-defined]
        self.on_host = value.on_host

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuilt, (_host(self.detach()), self.requires_grad)


def _rebuilt(inner: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    set_up()
    return Pretend(inner).requires_grad_(requires_grad)


_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.layout})


def _host(value: Any) -> Any:
    """``value``, an operation's argument, for the CPU."""
    return _sorted(value, [], [])


def _sorted(value: Any, ours: list[Pretend], others: list[torch.Tensor]) -> Any:
    """``value``, an operation's argument, for the CPU; its tensors, of which some stand in lists,
    are added to ``ours`` or to ``others``."""
    kind = type(value)
    if kind is Pretend:
        ours.append(value)
        return value.on_host
    if kind in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return kind([_sorted(item, ours, others) for item in value])
    if isinstance(value, torch.Tensor):
        others.append(value)
    elif kind is torch.device and value.type == NAME:
        return _HOST
    return value


_READS = {"aten::_local_scalar_dense", "aten::equal"}


def _named(words: str) -> frozenset[str]:
    return frozenset(f"aten::{word}" for word in words.split())


_SIZES = _named(
    "nonzero masked_select unique_dim unique_consecutive unique_dim_consecutive _unique _unique2 "
    "bincount repeat_interleave multinomial _linalg_check_errors"
)
_INDEXING = _named("index index_put index_put_ _index_put_impl_ _unsafe_index _unsafe_index_put")
_NO_LAUNCH = _READS | _named(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided lift lift_fresh "
    "detach_ resize_ set_ is_pinned is_same_size record_stream _unsafe_view"
)
# what torch, unless told otherwise, makes by resizing an empty tensor, which a shell cannot do
_RESIZING = ("arange", "eye", "linspace", "logspace", "randperm", "hann_window", "hamming_window")
# what torch, unless told otherwise, does by several operations where the CPU and CUDA have one
_WHOLE = ("silu_backward", "mish_backward")
# what torch.tensor calls below Python's own dispatch, where no fallback is asked
_BELOW = ("empty", "empty_strided", "detach", "lift_fresh", "alias", "clone")
# beside those that torch calls pointwise: CUDA takes a 0-dim CPU tensor in them
_SCALARS = {"aten::fill", "aten::fill_", "aten::masked_fill", "aten::masked_fill_", "aten::where"}


@cache
def _takes_scalars(func: Any) -> bool:
    name = func._schema.name
    return torch.Tag.pointwise in func.tags or name in _SCALARS or name.startswith("aten::_foreach")


class _Operation(NamedTuple):
    """What of an operation is known before it runs."""

    name: str
    instead: Callable[..., Any] | None
    launches: bool
    waits: bool
    reads: bool
    indexes: bool
    mutable: bool
    resizes: bool


@cache
def _known(func: Any) -> _Operation:
    name, returns = func._schema.name, func._schema.returns
    views = any(r.alias_info and not r.alias_info.is_write for r in returns)
    return _Operation(
        name=name,
        instead=_INSTEAD.get(name),
        launches=not views and name not in _NO_LAUNCH,
        waits=name in _READS or name in _SIZES,
        reads=name in _READS,
        indexes=name in _INDEXING,
        mutable=func._schema.is_mutable,
        resizes=torch.Tag.inplace_view in func.tags,
    )


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation that has something to do with the device: by the CPU, counted."""
    known = _known(func)
    if known.instead is not None:
        return known.instead(*args, **kwargs)
    ours: list[Pretend] = []
    others: list[torch.Tensor] = []
    given = [_sorted(value, ours, others) for value in args]
    options = {k: _sorted(v, ours, others) for k, v in kwargs.items() if k != "pin_memory"}
    wanted = kwargs.get("device")
    made_here = bool(ours) if wanted is None else wanted.type == NAME
    if ours and known.resizes:
        raise NotImplementedError(f"the pretend accelerator does not support {known.name}")
    if ours and others:
        _check_devices(func, known.name, args, ours, others)
    generator = kwargs.get("generator")
    if generator is not None and made_here and generator._cdata not in _Generator.ours:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    if _counting:
        if known.launches:
            _count("launch", known.name)
        if known.waits or (known.indexes and _has_mask(args)):
            _count("wait", known.name)
    out = func(*given, **options)
    if known.reads or not made_here:
        return out
    same = {id(tensor.on_host): tensor for tensor in ours} if known.mutable else {}
    return _wrapped(out, same)


def _wrapped(value: Any, same: dict[int, Pretend]) -> Any:
    """``value`` on the device; what was changed in place is what it was."""
    if isinstance(value, torch.Tensor):
        known = same.get(id(value))
        if known is not None and known.shape != value.shape:
            raise NotImplementedError("the pretend accelerator does not resize tensors (out=)")
        return Pretend(value) if known is None else known
    if isinstance(value, (list, tuple)):
        items = [_wrapped(item, same) for item in value]
        return type(value)(items) if type(value) in (list, tuple) else type(value)(*items)
    return value


def _has_mask(args: Sequence[Any]) -> bool:
    """Whether an indexing operation has a boolean index, whose true values must be counted."""
    masks = (torch.bool, torch.uint8)
    return any(isinstance(index, torch.Tensor) and index.dtype in masks for index in args[1])


def _check_devices(
    func: Any,
    name: str,
    args: Sequence[Any],
    ours: Sequence[Pretend],
    others: Sequence[torch.Tensor],
) -> None:
    """Raise MixedDevices unless CUDA, too, takes ``others``, the CPU's tensors among its own."""
    strange = [*others]
    if name in _INDEXING and isinstance(args[0], Pretend):
        moved = [i for i in args[1] if isinstance(i, torch.Tensor) and not isinstance(i, Pretend)]
        _count("copy", name, len(moved))
        _count("wait", name, len(moved))
        indices = {id(index) for index in moved}
        strange = [t for t in strange if id(t) not in indices and t.dim() > 0]
    elif _takes_scalars(func):
        if name == "aten::where":  # CUDA's copies them, and waits
            _count("copy", name, len(strange))
            _count("wait", name, len(strange))
        strange = [tensor for tensor in strange if tensor.dim() > 0]
    if strange:
        places = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in (*ours, *others))
        raise MixedDevices(
            f"Expected all tensors to be on the same device, but {name} got {places}; "
            "make tensors on the device of those they will meet"
        )


def _copied(source: Any, **options: Any) -> Any:
    """A copy, from a device to another or on one."""
    device = options.get("device")
    to_us = isinstance(source, Pretend) if device is None else device.type == NAME
    _count_copy("aten::_to_copy", source, to_us, bool(options.get("non_blocking")))
    rest = {k: _host(v) for k, v in options.items() if k not in ("non_blocking", "pin_memory")}
    out = torch.ops.aten._to_copy.default(_host(source), **rest)
    return Pretend(out) if to_us else out


def _copy_into(target: Any, source: Any, non_blocking: bool = False) -> Any:
    _count_copy("aten::copy_", source, isinstance(target, Pretend), non_blocking)
    _host(target).copy_(_host(source))
    return target


def _count_copy(name: str, source: Any, to_us: bool, non_blocking: bool) -> None:
    if isinstance(source, Pretend) == to_us:
        _count("launch", name)
        return
    _count("copy", name)
    if not non_blocking:
        _count("wait", name)


# Attention: torch has a place for a backend's own fused kernel. Ours is the CPU's, where the CPU
# would choose it, so that numbers are the CPU's and one launch stands for it, as on a GPU.
_CPU_FUSED = 1  # torch.nn.attention.SDPBackend.FLASH_ATTENTION


def _choose_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``scaled_dot_product_attention`` by the fused kernel, or else by many operations."""
    given = (*_host((query, key, value, attn_mask)), dropout_p, is_causal)
    options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
    if torch.ops.aten._fused_sdp_choice(*given, **options) != _CPU_FUSED:
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, **options
        )[0]
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(attn_mask, dtype=query.dtype)
        bias.masked_fill_(attn_mask.logical_not(), float("-inf"))
    return torch.ops.aten._scaled_dot_product_fused_attention_overrideable(
        query, key, value, bias, dropout_p, is_causal, scale=scale
    )[0]


def _attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    dropout: float = 0.0,
    causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    _count("launch", "attention")
    tensors = [t for t in (query, key, value, bias) if t is not None]
    if not all(isinstance(t, Pretend) for t in tensors):
        raise MixedDevices("Expected all tensors to be on the same device in attention")
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *_host((query, key, value)), dropout, causal, attn_mask=_host(bias), scale=scale
    )
    lengths = Pretend(torch.zeros(0, dtype=torch.int64))
    seed = Pretend(torch.zeros((), dtype=torch.int64))
    rest = (lengths, lengths, query.shape[2], key.shape[2], seed, seed, Pretend(lse.new_empty(0)))
    return Pretend(out), Pretend(lse), *rest


def _attention_backward(
    grad: Any, query: Any, key: Any, value: Any, bias: Any, wanted: Any, out: Any, lse: Any,
    *rest: Any, scale: float | None = None,
) -> Any:  # fmt: skip
    _count("launch", "attention backward")
    *_, dropout, causal, _, _ = rest  # lengths before them, seed and offset behind
    gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *_host((grad, query, key, value, out, lse)),
        dropout,
        causal,
        attn_mask=_host(bias),
        scale=scale,
    )
    return *(Pretend(gradient) for gradient in gradients), None


_INSTEAD: dict[str, Callable[..., Any]] = {
    "aten::_to_copy": _copied,
    "aten::copy_": _copy_into,
    "aten::_copy_from": lambda source, target, *rest: _copy_into(target, source, *rest),
    "aten::_copy_from_and_resize": lambda source, target: _copy_into(target, source),
    # of a new tensor, while a mode watches: there is nothing to cut
    "aten::detach_": lambda tensor: tensor,
    "aten::scaled_dot_product_attention": _choose_attention,
    "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
    "aten::_scaled_dot_product_fused_attention_overrideable_backward": _attention_backward,
}

# What CUDA's autocast does (aten/src/ATen/autocast_mode.h): operations in the lower precision, in
# float32, and in the widest of their arguments' types.
_LOWER = _named(
    "addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d einsum linalg_multi_dot "
    "linalg_vecdot linear matmul mm mv prelu scaled_dot_product_attention"
)
_SINGLE = _named(
    "acos asin binary_cross_entropy_with_logits cdist cosh cosine_embedding_loss cosine_similarity "
    "cumprod cumsum dist erfinv exp expm1 group_norm hinge_embedding_loss huber_loss kl_div "
    "l1_loss layer_norm linalg_vector_norm log log10 log1p log2 log_softmax logsumexp mse_loss "
    "nll_loss norm pow prod reciprocal renorm rsqrt sinh smooth_l1_loss soft_margin_loss softmax "
    "softplus sum tan"
)
_WIDEST = _named("addcdiv addcmul atan2 bilinear cat cross dot index_put scatter_add stack vdot")


def _widest(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    wide = any(t.dtype == torch.float32 for t in tensors)
    return torch.float32 if wide else torch.get_autocast_dtype(NAME)


CASTS = {
    **dict.fromkeys(_LOWER, lambda tensors: torch.get_autocast_dtype(NAME)),
    **dict.fromkeys(_SINGLE, lambda tensors: torch.float32),
    **dict.fromkeys(_WIDEST, _widest),
}
"""What autocast makes of an operation's tensors; read whenever one runs."""


def _overloads(name: str) -> Iterator[Any]:
    """The forms of an operation that write to no argument."""
    packet = getattr(torch.ops.aten, name)
    for overload in packet.overloads():
        func = getattr(packet, overload)
        writes = any(a.alias_info and a.alias_info.is_write for a in func._schema.arguments)
        if not writes and "dimname" not in overload:
            yield func


def _dotted(func: Any) -> str:
    name = func._schema.overload_name
    return f".{name}" if name else ""


def _make(func: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(func, args, kwargs)


def _casting(func: Any) -> Callable[..., Any]:
    autocast = torch._C.DispatchKeySet(
        torch._C.DispatchKey.AutocastPrivateUse1  # type: ignore[attr-defined]
    )

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            if rule := CASTS.get(func._schema.name):
                ours: list[Pretend] = []
                _sorted((*args, *kwargs.values()), ours, [])
                dtype = rule([tensor for tensor in ours if _narrow(tensor)])
                args = tuple(_cast(value, dtype) for value in args)
                kwargs = {key: _cast(value, dtype) for key, value in kwargs.items()}
            return func(*args, **kwargs)

    return run


def _narrow(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float64


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Pretend) and _narrow(value):
        return value.to(dtype)
    if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
        return type(value)(_cast(item, dtype) for item in value)
    return value
