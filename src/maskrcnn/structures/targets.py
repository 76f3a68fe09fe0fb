"""Ground truth of a batch, padded to G objects per image. Masks are crops in one flat buffer.

Legend: B images, G ground-truth slots per image, K keypoints, T bytes of all mask crops of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from maskrcnn.ops.mask_targets import MaskCrops


@dataclass(frozen=True)
class MaskBank:
    """The mask of every object as a bitmap of its tight box, in pixels of the ORIGINAL image.

    Bitmaps are not resized or flipped. Mask targets are sampled by mapping points of the network input through
    `to_original`.

    Attributes:
        pixels: (T,) uint8 of 0 and 1, the concatenated crops, each in row-major order.
        offsets: (B, G) int64, start of each crop in `pixels`.
        sizes_hw: (B, G, 2) int64, height and width of each crop; 0 in empty slots and for objects without a mask,
            which the mask loss ignores.
        origins_xy: (B, G, 2) int64, the original pixel at each crop's top left corner.
        to_original: (B, G, 2, 3) float32, maps continuous network-input (x, y, 1) to original (x, y): the inverse of
            the frame of each object. Objects that were pasted come from another image with a frame of its own.
        image_hw: (B, G, 2) int64, height and width of the original image of each object.
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
            image, slot: (R,) int64, indices of the image (below B) and of the slot (below G).
        """
        return MaskCrops(
            self.pixels,
            self.offsets[image, slot],
            self.sizes_hw[image, slot],
            self.origins_xy[image, slot],
            self.to_original[image, slot],
            self.image_hw[image, slot],
        )


@dataclass(frozen=True)
class Targets:
    """The ground truth for the losses.

    Attributes:
        boxes: (B, G, 4) float32, continuous edges x1 y1 x2 y2 in network-input pixels; zeros in empty slots.
        labels: (B, G) int64, 0-based; -1 in empty slots and crowd slots.
        valid: (B, G) bool: slots with an object to learn.
        crowd: (B, G) bool: crowd regions. Anchors and RoIs mostly inside one are neither positive nor negative.
        masks: the bitmaps, or None.
        keypoints: (B, G, K, 3) float32 x, y in network-input pixels and visibility: 1 (hidden), 2 (visible), or 0 (not
            labelled or outside the network input; x and y are 0). None when no category has keypoints.
        seeds: (B,) int64. All that the losses draw at random for an image follows from its seed, whatever the batch;
            None: torch's generator.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    masks: MaskBank | None = None
    keypoints: Tensor | None = None
    seeds: Tensor | None = None
