"""Writing plain values as YAML that :mod:`dlmkit.recipe.yaml` reads back identically."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import Node
from ruamel.yaml.representer import SafeRepresenter

from dlmkit.recipe.yaml import scalar

_PLAIN = re.compile(r"[A-Za-z_./][\w./+-]*(?:[ :][\w./+-]+)*", re.ASCII)


def dump(value: Any) -> str:
    """``value`` (dicts, lists and scalars) as block-style YAML, ending with a newline."""
    return _written(value, flow=False)


def inline(value: Any) -> str:
    """``value`` on one line, as YAML's flow style."""
    return _written(value, flow=True).removesuffix("\n")


def _written(value: Any, flow: bool) -> str:
    yaml, stream = YAML(typ="safe", pure=True), io.StringIO()
    yaml.Representer, yaml.width = _Representer, 2**60
    yaml.default_flow_style = flow
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("...\n")


class _Representer(SafeRepresenter):
    """Text is plain only where :func:`scalar` reads it so; lists of up to eight scalars take a
    line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> Node:
        plain = _PLAIN.fullmatch(data) and isinstance(scalar(data), str)
        return self.represent_scalar("tag:yaml.org,2002:str", data, None if plain else '"')

    def number(self, data: float) -> Node:
        """With a point before the exponent, without which YAML 1.1 reads text."""
        node = self.represent_float(data)
        mantissa, e, exponent = node.value.partition("e")
        node.value = f"{mantissa}.0e{exponent}" if e and "." not in mantissa else node.value
        return node

    def sequence(self, data: list[Any] | tuple[Any, ...]) -> Node:
        short = len(data) <= 8 and not any(isinstance(v, Mapping | list | tuple) for v in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, short or None)


_Representer.add_representer(str, _Representer.text)
_Representer.add_representer(float, _Representer.number)
_Representer.add_representer(list, _Representer.sequence)
_Representer.add_representer(tuple, _Representer.sequence)
