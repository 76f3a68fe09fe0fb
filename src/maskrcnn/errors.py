"""Every error that the package raises on purpose.

A message states what was expected, what was found, where, and what to do. The command line prints
it as one line and exits with code 2. Any other exception is a bug of the package and keeps its traceback.
"""

from __future__ import annotations


class MaskRCNNError(Exception):
    """Base class of all errors below."""


class ConfigError(MaskRCNNError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(MaskRCNNError, ValueError):
    """A data set, annotation or result file that cannot be used."""


class ImageError(DataError):
    """An image that is missing, cannot be decoded or does not fit its record."""


class WeightsError(MaskRCNNError, ValueError):
    """A model or weights file that cannot be opened, or does not fit the model."""


class TrainingError(MaskRCNNError, RuntimeError):
    """Training cannot start, or cannot continue."""


class MissingPackageError(MaskRCNNError, ImportError):
    """An optional package is not installed; the message gives the pip command."""
