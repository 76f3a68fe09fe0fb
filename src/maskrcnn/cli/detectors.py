"""The detector that a command runs: a model, with test-time augmentation and tiles around it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from maskrcnn.cli.flags import Flag
from maskrcnn.cli.opening import Computing, Opening
from maskrcnn.errors import ConfigError

if TYPE_CHECKING:
    from maskrcnn.predict import Augmented, Predictor, Tiled

Tta = Annotated[Flag, tyro.conf.arg(help="Test-time augmentation: merge views of three sizes, mirrored and not; slow.")]
TileSize = Annotated[
    int | None,
    tyro.conf.arg(help="Cut images into tiles of this side in pixels, and merge what is found; for large ones."),
]
Overlap = Annotated[
    int | None, tyro.conf.arg(help="Pixels that tiles share, more than the largest object has; default: a quarter.")
]


def with_views_and_tiles(
    model: Predictor, tta: bool, tiles: int | None, overlap: int | None
) -> Predictor | Augmented | Tiled:
    """The detector that the flags describe. Tiles that do not suit the model get a remark on stderr.

    Raises:
        ConfigError: the overlap has no tiles, or one of the values cannot be used with this model.
    """
    from maskrcnn.predict import Tiled
    from maskrcnn.predict.tiles import remark_on_size

    detector = _detector(model, tta, tiles, overlap)
    if isinstance(detector, Tiled) and (remark := remark_on_size(model, detector.tiling)):
        _note(remark)
    return detector


def _detector(model: Predictor, tta: bool, tiles: int | None, overlap: int | None) -> Predictor | Augmented | Tiled:
    from maskrcnn.predict import Augmented, Tiled, Tiling

    if tiles is None and overlap is not None:
        raise ConfigError("--overlap belongs to --tiles, which is missing")
    viewed = Augmented(model) if tta else model
    if tiles is None:
        return viewed
    return Tiled(viewed, Tiling(tiles, overlap), _note)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


@dataclass(frozen=True)
class Detecting:
    """The flags that describe a detector, for processes that open it again."""

    model: str
    opening: Opening
    computing: Computing
    tta: bool
    tiles: int | None
    overlap: int | None

    def open(self) -> Predictor | Augmented | Tiled:
        """The detector, and what the import of its file assumes on stderr."""
        model = self.opening.load(self.model, self.computing)
        return with_views_and_tiles(model, self.tta, self.tiles, self.overlap)

    def open_again(self, threads: int | None) -> Predictor | Augmented | Tiled:
        """The detector with a number of threads, without a word."""
        model = self.opening.load_silently(self.model, replace(self.computing, threads=threads))
        return _detector(model, self.tta, self.tiles, self.overlap)
