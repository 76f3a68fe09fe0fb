"""A small file of annotations in each format that people might send, for tests that change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.regions import png_of
from rois import polygon_roi
from small_scene import save_images, save_picture

CVAT = """<annotations><task><labels><label><name>a</name></label></labels></task>
<image id="0" name="one.png" width="56" height="40"><polygon label="a" points="1,1;9,1;9,9" group_id="1"/>
<mask label="a" rle="1, 2, 3" left="1" top="2" width="3" height="2"/><box label="b" xtl="1" ytl="1" xbr="5" ybr="6"/>
<ellipse label="b" cx="9" cy="9" rx="3" ry="4" rotation="30"/></image></annotations>"""
RESULT = {"original_width": 56, "original_height": 40, "image_rotation": 0}
REGIONS = (
    ("r", "polygonlabels", {"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": ["a"]}),
    ("b", "brushlabels", {"rle": [0, 0, 35, 0, 57, 19, 128, 0], "brushlabels": ["a"]}),
    ("e", "ellipselabels", {"x": 1, "y": 2, "radiusX": 3, "radiusY": 4, "ellipselabels": ["b"]}),
)
RESULTS = [{**RESULT, "id": own, "type": kind, "value": value} for own, kind, value in REGIONS]
STUDIO = [{"id": 1, "data": {"image": "/data/one.png"}, "annotations": [{"result": RESULTS, "updated_at": "2024"}]}]
CIRCLE = {"name": "circle", "cx": 9, "cy": 9, "r": 3}
TRIANGLE = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}
SHAPES = [
    {"shape_attributes": CIRCLE, "region_attributes": {"type": {"a": True}}},
    {"shape_attributes": TRIANGLE, "region_attributes": {"type": "b"}},
]
SQUARE = [[1, 1], [9, 1], [9, 9], [1, 9]]
DOTS = [{"x": x, "y": y} for x, y in SQUARE]
PIXELS = np.eye(9, dtype=np.uint8)
SUPERVISELY = [
    {"classTitle": "a", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": [SQUARE[:3]]}},
    {"classTitle": "b", "geometryType": "rectangle", "points": {"exterior": [[1, 1], [9, 9]], "interior": []}},
    {"classTitle": "a", "geometryType": "bitmap", "bitmap": {"data": png_of(PIXELS), "origin": [3, 4]}},
]
DARWIN = [
    {"id": "1", "name": "a", "polygon": {"paths": [DOTS, DOTS[:3]]}},
    {"id": "2", "name": "b", "mask": {}},
    {"name": "r", "raster_layer": {"dense_rle": [0, 56, 1, 9, 0, 2175], "mask_annotation_ids_mapping": {"2": 1}}},
    {"id": "3", "name": "b", "ellipse": {"center": {"x": 9, "y": 9}, "radius": {"x": 3, "y": 4}, "angle": 0.5}},
    {"id": "4", "name": "b", "bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4}},
]
FEATURES = [
    {"type": "Feature", "geometry": {"type": kind, "coordinates": where}, "properties": properties}
    for kind, where, properties in (
        ("Polygon", [SQUARE, SQUARE[:3]], {"classification": {"name": "a", "color": [1, 2, 3]}}),
        ("MultiPolygon", [[SQUARE], [SQUARE]], {"name": "b"}),
        ("Point", [1, 2], {}),
    )
]
NAPARI = "index,shape-type,vertex-index,axis-0,axis-1\n" + "".join(
    f"{number},{kind},{corner},{y},{x}\n"
    for number, kind in enumerate(("polygon", "ellipse", "path"))
    for corner, (x, y) in enumerate(SQUARE)
)
LABELBOX = "".join(
    json.dumps(
        {
            "data_row": {"id": "1", "external_id": "one.png", "row_data": "https://example.org/one.png"},
            "media_attributes": {"height": 40, "width": 56},
            "projects": {"p": {"labels": [{"annotations": {"objects": [{"name": "a", **geometry}]}}]}},
        }
    )
    + "\n"
    for geometry in ({"polygon": DOTS}, {"bounding_box": {"top": 1, "left": 2, "height": 3, "width": 4}}, {"point": {}})
)
VOTT = [
    {"type": "POLYGON", "tags": ["a"], "points": DOTS},
    {"type": "RECTANGLE", "tags": ["b"], "boundingBox": {"left": 1, "top": 2, "width": 3, "height": 4}},
]
DATUMARO = {
    "dm_format_version": "1.0",
    "categories": {"label": {"labels": [{"name": "a"}, {"name": "b"}]}},
    "items": [
        {
            "id": "one",
            "image": {"path": "one.png", "size": [40, 56]},
            "annotations": [
                {"type": "mask", "label_id": 0, "group": 1, "rle": {"size": [40, 56], "counts": [9, 5, 2226]}},
                {"type": "polygon", "label_id": 0, "group": 1, "points": [1, 1, 9, 1, 9, 9]},
                {"type": "bbox", "label_id": 1, "bbox": [1, 2, 3, 4], "attributes": {"rotation": 30}},
                {"type": "ellipse", "label_id": 1, "points": [1, 2, 9, 8], "attributes": {"is_crowd": True}},
            ],
        }
    ],
}
LABEL = {"class_name": "a", "bbox": [1, 2, 4, 4]}
LABELS = [LABEL, {**LABEL, "mask": [1, 2, 3]}, {**LABEL, "polygon": SQUARE}]
HASTY = [{"image_name": "one.png", "dataset_name": "d", "width": 56, "height": 40, "labels": LABELS}]
FILES: dict[str, tuple[str, Any]] = {
    "cvat": ("all.xml", CVAT),
    "supervisely": ("ann/one.png.json", {"size": {"height": 40, "width": 56}, "objects": SUPERVISELY}),
    "darwin": (
        "one.json",
        {"item": {"name": "one.png", "slots": [{"width": 56, "height": 40}]}, "annotations": DARWIN},
    ),
    "label-studio": ("all.json", STUDIO),
    "via": ("all.json", {"one.png1": {"filename": "one.png", "size": 1, "regions": SHAPES}}),
    "geojson": ("one.geojson", {"type": "FeatureCollection", "features": FEATURES}),
    "imagej": ("one.roi", polygon_roi(SQUARE, name="a")),
    "napari": ("one.csv", NAPARI),
    "labelbox": ("export.ndjson", LABELBOX),
    "vott": (
        "one-asset.json",
        {"asset": {"name": "one.png", "path": "file:C:/a/one.png", "state": 2}, "regions": VOTT},
    ),
    "datumaro": ("train.json", DATUMARO),
    "hubmap": ("all.jsonl", {"id": "one", "annotations": [{"type": "a", "coordinates": [SQUARE, SQUARE[:3]]}]}),
    "hasty": ("all.json", {"export_format_version": "1.1", "label_classes": [], "images": HASTY}),
    "open-images": (
        "train-annotations-object-segmentation.csv",
        "MaskPath,ImageID,LabelName,BoxID\nm.png,one,/m/0,1\nm.png,one,/m/1,2\n",
    ),
}


def write_annotations(folder: Path, key: str) -> Path:
    """Writes the file of a format, and the images and masks that it names; returns it."""
    save_images(folder / "images", ("one",))
    save_picture(folder / "masks" / "m.png", np.eye(9, dtype=bool))
    name, content = FILES[key]
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
