"""A model as a folder that the Hugging Face hub, transformers and dlmkit read alike.

``model.safetensors`` (one set of weights), ``config.json`` (``model_type: dlmkit``), the
tokenizer's files, ``recipe.yaml`` (the resolved recipe), ``environment.json`` (the packages whose
plugins it needs), ``README.md`` (the model card), ``curves.png`` if the run drew one, and
``manifest.json`` with size and sha256 of all of them but the card, which may be edited. Where the
model was measured, ``evaluation.json`` and ``acceptance.json`` with its pictures as well.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from dlmkit import documents, files
from dlmkit.folders import MANIFEST, at_work
from dlmkit.hub.card import card
from dlmkit.hub.evidence import Evidence
from dlmkit.model import Model, load_model
from dlmkit.training.checkpoint import SAVING, place
from dlmkit.training.curves import CURVES
from dlmkit.training.folder import ENVIRONMENT
from dlmkit.training.origin import environment_of, plugin_file, plugins_of, run_of
from dlmkit.training.state import (
    CONFIG,
    MODEL,
    RECIPE,
    Weights,
    named_tensors,
    write_parts,
)
from dlmkit.version import __version__

CARD = "README.md"
MODEL_TYPE = "dlmkit"
ARCHITECTURE = "DlmkitModel"


@dataclass(frozen=True)
class Export:
    """A model to write as a folder.

    ``licence`` is an identifier of the hub such as ``apache-2.0``; None leaves the field out.
    ``record`` and ``acceptance`` are what was measured of it (:mod:`dlmkit.hub.evidence`).
    """

    model: Model
    name: str
    licence: str | None = None
    record: Path | None = None
    acceptance: Path | None = None

    @staticmethod
    def of(
        reference: str | Path,
        weights: Weights | None = None,
        name: str | None = None,
        licence: str | None = None,
        record: Path | None = None,
        acceptance: Path | None = None,
    ) -> Export:
        """The model that ``reference`` means, loaded and verified as for sampling."""
        model = load_model(reference, weights=weights)
        assert model.folder is not None
        title = name or (run_of(model.folder) or model.folder).name
        return Export(model, title, licence, record, acceptance)

    def write(self, destination: Path) -> None:
        """Make the folder ``destination``. Raises UsageError if it is there and not empty."""
        documents.check_new_folder(destination)
        hidden = at_work(destination.parent, f"{SAVING}{destination.name}-")
        whole = replace(self, model=self.model.merged())
        with documents.writing(destination), hidden:
            place(destination, self.model.step, whole._write, unlisted=(CARD,))

    def _write(self, folder: Path) -> None:
        objective, tokenizer = self.model.assembly.objective, self.model.assembly.tokenizer
        held = {n: t.cpu().contiguous() for n, t in named_tensors(objective).items()}
        try:
            save_file(held, folder / MODEL, metadata={"format": "pt"})
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error
        write_parts(folder, objective, tokenizer)
        recipe = self.model.recipe()
        (folder / RECIPE).write_text(recipe, encoding="utf-8")
        _write_json(folder / CONFIG, self._config())
        _write_json(folder / ENVIRONMENT, self._environment(recipe))
        source = self.model.folder
        curves = (run_of(source) or source or folder) / CURVES
        if files.is_png(curves):
            shutil.copyfile(curves, folder / CURVES)
        evidence = Evidence.of(self.model, self.record, self.acceptance)
        evidence.write(folder)
        (folder / CARD).write_text(self._card(evidence), encoding="utf-8")

    def _card(self, evidence: Evidence) -> str:
        """The card of a folder that was exported before may have been edited: it is kept, unless
        something new is to stand in it."""
        source, new = self.model.folder, (self.licence, self.record, self.acceptance)
        written = source is not None and (source / MANIFEST).is_file() and not run_of(source)
        before = source / CARD if source is not None and written and not any(new) else None
        if before is not None and _own(before):
            return files.read_text(before)
        return card(self.model, self.name, self.licence, evidence)

    def _config(self) -> dict[str, Any]:
        tokenizer, config = self.model.assembly.tokenizer, self.model.config
        return {
            "architectures": [ARCHITECTURE],
            "dlmkit_version": __version__,
            "dtype": str(self.model.assembly.context.dtype).removeprefix("torch."),
            "max_position_embeddings": config.length,
            "model_type": MODEL_TYPE,
            "pad_token_id": tokenizer.pad_id,
            "vocab_size": tokenizer.vocab_size,
            "weights": self.model.weights,
        }

    def _environment(self, recipe: str) -> dict[str, Any]:
        """Of what the model was made in, what concerns a reader: versions, and its plugins."""
        before, needed = environment_of(self.model.folder), plugins_of(recipe)
        here = [plugin.record for plugin in self.model.assembly.registry.plugins]
        made_with = {entry["name"]: entry for entry in (*here, *before.get("plugins", ()))}
        kept = ("dlmkit", "python", "packages", "git", "data", "started")
        return {
            "dlmkit": __version__,
            **{key: before[key] for key in kept if key in before},
            "plugins": [_public(made_with[name]) for name in needed if name in made_with],
        }


def _public(entry: dict[str, Any]) -> dict[str, Any]:
    """A plugin's record without the folder of its file, which is nobody's business."""
    file = plugin_file(entry)
    return entry if file is None else {**entry, "path": file}


def _own(path: Path) -> bool:
    """Whether ``path`` is a file of its folder, or a link into the hub's cache around it.

    The card is in no manifest, and must not carry a file from elsewhere into what is published.
    """
    real = path.resolve()
    cached = real.parent == path.parent.resolve().parent.parent / "blobs"
    return path.is_file() and (not path.is_symlink() or cached)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
