"""What a framework has to bring so that its checkpoints open here, and what all importers share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from maskrcnn.config import Config, ModelConfig
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.weights.frameworks.architecture import MissingTensorError, model_of
from maskrcnn.weights.frameworks.names import NameTable

LISTED = 20  # names in one message


@dataclass(frozen=True)
class Imported:
    """
    Attributes:
        config: of our model, with the conventions of the framework.
        state: our state_dict.
        assumed: what neither the file nor a config said, one sentence each.
        unused: names in the file that have no place in the model.
    """

    config: Config
    state: dict[str, Tensor]
    assumed: tuple[str, ...]
    unused: tuple[str, ...]


class IncompleteError(WeightsError):
    """Tensors of the model that the file describes are missing, or have another shape.

    Attributes:
        partial: the import, with those tensors alone that fit.
    """

    def __init__(self, message: str, partial: Imported) -> None:
        super().__init__(message)
        self.partial = partial


class Importer(Protocol):
    """Opens the checkpoints of one framework."""

    @property
    def name(self) -> str:
        """As it is written in the provenance of a model and on the command line."""

    def recognise(self, names: Collection[str]) -> bool:
        """Whether tensors of these names are a model of this framework."""

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        """The framework's own config file, read as data.

        Raises:
            ConfigError: the file cannot be read as such a config.
        """

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        """A checkpoint as our model.

        Args:
            settings: what `read_settings` gives. With None the settings that lie in the file count, and where none do,
                what the shapes say and the framework's defaults.

        Raises:
            IncompleteError: tensors are missing or have another shape.
            WeightsError: the file is of another kind of model, or does not fit the settings.
            ConfigError: a setting asks for what this package does not support, or is of an unexpected kind.
        """


class Exporter(Importer, Protocol):
    """Writes the weights of our models for its framework, too."""

    def export_state(self, config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our `state_dict()` in the names and layout of the framework.

        Raises:
            WeightsError: the framework has no such model.
        """


@dataclass(frozen=True)
class Renamed:
    """The tensors of a file by our names.

    Attributes:
        names: all names of the file.
        tensors: those that have a counterpart here, by our names.
        theirs: our names -> the names in the file.
    """

    names: tuple[str, ...]
    tensors: dict[str, Tensor]
    theirs: dict[str, str]
    table: NameTable

    def model(self, tensors: Mapping[str, Tensor] | None = None) -> ModelConfig:
        """The architecture of the file.

        Args:
            tensors: `self.tensors`, with the rows that our model has.

        Raises:
            WeightsError: what every model has is missing; named as the file would name it.
        """
        tensors = self.tensors if tensors is None else tensors
        try:
            return model_of(tensors)
        except MissingTensorError as error:
            name = self.table.their_names([error.name, *tensors]).get(error.name, error.name)
            raise WeightsError(f"expected a whole Mask R-CNN, found no {name}, which says what the model is") from None


def renamed(tensors: Mapping[str, Tensor], table: NameTable) -> Renamed:
    """The tensors of a file by our names."""
    ours = table.our_names(tensors)
    return Renamed(
        tuple(tensors),
        {our: tensors[name] for name, our in ours.items()},
        {our: name for name, our in ours.items()},
        table,
    )


def finished(
    config: Config,
    found: Mapping[str, Tensor],
    file: Renamed,
    assumed: Iterable[str],
    *,
    folded: Collection[str] = (),
    ignored: str = r"(?!)",
) -> Imported:
    """The import of a file whose settings and tensors are known.

    Every tensor of the network must be there, and becomes float32. Only the counters of batch norm may be missing, as
    they are where a framework froze it; they become 0.

    Args:
        found: tensors by our names, in our layout; the network may lack some of them.
        folded: our names of tensors in the file that went into others.
        ignored: a pattern of names in the file that need no place in the model.

    Raises:
        IncompleteError: tensors are missing or of another shape; lists them by their names in the file.
    """
    with torch.device("meta"):
        expected = build_model(config).state_dict()
    counters = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(".num_batches_tracked")}
    found = counters | dict(found)
    fitting = {name: value for name, value in expected.items() if name in found and found[name].shape == value.shape}
    used = {file.theirs[name] for name in (*expected, *folded) if name in file.theirs}
    unused = tuple(name for name in file.names if name not in used and re.search(ignored, name) is None)
    state = {name: found[name].to(value.dtype).contiguous() for name, value in fitting.items()}
    imported = Imported(config, state, tuple(assumed), unused)
    if len(state) < len(expected):
        raise IncompleteError(_problems(expected, found, file), imported)
    return imported


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], file: Renamed) -> str:
    """Says which tensors are missing or have another shape, by their names in the file."""
    names = file.table.their_names(expected) | file.theirs
    missing = [names.get(name, name) for name in expected if name not in found]
    wrong = [
        f"{names.get(name, name)} is {tuple(found[name].shape)} and should be {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    parts = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (("missing", missing), ("of another shape", wrong))
        if names
    ]
    return (
        f"the tensors do not make a whole model: {'; '.join(parts)}; "
        "is the file whole, and is it a Mask R-CNN of this kind?"
    )


def exported_names(table: NameTable, state: Iterable[str], framework: str) -> dict[str, str]:
    """Our names -> the framework's.

    Raises:
        WeightsError: the framework has no name for one of them.
    """
    state = list(state)
    names = table.their_names(state)
    lacking = [name for name in state if name not in names]
    if lacking:
        raise WeightsError(
            f"{framework} has no counterpart of {listed(lacking[:3])}: "
            "the weights of this model cannot be written for it"
        )
    return names


def listed(names: Iterable[str]) -> str:
    """Names in one line, each once and the first twenty of them."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
