"""Converts tensors between torchvision's layout and ours.

In torchvision's layout the background is the first class, and the row of a COCO class is its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from maskrcnn.config import Config, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.weights.frameworks.importer import exported_names
from maskrcnn.weights.frameworks.layout import CLASSES, DELTAS, MASKS, Layout
from maskrcnn.weights.frameworks.torchvision.names import TABLE

LAYOUT = Layout(bgr=False)


def class_rows(config: Config) -> tuple[list[int], list[int]]:
    """torchvision's rows of our categories, and its unused rows. Row 0 is the background.

    If there are unused classes, the row of a category is its id.
    """
    used = list(range(1, config.model.num_classes + 1))
    extra = config.conventions.detections.unused_classes
    if extra:
        used = [category.id for category in config.categories if isinstance(category.id, int)]
    rows = range(1, config.model.num_classes + extra + 1)
    return used, sorted(set(rows) - set(used))


def our_layout(name: str, value: Tensor, config: Config) -> Tensor:
    """One of torchvision's tensors, or its gradient, in our layout. `name` is ours."""
    used, unused = class_rows(config)
    if CLASSES.match(name):
        return value[[*used, 0, *unused]]
    if DELTAS.match(name):
        return value.unflatten(0, (-1, 4))[used].flatten(0, 1)
    if MASKS.match(name):
        return value[used]
    return LAYOUT.to_ours(name, value, config.model)


def _their_layout(name: str, value: Tensor, config: Config) -> Tensor:
    """The inverse of `our_layout`. Rows that we do not have are zeros."""
    used, unused = class_rows(config)
    rows = 1 + len(used) + len(unused)
    if CLASSES.match(name):
        return _spread(value, [*used, 0, *unused], rows)
    if DELTAS.match(name):
        return _spread(value.unflatten(0, (-1, 4)), used, rows).flatten(0, 1)
    if MASKS.match(name):
        return _spread(value, used, rows)
    return LAYOUT.to_theirs(name, value, config.model).contiguous()


def _spread(value: Tensor, to: Sequence[int], rows: int) -> Tensor:
    """A tensor with `rows` rows: the rows of `value` at the indices `to`, and zeros elsewhere."""
    result = value.new_zeros((rows, *value.shape[1:]))
    result[list(to)] = value
    return result


def our_state(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The tensors of torchvision's `state_dict()` that have a counterpart here, by our names and in our layout."""
    ours = {our: state[name] for name, our in TABLE.our_names(state).items()}
    return {name: our_layout(name, value, config) for name, value in without_counters(ours, config).items()}


def without_counters(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Tensors by our names, without the batch counters of the backbone if the config has frozen batch norm."""
    backbone = config.model.backbone
    frozen = isinstance(backbone, ResNetConfig) and backbone.norm == "frozen_batch_norm"
    return {
        name: value
        for name, value in tensors.items()
        if not (frozen and name.startswith("backbone.") and name.endswith(".num_batches_tracked"))
    }


def their_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state_dict()` in torchvision's names and layout, complete for its strict `load_state_dict`.

    Rows that we do not keep (box offsets and masks of the background and of unused classes) are zeros.

    Raises:
        WeightsError: torchvision does not support such a model. The message lists the settings.
    """
    _check_exportable(config)
    names = exported_names(TABLE, state, "torchvision")
    return {their: _their_layout(name, state[name], config) for name, their in names.items()}


def _check_exportable(config: Config) -> None:
    model = config.model
    backbone, box, mask = model.backbone, model.box_head, model.mask_head
    resnet = backbone if isinstance(backbone, ResNetConfig) else None
    unused = config.conventions.detections.unused_classes
    rows = range(1, model.num_classes + unused + 1)
    unsupported = {
        f"model.neck {model.neck}": model.neck != "fpn",
        "a backbone of timm": resnet is None,
        "backbone.stride_in_1x1": resnet and resnet.stride_in_1x1,
        "backbone.deformable_stages": resnet and resnet.deformable_stages,
        "group_norm": "group_norm" in {part.norm for part in (resnet, box, mask) if part} | {model.fpn_norm},
        "box_head.cascade_ious": box.cascade_ious,
        "box_head.class_agnostic": box.class_agnostic,
        "mask_head.point_rend": mask and mask.point_rend,
        "mask_head.class_agnostic": mask and mask.class_agnostic,
        "mask_head.kind mlp": mask and mask.kind == "mlp",
        "mask_head.loss softmax": mask and mask.loss == "softmax",
        "category ids beyond the rows of detections.unused_classes": unused
        and not all(category.id in rows for category in config.categories),
    }
    if any(unsupported.values()):
        found = ", ".join(name for name, used in unsupported.items() if used)
        raise WeightsError(f"torchvision has no model with {found}: the weights cannot be written for it")
