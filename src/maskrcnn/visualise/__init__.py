"""Draws objects on their images, and contact sheets with the ground truth beside the prediction.

Pillow draws everything, each mask inside its own crop. The package supervision needs image-sized masks (3.6 GB for 300
objects on 12 megapixels) and, without OpenCV, 8 s for 300 boxes.
"""

from maskrcnn.visualise.objects import draw
from maskrcnn.visualise.sheet import contact_sheet, picture_sheet

__all__ = ["contact_sheet", "draw", "picture_sheet"]
