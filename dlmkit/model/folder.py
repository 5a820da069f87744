"""A model as a folder that the Hugging Face hub, transformers and dlmkit read alike.

``model.safetensors`` (one set of weights), ``config.json`` (``model_type: dlmkit``), the
tokenizer's files, ``recipe.yaml`` (the resolved recipe), ``environment.json`` (the packages whose
plugins it needs), ``README.md`` (the model card), ``curves.png`` if the run drew one, and
``manifest.json`` with size and sha256 of all of them but the card, which may be edited. With a
base, which ``config.json`` names, the weights are adapters alone, in half precision. Where the
model was measured, ``evaluation.json`` (a record of `dlmkit eval`) and ``acceptance.json`` (what
`dlmkit acceptance measure` wrote) with its pictures as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dlmkit import documents, files
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.folders import MANIFEST, at_work
from dlmkit.model.card import card, licensed
from dlmkit.model.loading import load_model
from dlmkit.model.model import Model
from dlmkit.training.checkpoint import SAVING, place, verify
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
EVALUATION, ACCEPTANCE = "evaluation.json", "acceptance.json"

CODE = (".py", ".pyc", ".so", ".ipynb")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack")


class Measurements(Protocol):
    """What was measured of a model: files by their names in its folder, and chapters and limits
    for its card."""

    @property
    def files(self) -> Mapping[str, Path]: ...
    def sections(self) -> Sequence[str]: ...
    def limits(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Export:
    """A model to write as a folder.

    ``licence`` is an identifier of the hub such as ``apache-2.0``; None leaves the field out.
    ``measured`` is for its card; None: the card of a folder that was exported before is kept, and
    what was measured of these weights goes along. ``base`` is the name or folder of the model that
    the network adapts: its weights are left out, and read from there.
    """

    model: Model
    name: str
    licence: str | None = None
    measured: Measurements | None = None
    base: str | None = None

    @staticmethod
    def of(
        reference: str | Path,
        weights: Weights | None = None,
        name: str | None = None,
        licence: str | None = None,
        overrides: Sequence[str] = (),
        base: str | None = None,
    ) -> Export:
        """The model that ``reference`` means, loaded and verified as for sampling, sampled as
        ``overrides`` of its recipe say.

        Raises UsageError for a ``base`` if it has none.
        """
        model = load_model(reference, overrides, weights=weights)
        assert model.folder is not None
        title = name or (run_of(model.folder) or model.folder).name
        whole = model.merged() if base is None else _beside(model, base)
        return Export(whole, title, licence, base=base)

    def write(self, destination: Path) -> None:
        """Make the folder ``destination``. Raises UsageError if it is there and not empty."""
        documents.check_new_folder(destination)
        hidden = at_work(destination.parent, f"{SAVING}{destination.name}-")
        whole = replace(self, model=self.model.merged()) if self.base is None else self
        with documents.writing(destination), hidden:
            place(destination, self.model.step, whole._write, unlisted=(CARD,))

    def _write(self, folder: Path) -> None:
        objective, tokenizer = self.model.assembly.objective, self.model.assembly.tokenizer
        held = named_tensors(objective, fixed=self.base is None)
        held = {name: self._stored(tensor).cpu().contiguous() for name, tensor in held.items()}
        try:
            save_file(held, folder / MODEL, metadata={"format": "pt"})
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error
        write_parts(folder, objective, tokenizer, base=self.base is not None)
        recipe = self.model.recipe()
        (folder / RECIPE).write_text(recipe, encoding="utf-8")
        _write_json(folder / CONFIG, self._config())
        _write_json(folder / ENVIRONMENT, self._environment(recipe))
        source = self.model.folder
        curves = (run_of(source) or source or folder) / CURVES
        if files.is_png(curves):
            shutil.copyfile(curves, folder / CURVES)
        measured = carried(self.model) if self.measured is None else self.measured.files
        for name, path in measured.items():
            shutil.copyfile(path, folder / name)
        (folder / CARD).write_text(self._card(), encoding="utf-8")

    def _stored(self, tensor: Tensor) -> Tensor:
        half = self.base is not None and tensor.is_floating_point()
        return tensor.half() if half else tensor

    def _card(self) -> str:
        """The card of a folder that was exported before may have been edited: it is kept, unless
        something new is to stand in it."""
        source = self.model.folder
        written = source is not None and (source / MANIFEST).is_file() and not run_of(source)
        before = source / CARD if source is not None and written else None
        if self.measured is None and before is not None and _own(before):
            kept = files.read_text(before)
            return kept if self.licence is None else licensed(kept, self.name, self.licence)
        sections, limits = [], []
        if self.measured is not None:
            sections, limits = [*self.measured.sections()], [*self.measured.limits()]
        return card(self.model, self.name, self.licence, sections, limits, self.base)

    def _config(self) -> dict[str, Any]:
        tokenizer, config = self.model.assembly.tokenizer, self.model.config
        return {
            **({} if self.base is None else {"base": self.base}),
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


def _beside(model: Model, base: str) -> Model:
    """``model``, whose recipe says that the network adapts ``base``."""
    config = model.config
    if not base.strip():
        raise UsageError("--base is empty; give the name of a model on the hub, or a folder")
    if model.assembly.network.base is None:
        raise UsageError(
            f"--base {base}: network {config.network.use} of this model adapts no other one, which "
            "network.with.name and network.with.lora would say, so all of its weights are exported"
        )
    options = {**config.network.options, "name": base, "revision": None}
    network = config.network.model_copy(update={"options": options})
    changed = config.model_copy(update={"network": network})
    return replace(model, assembly=replace(model.assembly, config=changed))


def carried(model: Model) -> dict[str, Path]:
    """The documents in the model's folder that are of its weights, by their names, with their
    pictures. Those of weights that were trained since are not among them."""
    there = [model.folder / name for name in (EVALUATION, ACCEPTANCE)] if model.folder else []
    there = [path for path in there if path.is_file()]
    kept: dict[str, Path] = {}
    digest = model.digest() if there else ""
    for path in there:
        try:
            about = documents.shaped(documents.read(path), _Document)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {files.why(error)}") from error
        if about.subject.sha256 == digest:
            pictures = path.parent.glob(f"{path.stem}*.png")
            kept |= {file.name: file for file in (path, *filter(files.is_png, pictures))}
    return kept


class _Subject(documents.Shape):
    sha256: str


class _Document(documents.Shape):
    subject: _Subject


def refuse_code(origin: str, files: Iterable[str]) -> None:
    """Raise CheckpointError if ``files`` hold pickles or code, or are no model of dlmkit."""
    names = sorted(files)
    for suffixes, what in ((CODE, "code"), (PICKLES, "a pickle, which can run code")):
        unsafe = [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]
        if unsafe:
            raise CheckpointError(
                f"{origin} holds {unsafe[0]}: {what}. dlmkit reads tensors (safetensors), JSON and "
                "YAML alone; ask its author for a folder written by 'dlmkit export'"
            )
    missing = [name for name in (MANIFEST, RECIPE, CONFIG) if name not in names]
    if missing:
        raise CheckpointError(
            f"{origin} is no model of dlmkit: it has no {missing[0]}; such a folder is written by "
            "'dlmkit export'"
        )


def check_folder(folder: Path, origin: str) -> None:
    """Raise CheckpointError unless ``folder`` is an exported model, byte for byte."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    refuse_code(origin, names)
    try:
        verify(folder)
        config = documents.shaped(documents.read(folder / CONFIG), dict[str, Any])
    except (CheckpointError, OSError, ValueError) as error:
        words = str(error).replace(f"{folder}/", "").replace(f"{folder} holds", "it holds")
        raise CheckpointError(f"{origin}: {words}; fetch it again, or ask its author") from error
    if "auto_map" in config:
        raise CheckpointError(f"{origin}: {CONFIG} asks for remote code (auto_map); it is refused")


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
