"""Pictures: objects drawn on their image, and the truth beside the prediction.

Pillow draws everything, each mask inside its own crop. supervision would take image-sized masks (3.6 GB for 300
objects on 12 megapixels) and, without OpenCV, 8 s for 300 boxes.
"""

from maskrcnn.visualise.objects import draw
from maskrcnn.visualise.sheet import contact_sheet

__all__ = ["contact_sheet", "draw"]
