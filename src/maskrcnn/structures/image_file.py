"""The older path of `maskrcnn.files.images.read_image`, under which other programs import it."""

from maskrcnn.files.images import read_image as read_image
