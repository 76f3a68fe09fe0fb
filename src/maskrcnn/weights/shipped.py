"""The models inside the package, by name. docs/models.md describes how each was trained and what it reaches."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

# What each finds, for `maskrcnn weights list`.
SHIPPED = {"nuclei": "nuclei of cells in images of fluorescence, histology and brightfield microscopes"}


def shipped_file(name: str) -> Path:
    """The model file of a name of `SHIPPED`."""
    return Path(str(files("maskrcnn.weights").joinpath("shipped_models", f"{name}.safetensors")))
