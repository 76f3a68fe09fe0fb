"""Settings of images, their augmentation, and the categories of a data set."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn.config.rules import require


@dataclass(frozen=True)
class Category:
    """One class of the data set. Labels are positions in `Config.categories`."""

    id: int | str  # id of the category in the data set
    name: str
    keypoints: tuple[str, ...] = ()  # names of the keypoints; empty for a class without keypoints
    skeleton: tuple[tuple[int, int], ...] = ()  # limbs for drawing, pairs of 0-based positions in `keypoints`
    sigmas: tuple[float, ...] = ()  # spread of each keypoint in OKS; empty: `evaluation/oks.py` has defaults

    def __post_init__(self) -> None:
        require(
            len(set(self.keypoints)) == len(self.keypoints),
            f"category {self.name}: expected keypoints with different names, found {', '.join(self.keypoints)}",
        )
        require(
            all(0 <= end < len(self.keypoints) for limb in self.skeleton for end in limb),
            f"category {self.name}: skeleton connects positions 0..{len(self.keypoints) - 1} of its "
            f"{len(self.keypoints)} keypoints, found {self.skeleton}",
        )
        require(
            len(self.sigmas) in (0, len(self.keypoints)) and all(0 < sigma < 1 for sigma in self.sigmas),
            f"category {self.name}: expected sigmas as {len(self.keypoints)} numbers between 0 and 1, one for each of "
            f"its keypoints, found {list(self.sigmas)}",
        )


@dataclass(frozen=True)
class ImageConfig:
    """How an image becomes network input, before augmentation."""

    short_side: int = 800  # shorter side in pixels after resizing
    long_side: int = 1333  # longer side in pixels, at most
    # Scale factor of every image, in place of short_side, for objects of one natural size. long_side still holds.
    scale: float | None = None
    # Height and width of every network input, in place of the sides: the image is resized to fit inside and padded.
    fixed_size: tuple[int, int] | None = None
    divisor: int = 32  # batches are padded at bottom and right to a multiple of this
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # mean of the pixels, RGB, 0..255
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # standard deviation of the pixels, RGB

    def __post_init__(self) -> None:
        require(
            0 < self.short_side <= self.long_side,
            f"image.short_side must lie in 1..long_side, found {self.short_side} with long_side {self.long_side}",
        )
        require(self.scale is None or self.scale > 0, f"image.scale must be positive, found {self.scale}")
        require(
            self.scale is None or self.fixed_size is None,
            "image.scale and image.fixed_size both set the size of the image: leave one of them None",
        )
        require(self.divisor > 0, f"image.divisor must be positive, found {self.divisor}")
        if self.fixed_size is not None:
            require(
                all(side > 0 and side % self.divisor == 0 for side in self.fixed_size),
                f"image.fixed_size must be positive multiples of image.divisor {self.divisor}, found {self.fixed_size}",
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images."""

    scale_jitter: tuple[float, float] = (1.0, 1.0)  # range of a random scale factor
    crop: tuple[int, int] | None = None  # height and width of a random crop
    flip_horizontal: float = 0.5  # probability of a mirror image
    flip_vertical: float = 0.0  # probability of an upside-down image
    quarter_turns: bool = False  # rotate by 0, 90, 180 or 270 degrees
    brightness: float = 0.0  # strength of random changes, 0..1, as in torchvision's ColorJitter
    contrast: float = 0.0  # strength of random changes, 0..1, as in torchvision's ColorJitter
    saturation: float = 0.0  # strength of random changes, 0..1, as in torchvision's ColorJitter
    hue: float = 0.0  # strength of random changes, 0..0.5, as in torchvision's ColorJitter

    def __post_init__(self) -> None:
        low, high = self.scale_jitter
        require(0 < low <= high, f"augment.scale_jitter must be 0 < low <= high, found {self.scale_jitter}")
        for name in ("flip_horizontal", "flip_vertical"):
            require(
                0 <= getattr(self, name) <= 1,
                f"augment.{name} is a probability and must lie in 0..1, found {getattr(self, name)}",
            )
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"augment.{name} must lie in 0..1, found {getattr(self, name)}")
        require(0 <= self.hue <= 0.5, f"augment.hue must lie in 0..0.5, found {self.hue}")
