"""Prediction: a network with everything needed to use it, on single images, streams of them, and files."""

from maskrcnn.predict.files import FilesSummary, predict_files
from maskrcnn.predict.images import postprocess, preprocess, to_coco_results
from maskrcnn.predict.predictor import Predictor, load
from maskrcnn.predict.stream import stream

__all__ = [
    "FilesSummary",
    "Predictor",
    "load",
    "postprocess",
    "predict_files",
    "preprocess",
    "stream",
    "to_coco_results",
]
