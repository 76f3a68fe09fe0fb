"""The channels of images that are not RGB of 8 bits, such as satellite, thermal and fluorescence images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from maskrcnn.config.ranges import Number, Positive, Range, require_ranges
from maskrcnn.config.rules import require

Stretch = Literal["none", "percentile", "range"]
Percent = Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class Channel:
    """One channel of the images. Training measures what is None.

    `stretch` says how the stored values become the values from 0 to 255 that are resized and normalised: `none` leaves
    them as they are. `percentile` maps two percentiles of all training images to 0 and 255, and `range` maps `low` and
    `high` to these; values beyond are clipped.
    """

    name: str
    stretch: Stretch = "percentile"
    percentiles: tuple[Percent, Percent] = (0.5, 99.5)  # as in nnU-Net (Isensee et al. 2021)
    low: Number | None = None  # the value that becomes 0
    high: Number | None = None  # the value that becomes 255
    mean: Number | None = None  # mean of the stretched values
    std: Positive | None = None  # standard deviation of the stretched values

    def __post_init__(self) -> None:
        where = f"image.channels {self.name}"
        require_ranges(self, where)
        low, high = self.percentiles
        require(low < high, f"{where}: expected percentiles low < high, found {self.percentiles}")
        require(
            self.stretch != "range" or (self.low is not None and self.high is not None),
            f"{where}: stretch range needs low and high, found {self.low} and {self.high}",
        )
        require(
            self.low is None or self.high is None or self.low < self.high,
            f"{where}: expected low < high, found {self.low} and {self.high}",
        )

    @property
    def stretched(self) -> bool:
        """Whether the stretch is known."""
        return self.stretch == "none" or (self.low is not None and self.high is not None)

    @property
    def measured(self) -> bool:
        """Whether nothing is left to measure."""
        return self.stretched and self.mean is not None and self.std is not None
