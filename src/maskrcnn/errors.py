"""Every error that the package raises on purpose.

A message states what was expected, what was found, where, and what to do. The command line prints
it as one line and exits with code 2. Any other exception is a bug of the package and keeps its traceback.
"""

from __future__ import annotations

import re

# Codes that a terminal obeys, and marks that change the direction of text. Names in files may hold them.
_CONTROL_CODES = re.compile(r"[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def counted(number: int, noun: str) -> str:
    """The number with its noun, which has a plural with s or es: 1 image, 2 images, 2 classes."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def agreeing(number: int, sentence: str) -> str:
    """The number before a sentence that agrees with it.

    Args:
        sentence: with `{one|many}` wherever words depend on the number, such as "{object loses its|objects lose their}
            score".
    """
    return f"{number} " + re.sub(r"\{([^{|}]*)\|([^{|}]*)\}", r"\1" if number == 1 else r"\2", sentence)


def omission(number: int, noun: str, which: str = "") -> str:
    """Says how many are left out: 1 shape is left out, 2 images without labels are left out.

    Args:
        which: follows the noun, such as "without labels".
    """
    return " ".join(filter(None, [counted(number, noun), which, "is" if number == 1 else "are", "left out"]))


def printable(text: str, keep: str = "") -> str:
    """The text with control codes written as escapes such as \\x1b, so that printing it moves and hides nothing.

    Args:
        keep: control codes that stay, such as a line feed.
    """
    return _CONTROL_CODES.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text
    )


class MaskRCNNError(Exception):
    """Base class of all errors below. The text of an error is one line without control codes."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(MaskRCNNError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(MaskRCNNError, ValueError):
    """A data set, annotation or result file that cannot be used."""


class ImageError(DataError):
    """An image that is missing, cannot be decoded or does not fit its record."""


class ImageKindError(ImageError):
    """A file or data that is no image, or one of a kind that is not accepted."""


class ImageSizeError(ImageError):
    """An image of more pixels than are decoded."""


class WeightsError(MaskRCNNError, ValueError):
    """A model or weights file that cannot be opened, or does not fit the model."""


class TrainingError(MaskRCNNError, RuntimeError):
    """Training cannot start, or cannot continue."""


class MissingPackageError(MaskRCNNError, ImportError):
    """An optional package is not installed; the message gives the pip command."""
