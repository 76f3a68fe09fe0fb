"""Ground truth of a batch, padded to G slots an image; masks stay crops of their boxes in one flat buffer.

Legend: B images, G ground-truth slots an image, K keypoints, T bytes of all mask crops of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from maskrcnn.ops.mask_targets import MaskCrops


@dataclass(frozen=True)
class MaskBank:
    """Every instance's bitmap, cropped to its own box, in pixels of the ORIGINAL image.

    Nothing is resized or flipped: a mask target is sampled by mapping points of the network input
    back through `to_original`.

    Attributes:
        pixels: (T,) uint8 of 0 and 1, the crops one after another, each row by row.
        offsets: (B, G) int64, where each crop starts in `pixels`.
        sizes_hw: (B, G, 2) int64, height and width of each crop; 0 in empty slots and for objects without a mask,
            which take no part in the mask loss.
        origins_xy: (B, G, 2) int64, the original pixel of each crop's top left corner.
        to_original: (B, 2, 3) float32, maps continuous network-input (x, y, 1) to original (x, y): the inverse of each
            image's frame.
        image_hw: (B, 2) int64, size of each original image.
    """

    pixels: Tensor
    offsets: Tensor
    sizes_hw: Tensor
    origins_xy: Tensor
    to_original: Tensor
    image_hw: Tensor

    def select(self, image: Tensor, slot: Tensor) -> MaskCrops:
        """The masks of R objects.

        Args:
            image, slot: (R,) int64, positions in B and in G.
        """
        return MaskCrops(
            self.pixels,
            self.offsets[image, slot],
            self.sizes_hw[image, slot],
            self.origins_xy[image, slot],
            self.to_original[image],
            self.image_hw[image],
        )


@dataclass(frozen=True)
class Targets:
    """What the losses compare with. Boxes are continuous edges x1 y1 x2 y2 in network-input pixels.

    Attributes:
        boxes: (B, G, 4) float32; zeros in empty slots.
        labels: (B, G) int64, 0-based; -1 in empty slots and crowd slots.
        valid: (B, G) bool, an object to learn.
        crowd: (B, G) bool, a region to ignore: candidates lying mostly inside are neither positive nor negative.
        masks: the bitmaps, None when masks are not trained.
        keypoints: (B, G, K, 3) float32 x, y in network-input pixels and visibility 0 (not labelled or not in the
            image, x and y are zeros), 1 (hidden) or 2 (visible); None when the data have none.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    masks: MaskBank | None = None
    keypoints: Tensor | None = None
