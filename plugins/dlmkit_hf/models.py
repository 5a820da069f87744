"""Score networks that are a whole language model of transformers, head included."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from dlmkit.core.context import BuildContext
from dlmkit.core.importer import shifted
from dlmkit.core.layers import extended, keeper
from dlmkit.core.network import Conditioning, Incremental, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.types import Embedded, Ids, Logits, Mask, Query
from dlmkit_hf import configs, encoders, lora, pretrained
from dlmkit_hf.blocks import blocks_of

Seen = Mask | Bool[Tensor, "B 1 M L"]
"""Which positions may be seen: the keys, by every position, or of each position its own."""

Places = Int[Tensor, "#B L"]
"""At which position of its text each stands."""


class HfModel(ScoreNetwork):
    """The model reads the space's rows instead of word embeddings, which it has none of its own,
    and its head's output is the query: one logit for each row of the table.

    At given positions it reads the clean token. It reads no level and no previous prediction.
    """

    reads_level = False
    head: encoders.Head = "masked"
    shift = False
    lora: configs.Lora | None = None

    def __init__(self, config: configs.HfModel, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        if not isinstance(space, TokenSpace):
            raise RecipeError("network: a language model of transformers needs space mdlm:tokens")
        self.model, self.scale = pretrained.language_model(config, context, space, self.head)
        self.described = self.model.config
        if config.tied:
            if space.query_dim != space.table.num_embeddings:
                raise RecipeError("network.with.tied: give space.with.size, rows with a logit each")
            self.model.get_output_embeddings().weight = space.table.weight
        if config.lora is not None:
            lora.adapt(self.model, config.lora)
            self.adapted, self.lora, self.base = True, config.lora, config.name
            space.table.weight.requires_grad_(config.lora.words)
        self.named = config.name is not None
        self.dim, self.probed = space.dim, min(context.length, 8)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        x = conditioning.shown(x)
        return self.after(self.logits(x, *self.seen(conditioning)))

    def seen(self, conditioning: Conditioning) -> tuple[Seen, Places | None]:
        """What :meth:`logits` is given: what may be seen, and where positions stand."""
        return conditioning.attend, None

    def logits(self, x: Embedded, seen: Seen | None, positions: Places | None = None) -> Logits:
        """What the model itself puts out, for ``x`` at ``positions`` (0, 1, ... by default)."""
        more: dict[str, Any] = {} if positions is None else {"position_ids": positions}
        if self.head == "causal":
            more["use_cache"] = False  # activations that are computed again would be kept twice
        mask = None if seen is None else self.mask(seen, x.dtype)
        out: Tensor = self.model(inputs_embeds=x * self.scale, attention_mask=mask, **more).logits
        return out

    def mask(self, seen: Seen, dtype: torch.dtype) -> Tensor:
        """What transformers is given: the keys, or what is added to the attention's scores."""
        if seen.dim() == 2:
            return seen.long()
        # finite, for positions that see nothing, as some of padding do
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
            ~seen, torch.finfo(dtype).min
        )

    def after(self, logits: Logits) -> Query:
        """The logits of each position's own token."""
        return shifted(logits) if self.shift else logits

    def shard_units(self) -> Sequence[nn.Module]:
        return blocks_of(self.model, self.described.num_hidden_layers)

    def dense_layers(self) -> Sequence[nn.Linear]:
        """Those of the model itself: adapters of it stay as they are."""
        units = self.shard_units()
        named = (pair for unit in units for pair in unit.named_modules())
        return [m for name, m in named if isinstance(m, nn.Linear) and ".lora_" not in name]

    def trunk(self) -> nn.Module:
        """The model without its head, final norm included: blocks alone put out a few channels that
        are some ten times as large as all others (2402.17762)."""
        trunk: nn.Module = self.model.base_model
        return trunk

    def base_name(self, name: str) -> str | None:
        return lora.base_name(name) if self.adapted else name

    def merge(self) -> Mapping[str, Any]:
        if not self.adapted:
            return {}
        lora.merge(self.model)
        self.adapted, self.lora, self.base = False, None, None
        return {"lora": None}

    def save(self, folder: Path) -> None:
        """The architecture of a pretrained model: with it, no hub is needed to build it again."""
        if self.named:
            pretrained.save(self.described, folder)

    def probe(self) -> None:
        """Raise RecipeError if some position sees less, or more, than it should."""
        last = self.probed - 1
        self._expect({(0, last): True, (last, 0): True} if last else {})

    @torch.no_grad()
    def _expect(self, sees: dict[tuple[int, int], bool]) -> None:
        """Perturb one position, look at another: ``sees[reader, changed]``."""
        if not sees:
            return
        generator = torch.Generator().manual_seed(0)
        base = torch.randn(self.probed, self.dim, generator=generator)
        rows = base.repeat(len(sees) + 1, 1, 1)
        for row, (_, changed) in enumerate(sees, 1):
            rows[row, changed] = torch.randn(self.dim, generator=generator)
        weight = next(self.parameters())
        training = self.model.training
        rows = rows.to(weight)
        attend = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        try:
            with torch.random.fork_rng(devices=[]):
                out = self.eval().logits(rows, attend)
        finally:
            self.model.train(training)
        for row, ((reader, changed), expected) in enumerate(sees.items(), 1):
            if torch.equal(out[0, reader], out[row, reader]) == expected:
                does = "does not see" if expected else "sees"
                raise RecipeError(
                    f"network: {self.described.model_type} {does} position {changed} from "
                    f"position {reader}, which is not the attention that was asked for"
                )


class Keeping(Cache):
    """Of transformers: keys and values of ``positions`` go into ``memory``, and attention gets
    those of all positions."""

    def __init__(self, memory: Tensor, positions: Tensor) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.memory, self.positions = memory, positions

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keep = keeper(self.memory, layer_idx, self.positions)
        k, v = keep(key_states.transpose(1, 2), value_states.transpose(1, 2))
        return k.transpose(1, 2), v.transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class HfDecoder(HfModel, Incremental):
    """A decoder, whose attention is what its options say and not what it was made for."""

    head: encoders.Head = "causal"
    block: int

    def __init__(self, config: configs.HfDecoder, context: BuildContext) -> None:
        self.attention, self.block = config.attention, config.block or 0
        self.opened: Bool[Tensor, "B L L"] | None = None
        super().__init__(config, context)
        self.shift = config.shift
        if config.attention != "causal":
            self.described.is_causal = False
        if self.block:
            self.probed = min(context.length, 2 * self.block)

    def logits(self, x: Embedded, seen: Seen | None, positions: Places | None = None) -> Logits:
        if seen is None and self.block:  # no mask at all would be full attention
            seen = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return super().logits(x, seen, positions)

    def annealed(self, opened: Bool[Tensor, "B L L"]) -> HfDecoder:
        """This decoder in a step of training, where of what stands ahead a position sees only
        what is ``opened`` to it."""
        other = copy.copy(self)
        other.opened = opened
        return other

    def seen(self, conditioning: Conditioning) -> tuple[Seen, Places | None]:
        """Of rows with several texts, each sees itself alone, and its positions count from 0."""
        attend, segments = conditioning.attend, conditioning.segments
        if segments is None and self.opened is None:
            return attend, None
        places = torch.arange(attend.shape[1], device=attend.device)[None]
        seen = attend[:, None, :]
        if segments is not None:
            begins = torch.ones_like(segments, dtype=torch.bool)
            begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
            places = places - torch.where(begins, places, 0).cummax(dim=1).values
            seen = seen & (segments[:, :, None] == segments[:, None, :])
        seen = seen & self.allowed(places)
        if self.opened is not None:
            seen = seen & (self.opened | (places[:, :, None] >= places[:, None, :]))
        return seen[:, None], places

    def allowed(self, places: Places) -> Bool[Tensor, "#B L L"]:
        """What ``attention`` lets the ``places`` of a text see of it, were nothing padding."""
        if self.attention == "full":
            return torch.ones_like(places, dtype=torch.bool)[:, :, None].expand(
                -1, -1, places.shape[1]
            )
        units = places // self.block if self.block else places
        return units[:, :, None] >= units[:, None, :]

    def mask(self, seen: Seen, dtype: torch.dtype) -> Tensor:
        if self.block and seen.dim() == 2:
            places = torch.arange(seen.shape[1], device=seen.device)[None]
            seen = seen[:, None, None, :] & self.allowed(places)[:, None]
        return super().mask(seen, dtype)

    def memory(self, count: int, length: int) -> Tensor:
        said = self.described
        heads, layers = said.num_attention_heads, said.num_hidden_layers
        groups = getattr(said, "num_key_value_heads", None) or heads
        channels = getattr(said, "head_dim", None) or said.hidden_size // heads
        weight: Tensor = next(self.model.parameters())
        return weight.new_zeros((count, layers, 2, length, groups, channels))

    def extend(
        self, x: Embedded, conditioning: Conditioning, positions: Ids, memory: Tensor
    ) -> tuple[Query, Tensor]:
        memory, x = memory.clone(), conditioning.at(positions).shown(x)
        block = None if self.attention == "full" else self.block or 1
        seen = extended(conditioning.attend, positions, block).expand(-1, -1, x.shape[1], -1)
        out: Tensor = self.model(
            inputs_embeds=x * self.scale,
            attention_mask=self.mask(seen, x.dtype),
            position_ids=positions,
            past_key_values=Keeping(memory, positions),
            use_cache=True,
        ).logits
        return self.after(out), memory

    def probe(self) -> None:
        last = self.probed - 1
        if not last:
            return
        forward = self.attention == "full" or last < self.block
        sees = {(0, last): forward, (last, 0): True}
        if self.block > 1 and last >= self.block:
            sees[0, self.block - 1] = True
        self._expect(sees)
