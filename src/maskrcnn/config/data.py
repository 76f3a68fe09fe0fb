"""Settings of images, their augmentation, and the categories of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from maskrcnn.config.channels import Channel
from maskrcnn.config.ranges import Count, Number, Pixels, Positive, Range, Share, require_ranges
from maskrcnn.config.rules import require

MOST_CHANNELS = 1000


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

    short_side: Pixels = 800  # shorter side in pixels after resizing
    long_side: Count = 1333  # longer side in pixels, at most
    # Scale factor of every image, in place of short_side, for objects of one natural size. long_side still holds.
    scale: Positive | None = None
    # Height and width of every network input, in place of the sides: the image is resized to fit inside and padded.
    fixed_size: tuple[Pixels, Pixels] | None = None
    divisor: Pixels = 32  # batches are padded at bottom and right to a multiple of this
    mean: tuple[Number, Number, Number] = (123.675, 116.28, 103.53)  # mean of the pixels, RGB, 0..255
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)  # standard deviation of the pixels, RGB
    # Names of the channels of images that are not RGB of 8 bits, which replace mean and std. Empty: RGB, or as many
    # channels as the images have if these are not 1 or 3.
    channels: tuple[Channel, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self, "image")
        require(
            len(set(self.channel_names)) == len(self.channels) <= MOST_CHANNELS,
            f"image.channels needs different names, and at most {MOST_CHANNELS}, found {', '.join(self.channel_names)}",
        )
        require(
            self.short_side <= self.long_side,
            f"image.short_side must be at most image.long_side, found {self.short_side} and {self.long_side}",
        )
        require(
            self.scale is None or self.fixed_size is None,
            "image.scale and image.fixed_size both set the size of the image: leave one of them None",
        )
        if self.fixed_size is not None:
            require(
                all(side % self.divisor == 0 for side in self.fixed_size),
                f"image.fixed_size must be multiples of image.divisor {self.divisor}, found {self.fixed_size}",
            )

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the channels; empty for RGB."""
        return tuple(channel.name for channel in self.channels)

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of the network input.

        Raises:
            ConfigError: the channels have not been measured.
        """
        if not self.channels:
            return self.mean, self.std
        missing = [channel.name for channel in self.channels if not channel.measured]
        require(
            not missing,
            f"image.channels: expected low, high, mean and std of every channel, found none of {', '.join(missing)}; "
            "training measures them",
        )
        return (
            tuple(channel.mean for channel in self.channels if channel.mean is not None),
            tuple(channel.std for channel in self.channels if channel.std is not None),
        )


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images."""

    scale_jitter: tuple[Positive, Positive] = (1.0, 1.0)  # range of a random scale factor
    crop: tuple[Pixels, Pixels] | None = None  # height and width of a random crop
    crop_object: Share = 0.5  # probability that a random crop must show a randomly chosen object
    flip_horizontal: Share = 0.5  # probability of a mirror image
    flip_vertical: Share = 0.0  # probability of an upside-down image
    quarter_turns: bool = False  # rotate by 0, 90, 180 or 270 degrees
    rotation: Annotated[float, Range(0, 180)] = 0.0  # rotate by up to so many degrees in both directions
    copy_paste: Share = 0.0  # probability that objects of another image are pasted over those of the image
    brightness: Share = 0.0  # strength of random changes, 0..1, as in torchvision's ColorJitter
    contrast: Share = 0.0  # strength of random changes, 0..1, as in torchvision's ColorJitter
    saturation: Share = 0.0  # strength of random changes, 0..1, as in torchvision's ColorJitter
    hue: Annotated[float, Range(0, 0.5)] = 0.0  # strength of random changes, 0..0.5, as in torchvision's ColorJitter
    blur: Annotated[float, Range(0, 100)] = 0.0  # largest standard deviation of a random blur, network-input pixels
    noise: Share = 0.0  # largest standard deviation of random noise, 1 is the range of the values

    def __post_init__(self) -> None:
        require_ranges(self, "augment")
        low, high = self.scale_jitter
        require(low <= high, f"augment.scale_jitter must be low <= high, found {self.scale_jitter}")
