"""What the plugin `released` provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmkit import Component, hookimpl
from dlmkit.plugin import HubModel, Importer
from dlmkit_plaid.configs import Bound
from dlmkit_released import configs

api = 2

FOLDERS = Path(__file__).parents[2] / "tests" / "golden"
"""Of a checkout; a wheel is without them."""

GOLDEN = "logits of the authors' code on made-up weights, fp32 on the CPU, within 2e-5"

QWEN2_7B, DIT_SMALL, LLADA2_MINI = 7_615_616_512, 169_627_218, 16_255_643_392
SSD_LM = 406_885_465
"""Parameters are counted from the sizes of the base model, on modules without memory."""


@dataclass(frozen=True)
class _Type:
    """Recognises configs by their ``model_type``."""

    names: tuple[str, ...]

    def __call__(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in self.names


def _type(*names: str) -> _Type:
    return _Type(names)


def _golden(family: str) -> Path | None:
    folder = FOLDERS / family
    return folder if folder.is_dir() else None


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="network",
            name="dit",
            summary="the transformer of SEDD, MDLM, DUO and BD3-LM, on tokens",
            config=configs.Dit,
            target="dlmkit_released.dit:Dit",
            requires=frozenset({"token-ids"}),
            example={"blocks": 2, "heads": 3, "features": 8, "time": True},
        ),
        Component(
            kind="space",
            name="points",
            summary="trained points of norm 1; the network puts out the logits (Plaid)",
            config=configs.Points,
            target="dlmkit_released.plaid:PointSpace",
            provides=frozenset({"gaussian", "points"}),
            example={"dim": 6},
        ),
        Component(
            kind="network",
            name="plaid",
            summary="Plaid's transformer",
            config=configs.PlaidNetwork,
            target="dlmkit_released.plaid:PlaidTransformer",
            example={"width": 8, "blocks": 2, "heads": 2},
        ),
        Component(
            kind="objective",
            name="plaid-bound",
            summary="plaid:bound on logits that the network puts out",
            config=Bound,
            target="dlmkit_released.plaid:PointBound",
            provides=frozenset({"likelihood-bound"}),
            requires=frozenset({"points", "learned-gamma"}),
        ),
        Component(
            kind="space",
            name="word-simplex",
            summary="ssd:simplex, whose known tokens are read as words",
            config=configs.WordSimplex,
            target="dlmkit_released.ssd_lm:WordSimplexSpace",
            provides=frozenset({"gaussian", "simplex", "words"}),
            example={"width": 6},
        ),
        Component(
            kind="network",
            name="ssd-lm",
            summary="RoBERTa on a simplex (SSD-LM)",
            config=configs.Roberta,
            target="dlmkit_released.ssd_lm:SimplexRoberta",
            requires=frozenset({"words"}),
            example={"blocks": 2, "heads": 2, "hidden": 8},
        ),
        Component(
            kind="network",
            name="bailing",
            summary="Bailing's block-causal mixture of experts, the network of LLaDA2",
            config=configs.Bailing,
            target="dlmkit_released.bailing:Bailing",
            requires=frozenset({"masked"}),
            example={
                "blocks": 2,
                "hidden": 12,
                "heads": 2,
                "groups": 1,
                "channels": 4,
                "rotated": 2,
                "experts": 4,
                "expert_hidden": 6,
                "chosen": 2,
                "expert_groups": 2,
                "kept_groups": 1,
            },
        ),
    ]


@hookimpl
def register_importers() -> Sequence[Importer]:
    return [
        Importer(
            name="llada",
            summary="LLaDA 1 and 1.5: Llama that sees all positions",
            recognises=_type("llada"),
            target="dlmkit_released.llada:Llada",
            models=(
                HubModel("GSAI-ML/LLaDA-8B-Base", 8_015_581_184),
                HubModel("GSAI-ML/LLaDA-8B-Instruct", 8_015_581_184),
                HubModel("GSAI-ML/LLaDA-1.5", 8_015_581_184),
            ),
            mask="126336, mask_token_id of its config",
            verified=GOLDEN,
            golden=_golden("llada"),
        ),
        Importer(
            name="dream",
            summary="Dream 7B, Dream-Coder and DiffuCoder: Qwen2 that sees all, shifted by one",
            recognises=_type("Dream"),
            target="dlmkit_released.qwen:Dream",
            models=(
                HubModel("Dream-org/Dream-v0-Base-7B", QWEN2_7B),
                HubModel("Dream-org/Dream-v0-Instruct-7B", QWEN2_7B),
                HubModel("Dream-org/Dream-Coder-v0-Instruct-7B", QWEN2_7B),
                HubModel("apple/DiffuCoder-7B-Base", QWEN2_7B),
                HubModel("apple/DiffuCoder-7B-cpGRPO", QWEN2_7B),
            ),
            mask="151666, mask_token_id of its config",
            verified=GOLDEN,
            golden=_golden("dream"),
        ),
        Importer(
            name="a2d",
            summary="tiny-a2d of dLLM: small Qwen2 and Qwen3 that see all positions",
            recognises=_type("a2d-qwen2", "a2d-qwen3"),
            target="dlmkit_released.qwen:A2d",
            models=(
                HubModel("dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1", 596_049_920),
                HubModel("dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1", 596_049_920),
                HubModel("dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1", 494_032_768),
                HubModel("dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1", 494_032_768),
            ),
            mask="<|mask|> of its tokenizer",
            verified=f"{GOLDEN}, on Qwen3; Qwen2 was compared with nothing",
            golden=_golden("a2d-qwen3"),
        ),
        Importer(
            name="sdar",
            summary="SDAR: Qwen3 whose positions see their own block and those before it",
            recognises=_type("sdar"),
            target="dlmkit_released.qwen:Sdar",
            models=(
                HubModel("JetLM/SDAR-1.7B-Chat", 2_031_739_904),
                HubModel("JetLM/SDAR-4B-Chat", 4_411_424_256),
                HubModel("JetLM/SDAR-8B-Chat", 8_190_735_360),
                HubModel("JetLM/SDAR-8B-Chat-b32", 8_190_735_360),
            ),
            mask="151669, mask_token_id of its config or <|MASK|> of its tokenizer",
            verified=GOLDEN,
            golden=_golden("sdar"),
        ),
        Importer(
            name="fast-dllm-v2",
            summary="Fast-dLLM v2: Qwen2.5 that fills in blocks of 32, shifted by one",
            recognises=_type("Fast_dLLM_Qwen"),
            target="dlmkit_released.qwen:FastDllm",
            models=(
                HubModel("Efficient-Large-Model/Fast_dLLM_v2_1.5B", 1_543_714_304),
                HubModel("Efficient-Large-Model/Fast_dLLM_v2_7B", QWEN2_7B),
            ),
            mask="151665, |<MASK>| of its tokenizer",
            verified="nothing: no output of the authors' code was at hand; its parts are those of "
            "Dream (Qwen2, shift) and SDAR (blocks), which were compared",
        ),
        Importer(
            name="modernbert",
            summary="ModernBERT with its masked-language head, as dLLM's chat models have it",
            recognises=_modernbert,
            target="dlmkit_released.modernbert:ModernBert",
            models=(
                HubModel("dllm-hub/ModernBERT-base-chat-v0.1", 149_655_232, stored=4),
                HubModel("dllm-hub/ModernBERT-large-chat-v0.1", 395_881_664, stored=4),
            ),
            mask="[MASK] of its tokenizer",
            verified="logits of transformers 4.57 on made-up weights, fp32 on the CPU, within 5e-5",
            golden=_golden("modernbert"),
        ),
        Importer(
            name="plaid",
            summary="Plaid 1B: noise on embeddings, a learned schedule, a bound on the likelihood",
            recognises=_plaid,
            target="dlmkit_released.plaid:Plaid",
            mask="none",
            verified="logits, predictions and schedule of the authors' code on made-up weights, "
            "fp32 on the CPU, within 5e-5",
            golden=_golden("plaid"),
        ),
        Importer(
            name="ssd-lm",
            summary="SSD-LM: RoBERTa on a simplex, block after block",
            recognises=_roberta,
            target="dlmkit_released.ssd_lm:SsdLm",
            models=(HubModel("xhan77/ssdlm", SSD_LM, stored=4),),
            mask="none",
            verified="inputs, logits, projections and tokens of a block of the authors' code on "
            "made-up weights, fp32 on the CPU, within 5e-5",
            golden=_golden("ssd-lm"),
        ),
        Importer(
            name="llada2",
            summary="LLaDA2 mini: a mixture of experts; positions see their own block and earlier",
            recognises=_type("llada2_moe"),
            target="dlmkit_released.llada2:Llada2",
            models=(
                HubModel("inclusionAI/LLaDA2.0-mini", LLADA2_MINI),
                HubModel("inclusionAI/LLaDA2.1-mini", LLADA2_MINI),
            ),
            mask="156895, <|mask|> of its tokenizer",
            verified=GOLDEN,
            golden=_golden("llada2-mini"),
        ),
        Importer(
            name="mdlm",
            summary="MDLM: a transformer modulated by time, which is zero",
            recognises=_type("mdlm"),
            target="dlmkit_released.dits:Mdlm",
            models=(
                HubModel("kuleshov-group/mdlm-owt", DIT_SMALL, stored=4),
                HubModel("kuleshov-group/mdlm-noeos-owt", DIT_SMALL, stored=4),
            ),
            mask="50257, the row behind its tokenizer's tokens",
            verified=GOLDEN,
            golden=_golden("mdlm"),
        ),
        Importer(
            name="duo",
            summary="DUO: MDLM's transformer, which reads the time; tokens turn into any others",
            recognises=_type("DUO", "duo"),
            target="dlmkit_released.dits:Duo",
            models=(
                HubModel("s-sahoo/duo", DIT_SMALL, stored=4),
                HubModel("s-sahoo/duo-distilled", DIT_SMALL, stored=4),
            ),
            mask="none",
            verified=f"{GOLDEN}; the keys of the hub's config.json were not seen",
            golden=_golden("duo"),
        ),
        Importer(
            name="sedd",
            summary="SEDD: MDLM's transformer, which reads the time and puts out log-scores",
            recognises=_sedd,
            target="dlmkit_released.dits:Sedd",
            models=(
                HubModel("louaaron/sedd-small", DIT_SMALL, stored=4),
                HubModel("louaaron/sedd-medium", 424_477_010, stored=4),
            ),
            mask="50257, the row behind its tokenizer's tokens",
            verified=GOLDEN,
            golden=_golden("sedd"),
        ),
        Importer(
            name="bd3lm",
            summary="BD3-LM: MDLM's transformer, whose positions see their own block and earlier",
            recognises=_type("bd3lm"),
            target="dlmkit_released.dits:Bd3lm",
            models=(
                HubModel("kuleshov-group/bd3lm-owt-block_size4", DIT_SMALL, stored=4),
                HubModel("kuleshov-group/bd3lm-owt-block_size8", DIT_SMALL, stored=4),
                HubModel("kuleshov-group/bd3lm-owt-block_size16", DIT_SMALL, stored=4),
                HubModel("kuleshov-group/bd3lm-owt-block_size1024-pretrain", DIT_SMALL, stored=4),
            ),
            mask="50257, the row behind its tokenizer's tokens",
            verified=GOLDEN,
            golden=_golden("bd3lm"),
        ),
    ]


def _is(config: Mapping[str, Any], architecture: str, model_type: str) -> bool:
    """Whether transformers wrote it for this class, or a config of its type names no class.

    Anything may stand in a stranger's file. Without the names of classes the tensors decide: those
    of another head are refused by name.
    """
    written = config.get("architectures")
    named = written is None or (isinstance(written, list) and architecture in written)
    return named and config.get("model_type") == model_type


def _modernbert(config: Mapping[str, Any]) -> bool:
    return _is(config, "ModernBertForMaskedLM", "modernbert")


def _sedd(config: Mapping[str, Any]) -> bool:
    """Its config is the nested one of its training, which names no type of model."""
    nested = all(isinstance(config.get(key), Mapping) for key in ("graph", "model", "noise"))
    return nested and "tokens" in config


def _plaid(config: Mapping[str, Any]) -> bool:
    """No config was released; it is the arguments of training."""
    return {"embed_dim", "gamma_0", "gamma_1", "n_blocks"} <= set(config)


def _roberta(config: Mapping[str, Any]) -> bool:
    """Its config is RoBERTa's own; what RoBERTa lacks lies in files beside the weights."""
    return _is(config, "RobertaForMaskedLM", "roberta")
