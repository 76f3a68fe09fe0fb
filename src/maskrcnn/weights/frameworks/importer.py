"""The interface of an importer of another framework's checkpoints, and the steps that all importers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from maskrcnn.config import Config, ModelConfig
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import tensors_of
from maskrcnn.weights.frameworks.architecture import MissingTensorError, model_of
from maskrcnn.weights.frameworks.layout import check_image_channels
from maskrcnn.weights.frameworks.names import NameTable

LISTED = 20  # the most names in one message


@dataclass(frozen=True)
class Imported:
    """A checkpoint of another framework as a model of ours.

    Attributes:
        config: the config of our model, with the conventions of the framework.
        state: the `state_dict()` of our model.
        assumed: assumptions about what neither the file nor a config states, one sentence each.
        unused: unexpected names in the file.
    """

    config: Config
    state: dict[str, Tensor]
    assumed: tuple[str, ...]
    unused: tuple[str, ...]


class IncompleteError(WeightsError):
    """Tensors of the model are missing in the file, or have another shape.

    Attributes:
        partial: the import with only the tensors that fit.
    """

    def __init__(self, message: str, partial: Imported) -> None:
        super().__init__(message)
        self.partial = partial


class Importer(Protocol):
    """Opens the checkpoints of one framework."""

    @property
    def name(self) -> str:
        """The framework's name in provenances and on the command line."""

    def recognise(self, names: Collection[str]) -> bool:
        """Whether these are the tensor names of a detector of this framework."""

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        """Reads a config file of the framework as data, without running it.

        Raises:
            ConfigError: the file cannot be read, or is no such config.
        """

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        """A checkpoint as a model of ours.

        Args:
            settings: the result of `read_settings`. With None the settings in the checkpoint are used, and if there are
                none, those that the framework's own configs give to a model of these shapes.

        Raises:
            IncompleteError: tensors are missing or have another shape.
            WeightsError: the file holds another kind of model, or a setting contradicts the shapes.
            ConfigError: a setting is not supported, or has a value of an unexpected kind.
        """


class Exporter(Importer, Protocol):
    """An importer that also writes the weights of our models for its framework."""

    def export_state(self, config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our `state_dict()` in the names and layout of the framework.

        Raises:
            WeightsError: the framework does not support such a model.
        """


@dataclass(frozen=True)
class Renamed:
    """The tensors of a file by our names.

    Attributes:
        names: all names in the file.
        tensors: the tensors that have a counterpart here, by our names.
        theirs: our names -> the names in the file.
        table: the names of the framework.
    """

    names: tuple[str, ...]
    tensors: dict[str, Tensor]
    theirs: dict[str, str]
    table: NameTable

    def model(self, tensors: Mapping[str, Tensor] | None = None) -> ModelConfig:
        """The architecture of the model in the file.

        Args:
            tensors: `self.tensors` after a change of their rows.

        Raises:
            WeightsError: a tensor that determines the architecture is missing or has an odd shape, given by its name in
                the framework, or the backbone is no ResNet.
        """
        tensors = self.tensors if tensors is None else tensors
        try:
            return model_of(tensors)
        except MissingTensorError as error:
            name = self.table.their_names([error.name, *tensors]).get(error.name, error.name)
            found = f"no {name}" if error.shape is None else f"{name} of shape {error.shape}"
            raise WeightsError(
                f"expected a whole Mask R-CNN, found {found}, which determines the architecture"
            ) from None

    def converted(
        self, convert: Callable[[str, Tensor], Tensor], tensors: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The tensors in another layout.

        Args:
            convert: our name and a tensor -> the tensor in the other layout.
            tensors: as in `model`.

        Raises:
            WeightsError: names a tensor with a shape that cannot be converted.
        """
        result = {}
        for name, value in (self.tensors if tensors is None else tensors).items():
            try:
                result[name] = convert(name, value)
            except (RuntimeError, IndexError, TypeError, ArithmeticError):  # torch raises any of them for a shape
                raise WeightsError(
                    f"expected the tensors of a Mask R-CNN, found {self.theirs.get(name, name)} of shape "
                    f"{tuple(value.shape)}, which does not belong to the rest of the file"
                ) from None
        return result


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
    """The import of a file whose config and tensors are known.

    The tensors get the dtypes of the network. Batch counters of batch norm may be missing, because some frameworks do
    not store them for frozen norms; they are then 0.

    Args:
        found: tensors by our names, in our layout. It may hold more than those of the network.
        file: the tensors before the change to our layout.
        assumed: one sentence for each assumption about the settings.
        folded: our names of the tensors that were folded into others.
        ignored: a pattern of names in the file that are not reported as unexpected.

    Raises:
        IncompleteError: lists the tensors that are missing or of another shape, by their names in the framework.
    """
    check_image_channels(config, found)
    expected = tensors_of(config)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(".num_batches_tracked")}
    found = counters | dict(found)
    fitting = {name: value for name, value in expected.items() if name in found and found[name].shape == value.shape}
    complex_numbers = [file.theirs.get(name, name) for name in fitting if found[name].is_complex()]
    if complex_numbers:
        raise WeightsError(f"expected real numbers, found complex ones in {listed(complex_numbers)}")
    used = {file.theirs[name] for name in (*expected, *folded) if name in file.theirs}
    unused = tuple(name for name in file.names if name not in used and re.search(ignored, name) is None)
    state = {name: found[name].to(value.dtype).contiguous() for name, value in fitting.items()}
    imported = Imported(config, state, tuple(assumed), unused)
    if len(state) < len(expected):
        raise IncompleteError(_problems(expected, found, file), imported)
    return imported


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], file: Renamed) -> str:
    """A message that lists the tensors that are missing or of another shape, by their names in the framework."""
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
        "is the file complete, and is it a Mask R-CNN of this kind?"
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
    """The first `LISTED` different names in one line."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
