"""Writing plain values as YAML that :mod:`dlmkit.recipe.yaml` reads back identically."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dlmkit.recipe.yaml import scalar

_PLAIN = re.compile(r"[A-Za-z_./][\w./+-]*(?:[ :][\w./+-]+)*", re.ASCII)
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def dump(value: Any) -> str:
    """``value`` (dicts, lists and scalars) as block-style YAML, ending with a newline."""
    return "\n".join(_block(value)) + "\n"


def inline(value: Any) -> str:
    """``value`` on one line, as YAML's flow style."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(str(k))}: {inline(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return _scalar(value)


def _block(value: Any) -> Iterator[str]:
    if _short(value):
        yield inline(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{_text(str(key))}:", item)
    else:
        for item in value:
            first, *rest = _block(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _entry(head: str, item: Any) -> Iterator[str]:
    if _short(item):
        yield f"{head} {inline(item)}"
    else:
        yield head
        yield from (f"  {line}" for line in _block(item))


def _short(value: Any) -> bool:
    """Scalars, empty collections, and lists of a few scalars stay on one line."""
    if isinstance(value, list | tuple):
        return len(value) <= 8 and not any(isinstance(v, Mapping | list | tuple) for v in value)
    return not (isinstance(value, Mapping) and value)


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    raise TypeError(f"a recipe cannot hold a {type(value).__name__}: {value!r}")


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else repr(value)


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and isinstance(scalar(value), str):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
