"""The settings that a network of torchvision holds that was pickled whole, `torch.save(model)`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from maskrcnn.errors import ConfigError
from maskrcnn.files.pickle_modules import Module
from maskrcnn.weights.frameworks.importer import listed

# Module and attribute -> the setting, as `settings.ARGUMENTS` names it.
HELD = {
    "transform.min_size": "min_size",
    "transform.max_size": "max_size",
    "transform.image_mean": "image_mean",
    "transform.image_std": "image_std",
    "transform.size_divisible": "size_divisible",
    "rpn.anchor_generator.sizes": "sizes",
    "rpn.anchor_generator.aspect_ratios": "aspect_ratios",
    "rpn._pre_nms_top_n.training": "rpn_pre_nms_top_n_train",
    "rpn._pre_nms_top_n.testing": "rpn_pre_nms_top_n_test",
    "rpn._post_nms_top_n.training": "rpn_post_nms_top_n_train",
    "rpn._post_nms_top_n.testing": "rpn_post_nms_top_n_test",
    "rpn.nms_thresh": "rpn_nms_thresh",
    "rpn.proposal_matcher.high_threshold": "rpn_fg_iou_thresh",
    "rpn.proposal_matcher.low_threshold": "rpn_bg_iou_thresh",
    "rpn.fg_bg_sampler.batch_size_per_image": "rpn_batch_size_per_image",
    "rpn.fg_bg_sampler.positive_fraction": "rpn_positive_fraction",
    "roi_heads.score_thresh": "box_score_thresh",
    "roi_heads.nms_thresh": "box_nms_thresh",
    "roi_heads.detections_per_img": "box_detections_per_img",
    "roi_heads.proposal_matcher.high_threshold": "box_fg_iou_thresh",
    "roi_heads.fg_bg_sampler.batch_size_per_image": "box_batch_size_per_image",
    "roi_heads.fg_bg_sampler.positive_fraction": "box_positive_fraction",
    "roi_heads.box_coder.weights": "bbox_reg_weights",
    "roi_heads.box_roi_pool.sampling_ratio": "sampling_ratio",
    "roi_heads.box_roi_pool.canonical_scale": "canonical_scale",
    "roi_heads.box_roi_pool.canonical_level": "canonical_level",
}
# What our networks cannot follow, with the only value that they have.
FIXED = {
    "transform.fixed_size": None,
    "transform._skip_resize": False,
    "rpn.score_thresh": 0.0,
    "rpn.min_size": 1e-3,
    "rpn.box_coder.weights": (1.0, 1.0, 1.0, 1.0),
    "rpn.box_coder.bbox_xform_clip": math.log(1000 / 16),
    "roi_heads.box_coder.bbox_xform_clip": math.log(1000 / 16),
}
LEVELS = ["0", "1", "2", "3"]  # of the pyramid, P2 to P5; numbers before version 0.5
KNOWN = ("torch.", "torchvision.")  # where the classes of modules come from whose rules are known
CONVOLUTION, FROZEN_NORM = "torch.nn.modules.conv.Conv2d", "FrozenBatchNorm2d"


def held_settings(network: Module) -> tuple[dict[str, Any], list[str]]:
    """The settings in a pickled network, by the names of `settings.ARGUMENTS`, and what was assumed about it.

    Raises:
        ConfigError: the network has a setting that no network of ours has.
    """
    for name, expected in FIXED.items():
        value = _attribute(network, name, expected)
        if (tuple(value) if isinstance(value, list | tuple) else value) != expected:
            raise ConfigError(f"the pickled network has {name} {value!r}, which is not supported: expected {expected}")
    _check_convolutions(network)
    given = {argument: _attribute(network, name, None) for name, argument in HELD.items()}
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= _pools(network) | _epsilon(network)
    others = dict.fromkeys(one.kind for one in _inner(network) if not one.kind.startswith(KNOWN))
    if others:
        return settings, [f"{listed(others)} compute what torchvision's modules in their places do; no code was read"]
    return settings, []


def _pools(network: Module) -> dict[str, Any]:
    """The settings of the RoI layers of masks and keypoints. The box branch has the same levels and samples."""
    settings = {}
    box = _attribute(network, "roi_heads.box_roi_pool", None)
    levels = _attribute(network, "roi_heads.box_roi_pool.featmap_names", LEVELS)
    if not isinstance(levels, list | tuple) or [str(level) for level in levels] != LEVELS:
        raise ConfigError(
            f"the pickled network has RoI layers on the levels {levels}, which is not supported: expected {LEVELS}"
        )
    for part in ("mask", "keypoint"):
        pool = _attribute(network, f"roi_heads.{part}_roi_pool", None)
        if not isinstance(pool, Module) or not isinstance(box, Module):
            continue
        for name in ("featmap_names", "sampling_ratio", "canonical_scale", "canonical_level"):
            if pool.attributes.get(name) != box.attributes.get(name):
                raise ConfigError(
                    f"the pickled network has another {name} in {part}_roi_pool than in box_roi_pool, which is not "
                    "supported: expected the same"
                )
        side = pool.attributes.get("output_size")
        if isinstance(side, list | tuple) and len(set(map(repr, side))) == 1:
            settings[f"{part}_output_size"] = side[0]
    return settings


def _epsilon(network: Module) -> dict[str, Any]:
    """The epsilon of the norms of the backbone. Frozen norms had none before torchvision 0.6."""
    backbone = network.find("backbone.body")
    norms = [] if backbone is None else [one for one in _inner(backbone) if "running_var" in one.tensors]
    values = [one.attributes.get("eps", 0.0 if one.kind.endswith(FROZEN_NORM) else 1e-5) for one in norms]
    if len(set(map(repr, values))) > 1:
        raise ConfigError(
            f"the pickled network has norms with epsilons {min(values)} to {max(values)} in its backbone, which is not "
            "supported: expected one for all"
        )
    return {"norm_eps": values[0]} if values else {}


def _check_convolutions(network: Module) -> None:
    for one in _inner(network):
        dilation = one.attributes.get("dilation", (1, 1)) if one.kind == CONVOLUTION else (1, 1)
        if tuple(dilation) != (1, 1):
            raise ConfigError(f"the pickled network has convolutions with dilation {dilation}, which is not supported")


def _inner(module: Module) -> Iterator[Module]:
    yield module
    for child in module.children.values():
        yield from _inner(child)


def _attribute(network: Module, path: str, default: Any) -> Any:
    """The attribute or module with a dotted path, through modules, objects and dictionaries."""
    value: Any = network
    for name in path.split("."):
        inside = value.attributes | value.children if isinstance(value, Module) else value
        if not isinstance(inside, dict) or name not in inside:
            return default
        value = inside[name]
    return value
