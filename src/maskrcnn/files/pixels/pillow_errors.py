"""What Pillow and others raise, warn of and log, as errors of this package."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from maskrcnn.errors import ImageError, ImageKindError, ImageSizeError

# They log the damages of a file, which Python prints if nobody handles them. What matters is in the error of the file.
for _package in ("PIL", "tifffile"):
    logging.getLogger(_package).addHandler(logging.NullHandler())


@contextmanager
def errors_of_pillow(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises for a broken image, which may be any exception, into an ImageError. Its warnings of
    odd metadata and large images are ignored."""
    try:
        with QUIET:
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageKindError(f"{name}: expected an image, found a file of another kind") from None
    except Image.DecompressionBombError as error:
        raise ImageSizeError(f"{name}: {str(error).rstrip('.')}; cut the image into tiles") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ImageError(f"{name}: the image cannot be decoded ({reason}); it may be damaged or truncated") from None


class _Quiet:
    """Ignores the warnings of Pillow and of rasterio while a thread reads an image.

    All threads share the filters of warnings. So the first reader changes them, and the last one puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|rasterio)\b")
            self._readers += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._filters.__exit__(None, None, None)


QUIET = _Quiet()
