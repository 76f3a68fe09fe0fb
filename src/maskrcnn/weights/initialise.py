"""The weights that training begins from: a detector, or a backbone trained on ImageNet. The file is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from maskrcnn.config import (
    Config,
    ImageConfig,
    KeypointHeadConfig,
    ModelConfig,
    ResNetConfig,
    TimmConfig,
    config_from_dict,
    config_to_dict,
)
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.backbones import (
    BACKBONE_STEM,
    STD,
    BackboneFile,
    check_rules,
    fill_backbone,
    fill_timm,
    read_backbone,
    whole_backbone,
    with_rules_of,
)
from maskrcnn.weights.class_layers import CLASS_LAYERS, fill_classes
from maskrcnn.weights.frameworks.architecture import backbone_of
from maskrcnn.weights.frameworks.layout import STEM
from maskrcnn.weights.model_file import SavedModel
from maskrcnn.weights.named import initial_file
from maskrcnn.weights.open import detector_in, holds_detector
from maskrcnn.weights.stem import adapted_stem, stem_sentence


class InitialWeights(Protocol):
    """Weights that have been read from a file, before the network is built."""

    @property
    def assumed(self) -> Sequence[str]:
        """What the import of another framework's checkpoint assumed, one sentence each."""

    @property
    def whole(self) -> bool:
        """Whether they are those of a whole detector."""

    @property
    def backbone(self) -> ResNetConfig | TimmConfig | None:
        """The backbone that they fit; None: one of timm, which the config names."""

    def with_conventions(self, config: Config) -> Config:
        """The config, with the rules of the weights' training in place of those settings that are at their defaults."""

    def fill(self, network: MaskRCNN, config: Config) -> str:
        """Copies the weights into a new network of `config`.

        Returns:
            A sentence that says which weights were copied.

        Raises:
            WeightsError: the weights do not fit.
            ConfigError: the config has other rules than the training of the weights.
        """


@dataclass(frozen=True)
class WeightsFile:
    """The weights that training begins from, and how their file is opened.

    Attributes:
        source: any source that `open_weights` takes, ImageNet weights as a file or an address, or the name of
            torchvision's ImageNet weights. For a backbone of timm also `timm`: timm downloads its own weights.
        config_file, allow_partial, part: as in `open_weights`.
    """

    source: Path | str
    config_file: Path | str | None = None
    allow_partial: bool = False
    part: str | None = None


def read_initial_weights(weights: Path | str | WeightsFile, config: Config) -> InitialWeights:
    """Reads the weights that training begins from.

    Args:
        weights: the file, or only its source.
        config: the config of the training.

    Raises:
        WeightsError: the file cannot be read, or holds a model that is no Mask R-CNN.
        ConfigError: a setting of another framework's checkpoint is not supported.
    """
    file = weights if isinstance(weights, WeightsFile) else WeightsFile(weights)
    source = file.source
    is_timm = isinstance(config.model.backbone, TimmConfig)
    if is_timm and str(source) == "timm":
        return TimmWeights(str(source), None)
    checkpoint = read_checkpoint(initial_file(source), file.part)
    if holds_detector(checkpoint, source):
        saved = detector_in(checkpoint, source, file.config_file, allow_partial=file.allow_partial)
        saved.check()  # training builds a network by its config
        return DetectorWeights(saved)
    if is_timm:
        return TimmWeights(str(source), checkpoint.tensors)
    return BackboneWeights(str(source), read_backbone(checkpoint))


@dataclass(frozen=True)
class DetectorWeights:
    """A whole detector. If its categories are others than those of the new network, classes are matched by name."""

    saved: SavedModel
    whole: bool = True

    @property
    def backbone(self) -> ResNetConfig | TimmConfig | None:
        return self.saved.config.model.backbone

    @property
    def assumed(self) -> Sequence[str]:
        provenance = self.saved.provenance
        return provenance["assumed"] if provenance.get("imported_from") == self.saved.source else ()

    def with_conventions(self, config: Config) -> Config:
        return with_conventions(config, self.saved.config)

    def fill(self, network: MaskRCNN, config: Config) -> str:
        source, given, image = self.saved.source, dict(self.saved.state), config.image
        _require_backbone(source, self.saved.config.model.backbone, config)
        same_classes = self.saved.config.categories == config.categories
        classes = "" if same_classes else fill_classes(network, given, self.saved.config, config)
        adapted = ""
        if STEM in given:
            adapted = stem_sentence(given[STEM], image)
            given[STEM] = adapted_stem(given[STEM], self.saved.config.image, image)
        own = {
            name: value for name, value in network.state_dict().items() if same_classes or not CLASS_LAYERS.match(name)
        }
        for name, value in own.items():
            if name not in given or given[name].shape != value.shape:
                found = tuple(given[name].shape) if name in given else "nothing"
                raise WeightsError(
                    f"{source}: {name} should be {tuple(value.shape)}, found {found}; "
                    "train with the preset and model settings that the file was made with"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(given[name])
        return f"weights of {source}{classes}{adapted}"


@dataclass(frozen=True)
class BackboneWeights:
    """A ResNet trained on ImageNet. Its rules are the mean and standard deviation of pixels, and where they differ from
    ours the place of its strides, the epsilon of its norms and the padding of its first pooling."""

    source: str
    file: BackboneFile
    assumed: Sequence[str] = ()
    whole: bool = False

    @property
    def backbone(self) -> ResNetConfig | TimmConfig | None:
        return backbone_of({f"backbone.{name}": value for name, value in self.file.state.items()})

    def with_conventions(self, config: Config) -> Config:
        return with_rules_of(config, self.file)

    def fill(self, network: MaskRCNN, config: Config) -> str:
        _require_backbone(self.source, self.backbone, config)
        check_rules(config, self.file)
        stem = self.file.state[BACKBONE_STEM]
        trained = ImageConfig(std=self.file.rules.get(STD, ImageConfig.std))
        state = self.file.state | {BACKBONE_STEM: adapted_stem(stem, trained, config.image)}
        said = fill_backbone(whole_backbone(network), replace(self.file, state=state), self.source)
        return said + stem_sentence(stem, config.image)


@dataclass(frozen=True)
class TimmWeights:
    """A backbone of timm.

    Attributes:
        tensors: the tensors of timm's whole model. With None timm downloads its own weights.
    """

    source: str
    tensors: dict[str, Tensor] | None
    assumed: Sequence[str] = ()
    whole: bool = False
    backbone: None = None

    def with_conventions(self, config: Config) -> Config:
        return config

    def fill(self, network: MaskRCNN, config: Config) -> str:
        return fill_timm(cast(TimmBackbone, network.backbone), self.tensors, self.source)


def _require_backbone(source: Path | str, found: ResNetConfig | TimmConfig | None, config: Config) -> None:
    expected = config.model.backbone
    if found is not None and found.name != expected.name:
        raise WeightsError(
            f"{source}: expected weights for the backbone of the settings, {expected.name}, found weights of "
            f"{found.name}; choose a preset with that backbone or other weights"
        )


def with_conventions(config: Config, trained: Config) -> Config:
    """`config`, with the detector's model, image and convention settings in place of those at their defaults.

    The categories are the detector's. The training settings and the choice of heads stay.

    Args:
        trained: the config of the detector.
    """
    # Only dictionaries with the same keys are merged: settings of another kind of backbone or of a missing head stay.
    mine, theirs, defaults = (config_to_dict(one) for one in (config, trained, Config()))
    keypoints = config_to_dict(Config(model=ModelConfig(keypoint_head=KeypointHeadConfig())))
    defaults["model"]["keypoint_head"] = keypoints["model"]["keypoint_head"]
    chosen = {part: _chosen(mine[part], theirs[part], defaults[part]) for part in ("model", "image", "conventions")}
    chosen["model"]["num_classes"] = theirs["model"]["num_classes"]
    return config_from_dict(mine | chosen | {"categories": theirs["categories"]})


def _chosen(mine: Any, theirs: Any, default: Any) -> Any:
    """`theirs` where `mine` is the default, leaf by leaf in nested dictionaries with the same keys."""
    if not isinstance(mine, dict) and not isinstance(theirs, dict):
        return theirs if mine == default else mine
    if not (isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys()):
        return mine
    defaults = default if isinstance(default, dict) else {}
    return {name: _chosen(mine[name], theirs[name], defaults.get(name)) for name in mine}
