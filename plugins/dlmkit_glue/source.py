"""Where weights come from: a trained model, or a recipe whose network starts from an encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import UsageError
from dlmkit.model import Model, load_model, names_recipe
from dlmkit.recipe.assemble import Assembly, assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.lookup import Registry
from dlmkit.training.state import write_parts


@dataclass(frozen=True)
class StartingModel:
    """A model to fine-tune, as often as asked, from its own weights or from fresh ones.

    ``folder`` holds what its parts are built from beside options and weights (a tokenizer, an
    encoder's architecture); ``state`` are its weights, and ``steps`` those behind them.
    """

    name: str
    digest: str
    config: RecipeConfig
    registry: Registry
    folder: Path
    device: torch.device
    tokenizer: Tokenizer
    state: dict[str, Tensor]
    steps: int

    @staticmethod
    def of(
        reference: str, overrides: Sequence[str], folder: Path, device: torch.device
    ) -> StartingModel:
        """The model or recipe that ``reference`` means; ``folder`` is empty and ours to fill.

        Raises what :func:`load_model` and :func:`load_recipe` raise, and UsageError for a recipe
        that starts from fresh weights: nothing of it is pretrained.
        """
        registry = Registry.load()
        model = _model(reference, overrides, registry, device)
        assembly = model.assembly
        write_parts(folder, assembly.objective, assembly.tokenizer)
        state = {k: v.detach().clone() for k, v in assembly.objective.state_dict().items()}
        source = StartingModel(
            name=reference,
            digest=model.digest(),
            config=model.config,
            registry=registry,
            folder=folder,
            device=device,
            tokenizer=assembly.tokenizer,
            state=state,
            steps=model.step,
        )
        if model.folder is None:
            source._refuse_fresh()
        return source

    def build(self, pretrained: bool, seed: int) -> Assembly:
        """The model with its own weights, or with fresh ones that ``seed`` fixes."""
        config = self.config.model_copy(update={"seed": seed})
        built = assemble(
            config, self.registry, device=self.device, folder=self.folder, with_data=False
        )
        if pretrained:
            built.objective.load_state_dict(self.state)
        return built

    def _refuse_fresh(self) -> None:
        fresh = self.build(False, self.config.seed).objective.state_dict()
        if all(torch.equal(fresh[name], value) for name, value in self.state.items()):
            raise UsageError(
                f"--model {self.name}: the recipe starts from fresh weights, so nothing is "
                "pretrained; train it by `dlmkit train` and name its run, or name a recipe whose "
                "network starts from an encoder (network: hf-encoder with a name)"
            )


def _model(
    reference: str, overrides: Sequence[str], registry: Registry, device: torch.device
) -> Model:
    if names_recipe(reference, registry):
        return _started(reference, overrides, registry, device)
    return load_model(reference, overrides, device=device)


def _started(
    reference: str, overrides: Sequence[str], registry: Registry, device: torch.device
) -> Model:
    """The model of a recipe, as training would start it."""
    assembly = assemble(load_recipe(reference, overrides, registry).config, registry, device=device)
    return Model(None, assembly, assemble_sampling(assembly))


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder for :meth:`StartingModel.of`, removed at the end."""
    return tempfile.TemporaryDirectory(prefix="dlmkit-glue-")
