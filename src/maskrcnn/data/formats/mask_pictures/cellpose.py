"""Reads the label image in a `<name>_seg.npy` of Cellpose (https://cellpose.readthedocs.io/en/latest/outputs.html)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrcnn.data.pictures import Picture
from maskrcnn.errors import DataError, WeightsError
from maskrcnn.files.arrays import read_pickled_npy
from maskrcnn.structures.values import short

SUFFIX = "_seg.npy"

_INSTEAD = "save the masks in Cellpose as PNG or TIFF"


def read_seg(file: Path, picture: Picture) -> np.ndarray:
    """(H, W) ids under the key `masks` of a pickled dictionary, of which no code is run.

    Raises:
        DataError: it cannot be read, holds no label image, or one of another size than the image.
    """
    try:
        content = read_pickled_npy(file, _INSTEAD)
    except WeightsError as error:
        raise DataError(str(error)) from None
    masks = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "iu":
        raise DataError(f"{file}: expected a dictionary with masks, an array of integers, found {short(masks)}")
    if masks.ndim != 2:
        raise DataError(
            f"{file}: expected masks of one image, found the shape {masks.shape}; save each plane as a file"
        )
    if picture.size is not None and masks.shape != picture.size:
        expected = f"{picture.size[1]} x {picture.size[0]}"
        raise DataError(
            f"{file}: expected masks of {expected} pixels, the size of the image, found "
            f"{masks.shape[1]} x {masks.shape[0]}"
        )
    return masks
