"""Prediction: images in, instances out, by one pipeline for single images, streams of them, and files."""

from maskrcnn.predict.augmented import Augmented, ImageView
from maskrcnn.predict.backend import Backend, TorchBackend
from maskrcnn.predict.clips import ClipSummary, predict_clip
from maskrcnn.predict.files import FilesSummary, Outputs, predict_files
from maskrcnn.predict.geojson import GeoJsonFolder
from maskrcnn.predict.images import postprocess, preprocess, to_coco_results
from maskrcnn.predict.measure import Table
from maskrcnn.predict.pipeline import Detector, predict_images, stream
from maskrcnn.predict.predictor import SHORT_SIDE, Predictor, load
from maskrcnn.predict.tiles import Tiled, Tiling, stream_images

__all__ = [
    "SHORT_SIDE",
    "Augmented",
    "Backend",
    "ClipSummary",
    "Detector",
    "FilesSummary",
    "GeoJsonFolder",
    "ImageView",
    "Outputs",
    "Predictor",
    "Table",
    "Tiled",
    "Tiling",
    "TorchBackend",
    "load",
    "postprocess",
    "predict_clip",
    "predict_files",
    "predict_images",
    "preprocess",
    "stream",
    "stream_images",
    "to_coco_results",
]
