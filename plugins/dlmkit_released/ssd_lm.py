"""SSD-LM (2210.17432): RoBERTa on a simplex, which reads its context as word embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlmkit import documents
from dlmkit.core.context import BuildContext
from dlmkit.core.importer import Case, Conversion, Family, Place, Split
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Objective
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.plugin import Depth, Size
from dlmkit.types import Embedded, Query
from dlmkit_hf.blocks import blocks_of
from dlmkit_released import configs
from dlmkit_ssd.configs import Simplex
from dlmkit_ssd.sampler import nucleus
from dlmkit_ssd.space import SimplexCorruption, SimplexSpace


class WordCorruption(SimplexCorruption):
    """The network reads two vectors of a position: the mean of a table's rows, and the word that
    is likeliest, which is the token itself where there is no noise."""

    def __init__(self, table: nn.Embedding, words: nn.Embedding, scale: float) -> None:
        super().__init__(table, scale)
        self.words = words

    def input(self, x: Tensor, level: Level) -> Embedded:
        return torch.cat((super().input(x, level), self.words(x.argmax(dim=-1))), dim=-1)


class WordSimplexSpace(SimplexSpace):
    """ssd:simplex with a second table, of words, which known tokens are read from."""

    corruption: WordCorruption

    def __init__(self, config: configs.WordSimplex, context: BuildContext) -> None:
        size = context.rows(config.size)
        super().__init__(Simplex(dim=config.width, scale=config.scale), context)
        self.vocab_size = self.query_dim = size
        self.dim = 2 * config.width
        self.table = nn.Embedding(size, config.width)
        self.words = nn.Embedding(size, config.width)
        self.corruption = WordCorruption(self.table, self.words, config.scale)


class SimplexRoberta(ScoreNetwork):
    """RoBERTa with its masked-language head, tied to the words of the space.

    At noised positions it reads the mean of the simplex and the time, at given ones the word
    alone. Positions start behind the id of padding, as in RoBERTa.
    """

    def __init__(self, config: configs.Roberta, context: BuildContext) -> None:
        super().__init__()
        from transformers import RobertaConfig, RobertaForMaskedLM

        space = context.part("space")
        if not isinstance(space, WordSimplexSpace):
            raise RecipeError("network: released:ssd-lm needs space released:word-simplex")
        if context.attention not in ("auto", "sdpa"):
            raise RecipeError(f"network: released:ssd-lm has no attention {context.attention!r}")
        if context.length > config.positions - config.pad - 1:
            raise RecipeError(
                f"length: {context.length}, and the network has positions for "
                f"{config.positions - config.pad - 1}"
            )
        self.width, self.schedule = space.dim // 2, (context.part("schedule"),)
        described = RobertaConfig(
            vocab_size=space.query_dim,
            hidden_size=self.width,
            num_hidden_layers=config.blocks,
            num_attention_heads=config.heads,
            intermediate_size=config.hidden,
            max_position_embeddings=config.positions,
            type_vocab_size=1,
            pad_token_id=config.pad,
            layer_norm_eps=config.epsilon,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            tie_word_embeddings=False,
        )
        described._attn_implementation = "sdpa"
        self.model = RobertaForMaskedLM(described)
        self.model.lm_head.decoder.bias = self.model.lm_head.bias
        self.model.lm_head.decoder.weight = space.words.weight
        self.model.set_input_embeddings(nn.Identity())  # nothing reads them
        self.timestep_layer = nn.Linear(1, self.width)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        read = self.embedded(x, level, conditioning)
        query: Query = self.model(
            inputs_embeds=read, attention_mask=conditioning.attend.long()
        ).logits
        return query

    def embedded(
        self, x: Embedded, level: Level, conditioning: Conditioning
    ) -> Float[Tensor, "B L half"]:
        """What RoBERTa reads instead of word embeddings, (B, L, width)."""
        (schedule,) = self.schedule
        t = schedule.inverse(level.ratio).to(x.dtype)
        time = self.timestep_layer(t[:, None, None])
        noised, words = x[..., : self.width] + time, conditioning.clean[..., self.width :]
        return torch.where(conditioning.given[..., None], words.to(x.dtype), noised)

    def shard_units(self) -> Sequence[nn.Module]:
        return blocks_of(self.model, self.model.config.num_hidden_layers)


class SsdLmKeys(documents.Shape):
    """What is read of the config; what has one value here is refused with any other."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    max_position_embeddings: Size
    pad_token_id: int = 1
    layer_norm_eps: float = 1e-12  # of a config that does not say, as of transformers
    hidden_act: Literal["gelu"] = "gelu"
    type_vocab_size: Literal[1] = 1
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    tie_word_embeddings: Literal[True] = True


_LAYER = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


class SsdLm(Family):
    """RoBERTa's tensors, and two layers that lie in files of their own."""

    # logits reach 18, and transformers' own are 1.0e-5 from those of double precision
    tolerance = 5e-5

    def unpickled(self, content: Any) -> Mapping[str, Tensor]:
        tensors = super().unpickled(content)  # a wrapper of training puts "module." in front
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = documents.shaped(dict(config), SsdLmKeys)
        positions = keys.max_position_embeddings - keys.pad_token_id - 1
        if positions < 1:
            raise ValueError("max_position_embeddings: no position behind pad_token_id")
        recipe = {
            "length": positions,
            "schedule": {"use": "ssd:cosine"},
            "space": {
                "use": "released:word-simplex",
                "with": {"width": keys.hidden_size, "size": keys.vocab_size},
            },
            "network": {
                "use": "released:ssd-lm",
                "with": {
                    "blocks": keys.num_hidden_layers,
                    "heads": keys.num_attention_heads,
                    "hidden": keys.intermediate_size,
                    "positions": keys.max_position_embeddings,
                    "pad": keys.pad_token_id,
                    "epsilon": keys.layer_norm_eps,
                },
            },
            "objective": {"use": "ssd:block-cross-entropy"},
            "sampler": {"use": "ssd:projection"},
            "sample": {"steps": 256, "batch_size": 4},
        }
        words, head = "roberta.embeddings.word_embeddings.weight", "lm_head.decoder"
        names = ["lm_head.bias"]
        names += [f"roberta.embeddings.{name}_embeddings.weight" for name in _TABLES]
        layers = ["roberta.embeddings.LayerNorm", "lm_head.dense", "lm_head.layer_norm"]
        for number in range(keys.num_hidden_layers):
            layers += [f"roberta.encoder.layer.{number}.{name}" for name in _LAYER]
        names += [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        tensors: dict[str, Place | Split] = {
            words: "space.words.weight",
            "embed_sum_layer.weight": Split(("space.table.weight",), lambda matrix: [matrix.mT]),
            **{f"timestep_layer.{k}": f"network.timestep_layer.{k}" for k in ("weight", "bias")},
            **{name: f"network.model.{name}" for name in names},
        }
        return Conversion(
            recipe,
            tensors,
            keys.vocab_size,
            None,
            copies={f"{head}.weight": words, f"{head}.bias": "lm_head.bias"},
            unused=frozenset({"roberta.embeddings.position_ids"}),
            beside={f"{name}.pt": f"{name}." for name in ("embed_sum_layer", "timestep_layer")},
        )

    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        """One block decoded behind a context, from the noise that the case gives."""
        space, network, schedule = objective.space, objective.network, objective.schedule
        assert isinstance(space, WordSimplexSpace)
        assert isinstance(network, SimplexRoberta)
        context, noise = case.inputs["context_ids"], case.inputs["noise"]
        top_p, hot = float(case.settings["top_p"]), float(case.settings["one_hot_value"])
        scale, steps, before = space.corruption.scale, len(noise) - 1, context.shape[1]
        with torch.no_grad():
            known = space.embed(context)
            noise = noise * (hot / scale)  # the draws of a case are not scaled yet
            x = noise[0]
            given = torch.zeros(len(x), before + x.shape[1], dtype=torch.bool, device=x.device)
            given[:, :before] = True
            calls: list[tuple[Tensor, Tensor, Tensor]] = []
            for step in range(steps, 0, -1):
                here, after = (
                    schedule.level(noise.new_full((len(x),), t / steps, dtype=torch.float64))
                    for t in (step, step - 1)
                )
                row = torch.cat((known, x), dim=1)
                read = space.corruption.input(row, here)
                conditioning = Conditioning.of(read, given, torch.ones_like(given))
                logits = network(read, here, conditioning, torch.zeros_like(read))
                inside = nucleus(logits[:, before:].softmax(dim=-1), top_p) > 0
                projected = torch.where(inside, hot, -hot)
                alpha, sigma = after.like(x)
                x = alpha * (projected / scale) + sigma * noise[steps - step + 1]
                calls.append((logits, network.embedded(read, here, conditioning), projected))
        answers = map(torch.stack, zip(*calls, strict=True))
        tensors = dict(zip(("logits", "inputs_embeds", "projected"), answers, strict=True))
        return {**tensors, "ids": logits[:, before:].argmax(dim=-1)}


_TABLES = ("position", "token_type")
