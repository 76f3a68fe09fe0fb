"""What an exported graph cannot hold, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn.config import Config, ResNetConfig
from maskrcnn.errors import ConfigError
from maskrcnn.predict.exported import ExportFormat

if TYPE_CHECKING:
    from maskrcnn.export.network import MaskOutput

NO_OPERATOR = "ONNX has no operator for it"


def require_exportable(
    config: Config,
    form: ExportFormat = "onnx",
    masks: MaskOutput | None = None,
    *,
    resize: bool = False,
    int8: bool = False,
) -> None:
    """Checks before the work that a network of this config can be exported.

    Args:
        masks: as in `export_model`.
        resize: whether the graph also resizes images.
        int8: whether it is calibrated on images.

    Raises:
        ConfigError: names the first part that cannot, with the reason.
    """
    model, rules = config.model, config.conventions
    mask, backbone = model.mask_head, model.backbone
    problems = {
        f"rois.op {model.rois.op}": model.rois.op != "align" and NO_OPERATOR,
        f"rois.reduce {model.rois.reduce}": model.rois.reduce == "max"
        and "the maxima of ONNX's RoiAlign are those of weighted cells, not those of samples",
        "conventions.features.crop_and_resize (Matterport)": rules.features.crop_and_resize and NO_OPERATOR,
        "mask_head.point_rend": mask is not None
        and mask.point_rend is not None
        and "its number of subdivided points is no fixed graph",
        "backbone.deformable_stages": isinstance(backbone, ResNetConfig)
        and bool(backbone.deformable_stages)
        and "ONNX Runtime has no deformable convolution",
        f"conventions.pixels.letterbox {rules.pixels.letterbox}": rules.pixels.letterbox != "none"
        and "the graph has no input for where the image lies in its padding",
        "conventions.detections.whole_pixels": rules.detections.whole_pixels and "the graph does not round boxes",
        f"conventions.boxes.end {rules.boxes.end}": rules.boxes.end == "last_pixel" and "the graph has no such boxes",
        f"conventions.masks.paste {rules.masks.paste}": rules.masks.paste == "whole_box"
        and "the graph has no such rule",
    }
    for part, reason in problems.items():
        if reason:
            raise ConfigError(f"this model cannot be exported because of {part}: {reason}; use it in PyTorch")
    if form == "torch":
        unpackaged = {
            "--precision int8": int8,
            "--with-resize": resize,
            f"--masks {masks}": masks not in (None, "probs"),
            "keypoints, whose decoding is a loop over boxes": model.keypoint_head is not None,
        }
        for part, there in unpackaged.items():
            if there:
                raise ConfigError(f"a package of --format torch has no {part}: choose --format onnx")
    if resize and int8:
        raise ConfigError("int8 is calibrated on resized images: leave out --with-resize, or --precision int8")
    unresized = {
        f"conventions.pixels.kernel {rules.pixels.kernel}": rules.pixels.kernel == "truncated",
        f"conventions.pixels.rounding {rules.pixels.rounding}": rules.pixels.rounding == "half_even",
        f"conventions.pixels.min_scale {rules.pixels.min_scale}": rules.pixels.min_scale > 0,
        "image.channels, whose values are stretched first": bool(config.image.channels),
    }
    for part, there in unresized.items():
        if resize and there:
            raise ConfigError(f"the graph has no operators for {part}: export without --with-resize")
