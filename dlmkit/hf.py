"""Models of dlmkit for transformers: importing this module registers them with the Auto classes.

``import dlmkit.hf`` and then ``AutoModel.from_pretrained(folder)`` load what ``dlmkit export``
wrote, or a repository of the hub that holds it; ``save_pretrained`` writes the same files again.
No code comes with a model. Imports torch and transformers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from dlmkit import folders
from dlmkit.core.network import Conditioning
from dlmkit.errors import UsageError
from dlmkit.model import Model, Text, load_model
from dlmkit.model.fetch import fetched
from dlmkit.model.folder import MODEL_TYPE, check_folder
from dlmkit.noise import Noise
from dlmkit.recipe.assemble import assemble_sampling


class DlmkitConfig(PreTrainedConfig):
    """What ``config.json`` says of a model; the recipe beside it says how the model is built."""

    model_type = MODEL_TYPE
    vocab_size: int = 0
    max_position_embeddings: int = 0
    weights: str = "ema"
    dlmkit_version: str = ""


@dataclass
class DenoiserOutput(ModelOutput):
    """What the model believes at one noise level.

    ``logits`` (B, L, V) of the clean token at every position; ``x0`` (B, L, D), the mean of its
    embedding, and the embedding itself where the token is given; ``previous`` for the next call,
    if the model conditions on its own prediction.
    """

    logits: Tensor | None = None
    x0: Tensor | None = None
    previous: Any = None


class DlmkitModel(PreTrainedModel):
    """A denoiser: one evaluation of the model by :meth:`forward`, whole texts by :meth:`sample`.

    ``model.model`` is the :class:`dlmkit.model.Model` underneath. Training is
    ``model.objective(batch, draws)``, the objective of the recipe.
    """

    config_class = DlmkitConfig
    base_model_prefix = "objective"
    main_input_name = "x"

    def __init__(self, config: DlmkitConfig, model: Model | None = None) -> None:
        super().__init__(config)
        if model is None:
            raise UsageError(
                "a model of dlmkit is built from its folder: from_pretrained(FOLDER), or "
                "dlmkit.compose(...) for a fresh one"
            )
        self.objective = model.assembly.objective
        self._model = model
        self.post_init()

    def init_weights(self) -> None:
        """Nothing: the weights are the model's own, and stay as they are."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: DlmkitConfig | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> DlmkitModel:
        """The model of a folder that ``dlmkit export`` wrote, or of a repository of the hub.

        Verified against its manifest; in evaluation mode, in float32 on the CPU. Raises
        UsageError for other dtypes and for options that mean nothing here, DataError if the hub
        cannot be reached, CheckpointError if the folder is damaged, holds pickles or code.
        """
        _refuse(dtype, options)
        where = str(pretrained_model_name_or_path)
        folder = folders.expanded(where)
        if os.path.isdir(folder):
            check_folder(folder, where)
        else:
            folder = fetched(
                where,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
            )
        stored = DlmkitConfig.from_pretrained(folder, trust_remote_code=False)
        if config is not None and config.dtype != stored.dtype:
            _refuse(config.dtype, {})  # AutoModel's: old transformers put it nowhere else
        model = cls(config or stored, load_model(folder))
        model.name_or_path = where
        model.eval()
        return model

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write what :meth:`from_pretrained` reads, with the weights as they are now.

        The directory is new or empty, and gets one file of weights, whatever ``max_shard_size``
        (which :meth:`push_to_hub` passes). Raises UsageError for options that mean nothing here.
        """
        refused = [name for name in options if name != "max_shard_size"]
        if refused:
            raise UsageError(f"save_pretrained: {refused[0]} means nothing for a model of dlmkit")
        source = self._model.folder
        self._model.save(save_directory, source.name if source else None)

    @property
    def model(self) -> Model:
        """The model underneath, on the device where its weights are now."""
        held = self._model
        context = replace(held.assembly.context, device=self.device)
        assembly = replace(held.assembly, context=context)
        return replace(held, assembly=assembly, parts=assemble_sampling(assembly))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        input_ids: Tensor | None = None,
        given: Tensor | None = None,
        attention_mask: Tensor | None = None,
        previous: Any = None,
    ) -> DenoiserOutput:
        """One evaluation of the denoiser.

        ``x`` (B, L, D) is the noisy state and ``t`` (B,) or (B, L) its time in the recipe's
        schedule, as :meth:`noised` makes them (t_min and t_max: ``model.schedule``). Tokens of
        ``input_ids`` (B, L) are known where ``given`` (B, L) is true; without them nothing is.
        ``attention_mask`` is 0 at padding. ``previous`` is what an earlier call returned.
        """
        space, denoise = self._model.assembly.space, self.objective.denoise()
        known = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        clean = x.new_zeros((*x.shape[:2], space.dim))
        if given is not None:
            if input_ids is None:
                raise UsageError("forward: given positions need their tokens, input_ids")
            known, clean = given.bool(), space.embed(input_ids)
        attend = torch.ones_like(known) if attention_mask is None else attention_mask.bool()
        level = self.schedule.level(t)
        before = denoise.start(x) if previous is None else previous
        prediction = denoise(x, level, before, Conditioning.of(clean, known, attend))
        return DenoiserOutput(
            space.logits(prediction.query), prediction.x0_step, prediction.feedback
        )

    @property
    def schedule(self) -> Any:
        """The recipe's noise schedule."""
        return self._model.assembly.schedule

    @torch.no_grad()
    def noised(self, input_ids: Tensor, t: Tensor, seed: int = 0) -> Tensor:
        """``input_ids`` (B, L) as a noisy state at times ``t`` (B,); row i depends on (seed, i)."""
        space = self._model.assembly.space
        rows = torch.arange(len(input_ids), device=input_ids.device)
        level = self.schedule.level(t)
        noise = Noise.keyed(seed, rows, 0)
        return space.corruption.corrupt(space.embed(input_ids), level, noise)

    def sample(
        self,
        n: int = 4,
        seed: int = 0,
        prompt: str | Sequence[str] | None = None,
        infill: str | Sequence[str] | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        length: int | Sequence[int] | None = None,
    ) -> list[Text]:
        """Whole texts by the recipe's sampler; see :meth:`dlmkit.model.Model.sample`."""
        return self.model.sample(n, seed, prompt, infill, steps, batch_size, length)


def _refuse(dtype: torch.dtype | str | None, options: dict[str, Any]) -> None:
    if dtype not in (None, "auto", "float32", torch.float32):
        raise UsageError(
            f"from_pretrained: dtype {dtype}: a model of dlmkit is loaded in float32; to sample "
            "in half precision set sample.precision to bf16"
        )
    passed = ("trust_remote_code", "adapter_kwargs", "_commit_hash", "use_safetensors")
    refused = [name for name, value in options.items() if value and name not in passed]
    if refused:
        raise UsageError(f"from_pretrained: {refused[0]} means nothing for a model of dlmkit")


AutoConfig.register(MODEL_TYPE, DlmkitConfig)
AutoModel.register(DlmkitConfig, DlmkitModel)
