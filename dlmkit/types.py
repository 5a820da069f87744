"""Axis legend for the shape annotations, which are checked in the tests only.

``B`` rows (one text each), ``L`` positions, ``V`` vocabulary, ``D`` channels of the embedding
space, ``Q`` channels of the read-out query, ``N`` points of a grid.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Ids = Int[Tensor, "B L"]
Mask = Bool[Tensor, "B L"]
Rows = Bool[Tensor, "B"]
Index = Int[Tensor, "B"]
PerRow = Float[Tensor, "B"]
PerPosition = Float[Tensor, "B L"]
Embedded = Float[Tensor, "B L D"]
Query = Float[Tensor, "B L Q"]
Logits = Float[Tensor, "B L V"]
Probabilities = Float[Tensor, "B L V"]
Points = Float[Tensor, "N"]

__all__ = [
    "Embedded",
    "Ids",
    "Index",
    "Logits",
    "Mask",
    "PerPosition",
    "PerRow",
    "Points",
    "Probabilities",
    "Query",
    "Rows",
    "Tensor",
]
