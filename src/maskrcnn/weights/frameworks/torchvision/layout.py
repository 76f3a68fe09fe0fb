"""torchvision's layout: the background is its first class, and a class of COCO has the row of its id."""

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
    """Which of torchvision's rows of classes hold our categories, and which are unused; row 0 is the background.

    Where classes are unused, a row is the id of its category.
    """
    used = list(range(1, config.model.num_classes + 1))
    extra = config.conventions.detections.unused_classes
    if extra:
        used = [category.id for category in config.categories if isinstance(category.id, int)]
    rows = range(1, config.model.num_classes + extra + 1)
    return used, sorted(set(rows) - set(used))


def our_layout(name: str, value: Tensor, config: Config) -> Tensor:
    """One of torchvision's tensors (or its gradient) as our network stores it; `name` is ours."""
    used, unused = class_rows(config)
    if CLASSES.match(name):
        return value[[*used, 0, *unused]]
    if DELTAS.match(name):
        return value.unflatten(0, (-1, 4))[used].flatten(0, 1)
    if MASKS.match(name):
        return value[used]
    return LAYOUT.to_ours(name, value, config.model)


def _their_layout(name: str, value: Tensor, config: Config) -> Tensor:
    """The inverse of `our_layout`; rows that we do not have are zeros."""
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
    """The rows of `value` as rows `to` of a tensor of that many rows, with zeros elsewhere."""
    wide = value.new_zeros((rows, *value.shape[1:]))
    wide[list(to)] = value
    return wide


def our_state(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Those tensors of torchvision's `state_dict()` that have a counterpart here, as the network of `config` has them.

    A norm that is frozen counts nothing: where the config has such norms, torchvision's counters are left out.
    """
    backbone = config.model.backbone
    frozen = isinstance(backbone, ResNetConfig) and backbone.norm == "frozen_batch_norm"
    return {
        our: our_layout(our, state[name], config)
        for name, our in TABLE.our_names(state).items()
        if not (frozen and our.startswith("backbone.") and our.endswith(".num_batches_tracked"))
    }


def their_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state_dict()` in torchvision's names and layout: its constructors open it strictly, with as many classes as
    rows. Rows that we do not keep (boxes and masks of the background and of unused classes) are zeros.

    Raises:
        WeightsError: torchvision has no such architecture; says which setting it is.
    """
    _check_exportable(config)
    names = exported_names(TABLE, state, "torchvision")
    return {their: _their_layout(name, state[name], config) for name, their in names.items()}


def _check_exportable(config: Config) -> None:
    model = config.model
    backbone, box, mask = model.backbone, model.box_head, model.mask_head
    norms: set[str] = {model.fpn_norm, box.norm, "none" if mask is None else mask.norm}
    problems = [f"model.neck {model.neck}"] if model.neck != "fpn" else []
    if isinstance(backbone, ResNetConfig):
        norms |= {backbone.norm}
        problems += ["backbone.stride_in_1x1"] if backbone.stride_in_1x1 else []
        problems += ["backbone.deformable_stages"] if backbone.deformable_stages else []
    else:
        problems += ["a backbone of timm"]
    problems += ["group_norm"] if "group_norm" in norms else []
    problems += ["box_head.cascade_ious"] if box.cascade_ious else []
    problems += ["box_head.class_agnostic"] if box.class_agnostic else []
    if mask is not None:
        problems += ["mask_head.point_rend"] if mask.point_rend is not None else []
        problems += ["mask_head.class_agnostic"] if mask.class_agnostic else []
        problems += ["mask_head.kind mlp"] if mask.kind == "mlp" else []
        problems += ["mask_head.loss softmax"] if mask.loss == "softmax" else []
    unused = config.conventions.detections.unused_classes
    rows = range(1, model.num_classes + unused + 1)
    if unused and not all(category.id in rows for category in config.categories):
        problems += ["detections.unused_classes and ids of categories beyond its rows"]
    if problems:
        raise WeightsError(f"torchvision has no model with {', '.join(problems)}: its weights cannot be written for it")
