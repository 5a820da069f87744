"""MDLM (2406.07524), DUO (2506.10892), SEDD (2310.16834) and BD3-LM (2503.09573): one transformer.

They differ in what they make of its logits, and in whether it reads the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dlmkit import documents
from dlmkit.core.importer import Case, Conversion, Family
from dlmkit.core.objective import Objective
from dlmkit.core.tokens import DiscreteSpace, TokenSpace
from dlmkit.plugin import Depth, Size
from dlmkit.types import Logits
from dlmkit_released.attention import rotary_rates
from dlmkit_released.dit import ROTARY_BASE, Dit
from dlmkit_released.family import masked

INFINITY = 1e6
"""What is taken from the logit of the mask, and from what cannot be (MDLM's diffusion.py)."""

MASKS = ("[MASK]", "<mask>", "<|mask|>")

_PARTS = ("attn_qkv.weight", "attn_out.weight", "norm1.weight", "norm2.weight")
_LAYERS = ("mlp.0", "mlp.2", "adaLN_modulation")
_ENDS = ("sigma_map.mlp.0", "sigma_map.mlp.2", "output_layer.linear")


class DitKeys(documents.Shape):
    """What is read of the config; what has one value here is refused with any other."""

    vocab_size: Size
    hidden_dim: Size
    n_blocks: Depth
    n_heads: Size
    cond_dim: Size
    model_length: Size
    block_size: Size | None = None
    time_conditioning: bool | None = None
    causal: Literal[False] = False
    adaln: Literal[True] = True
    cross_attn: bool = True


class DitFamily(Family):
    """One on the transformer; ``time`` says whether it reads the level where the config does not
    say."""

    prefix = "backbone."
    time = False

    def keys(self, config: Mapping[str, Any]) -> DitKeys:
        return documents.shaped(dict(config), DitKeys)

    def mask(self, config: Mapping[str, Any], tokens: Mapping[str, int], size: int) -> int:
        """The mask's id: the config's or the tokenizer's, else the row behind the tokens."""
        given = config.get("mask_token_id")
        if isinstance(given, int):
            return given
        return next((tokens[name] for name in MASKS if name in tokens), size - 1)

    def block(self, keys: DitKeys) -> int | None:
        return None

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = self.keys(config)
        size, width = keys.vocab_size, keys.hidden_dim
        if width % (2 * keys.n_heads):
            raise ValueError(f"n_heads: {keys.n_heads} heads do not divide {width} channels evenly")
        network = {
            "blocks": keys.n_blocks,
            "heads": keys.n_heads,
            "features": keys.cond_dim,
            "time": self.time if keys.time_conditioning is None else keys.time_conditioning,
            "block": self.block(keys),
        }
        tensors = {f"{self.prefix}vocab_embed.embedding": "space.table.weight"}
        tensors |= {f"{self.prefix}{name}": f"network.{name}" for name in _names(keys.n_blocks)}
        return masked(
            "released:dit",
            network,
            tensors,
            dim=width,
            size=size,
            mask=self.mask(config, tokens, size),
            longest=keys.model_length,
            attention=self.block(keys) or "full",
            unused=frozenset({"sampling_eps_min", "sampling_eps_max"}),  # of training
            computed={
                f"{self.prefix}rotary_emb.inv_freq": rotary_rates(
                    width // keys.n_heads, ROTARY_BASE
                )
            },
        )

    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        space, network, inputs = objective.space, objective.network, case.inputs
        assert isinstance(space, DiscreteSpace)
        assert isinstance(network, Dit)
        with torch.no_grad():
            logits = self.logits(space, network, case)
            return {"logits": logits, "after": self.after(logits, inputs, space)}

    def logits(self, space: DiscreteSpace, network: Dit, case: Case) -> Logits:
        ids = case.inputs["input_ids"]
        return network.logits(space.table(ids), case.inputs["sigma"], None)

    def after(self, logits: Logits, inputs: Mapping[str, Tensor], space: DiscreteSpace) -> Logits:
        """What the family's own code makes of the logits: log-probabilities, or log-scores."""
        raise NotImplementedError


def _names(blocks: int) -> list[str]:
    """The tensors of the network, as they are called here and in the files."""
    layers = [*_ENDS, "output_layer.adaLN_modulation"]
    names = ["output_layer.norm_final.weight"]
    for block in range(blocks):
        names += [f"blocks.{block}.{part}" for part in _PARTS]
        layers += [f"blocks.{block}.{layer}" for layer in _LAYERS]
    return names + [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


class Mdlm(DitFamily):
    """Masked tokens alone are predicted, never the mask; the time read is zero."""

    def logits(self, space: DiscreteSpace, network: Dit, case: Case) -> Logits:
        reads = network.reads_level
        try:
            # a reference may show what the same weights do with their time
            network.reads_level = reads or case.name == "timed"
            return super().logits(space, network, case)
        finally:
            network.reads_level = reads

    def after(self, logits: Logits, inputs: Mapping[str, Tensor], space: DiscreteSpace) -> Logits:
        assert isinstance(space, TokenSpace)
        ids, mask = inputs["input_ids"][:, : logits.shape[1]], space.corruption.mask
        steered = logits.clone()
        steered[..., mask] -= INFINITY
        known = (ids != mask)[..., None]
        present = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids[..., None], True)
        certain = torch.where(present, 0.0, torch.full_like(logits, -INFINITY))
        # not log_softmax: near a million it rounds otherwise
        return torch.where(known, certain, steered - steered.logsumexp(dim=-1, keepdim=True))


class Bd3lm(Mdlm):
    """Masked as MDLM, block after block. In training it reads noisy and clean rows side by side."""

    def block(self, keys: DitKeys) -> int | None:
        if not keys.cross_attn:
            return None
        if keys.block_size is None:
            raise ValueError("block_size: missing, and cross_attn is true")
        return keys.block_size

    def logits(self, space: DiscreteSpace, network: Dit, case: Case) -> Logits:
        ids, longest = case.inputs["input_ids"], network.rotation.shape[1]
        if ids.shape[1] <= longest:
            return super().logits(space, network, case)
        if ids.shape[1] != 2 * longest:
            raise ValueError(f"rows of {ids.shape[1]}, expected at most {longest} or twice that")
        positions = torch.arange(longest, device=ids.device).repeat(2)
        seen = _training_mask(positions, network.block or 1)
        both = network.logits(space.table(ids), case.inputs["sigma"], seen, positions)
        return both[:, :longest]


def _training_mask(positions: Tensor, size: int) -> Tensor:
    """(1, 1, 2L, 2L): noisy positions see their own block of the noisy half and earlier blocks of
    the clean one; clean positions see the clean half up to their own block."""
    block = positions // size
    clean = torch.arange(len(positions), device=positions.device) >= len(positions) // 2
    reader, key = block[:, None], block
    noisy = torch.where(clean, key < reader, key == reader)
    seen = torch.where(clean[:, None], clean & (key <= reader), noisy)
    return seen[None, None]


class Duo(DitFamily):
    """Tokens turn into any others. It reads mixtures of tokens too, as its distillation does."""

    time = True

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        base = super().convert(config, tokens)
        dim = self.keys(config).hidden_dim
        uniform = {
            "space": {"use": "uniform:states", "with": {"dim": dim, "size": base.size}},
            "objective": {"use": "uniform:udlm"},
            "sampler": {"use": "uniform:posterior"},
        }
        return replace(base, recipe={**base.recipe, **uniform}, mask=None)

    def logits(self, space: DiscreteSpace, network: Dit, case: Case) -> Logits:
        inputs, table = case.inputs, space.table
        if "soft_logits" in inputs:
            read = inputs["soft_logits"].softmax(dim=-1) @ table.weight
        elif "weights" in inputs:
            read = (table(inputs["input_ids"]) * inputs["weights"][..., None]).sum(dim=-2)
        else:
            read = table(inputs["input_ids"])
        sigma = inputs["sigma"]
        sigma = sigma.mean(dim=-1) if sigma.ndim == 2 else sigma  # (B, 1) in the sampler
        return network.logits(read, sigma, None)

    def after(self, logits: Logits, inputs: Mapping[str, Tensor], space: DiscreteSpace) -> Logits:
        return logits.log_softmax(dim=-1)


class _Model(documents.Shape):
    hidden_size: Size
    n_blocks: Depth
    n_heads: Size
    cond_dim: Size
    length: Size
    scale_by_sigma: bool = True


class _Graph(documents.Shape):
    type: Literal["absorb"]


class SeddKeys(documents.Shape):
    """The config is the one that the model was trained by, and ``tokens`` is without the mask."""

    tokens: int = Field(gt=0)
    model: _Model
    graph: _Graph


class Sedd(DitFamily):
    """Log-scores: what the ratio of two tokens' probabilities is, which depends on the time."""

    prefix = ""
    time = True

    def keys(self, config: Mapping[str, Any]) -> DitKeys:
        said = documents.shaped(dict(config), SeddKeys)
        model = said.model
        if not model.scale_by_sigma:
            raise ValueError("model.scale_by_sigma: expected True")
        return DitKeys(
            vocab_size=said.tokens + 1,
            hidden_dim=model.hidden_size,
            n_blocks=model.n_blocks,
            n_heads=model.n_heads,
            cond_dim=model.cond_dim,
            model_length=model.length,
        )

    def mask(self, config: Mapping[str, Any], tokens: Mapping[str, int], size: int) -> int:
        return size - 1

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        base = super().convert(config, tokens)
        sedd = {"objective": {"use": "sedd:score-entropy"}, "sampler": {"use": "sedd:tweedie"}}
        return replace(base, recipe={**base.recipe, **sedd})

    def after(self, logits: Logits, inputs: Mapping[str, Tensor], space: DiscreteSpace) -> Logits:
        ids, sigma = inputs["input_ids"], inputs["sigma"]
        noise = torch.where(sigma < 0.5, sigma.expm1(), sigma.exp() - 1.0).log()[:, None, None]
        scores = logits - noise - math.log(logits.shape[-1] - 1)
        return scores.scatter(-1, ids[..., None], 0.0)
