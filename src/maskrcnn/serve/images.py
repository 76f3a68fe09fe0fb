"""Images from bytes that anybody may have sent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn.errors import ImageError, ImageKindError, ImageSizeError
from maskrcnn.files.images import decode_image
from maskrcnn.serve.problems import RefusalError

# Pillow reads many more kinds. Their decoders are used less and had more faults.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")


def image_of(body: bytes, most_pixels: int, channels: Sequence[str] = ()) -> np.ndarray:
    """The image in `body`, as `files.images.read_image` gives it for a file and a model of these channels.

    Raises:
        RefusalError: 415 for anything but an image of `FORMATS`, 413 for one of more pixels, of which nothing is
            decoded, 422 for one that cannot be decoded.
    """
    try:
        return decode_image(body, f"request ({', '.join(FORMATS)})", FORMATS, most_pixels, channels)
    except ImageKindError as error:
        raise RefusalError(415, str(error)) from None
    except ImageSizeError as error:
        raise RefusalError(413, str(error)) from None
    except ImageError as error:
        raise RefusalError(422, str(error)) from None
