"""Recognises the kind of a file of weights by its content, never by its name."""

from __future__ import annotations

import codecs
import difflib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from maskrcnn.errors import WeightsError
from maskrcnn.files.torch_zip import LEGACY_MAGIC

Container = Literal["torch", "pickle", "safetensors", "npz", "hdf5"]

EXPECTED = (
    "expected weights: torch (.pth), pickle (.pkl), safetensors, .npz or Keras HDF5 (.h5), or for prediction an ONNX "
    "file, a .pt2 package or an OpenVINO folder of `maskrcnn export`"
)
WEIGHTS_SUFFIXES = {".pth", ".pt", ".pkl", ".safetensors", ".npz", ".h5", ".hdf5", ".ckpt", ".pyth"}

HDF5 = b"\x89HDF\r\n\x1a\n"
UNPACK = "unpack it and give the file inside"
DOWNLOAD = "the download went wrong; open the address in a browser and save the file itself"
ORIGIN = "the checkpoint that it was exported from"
EXPORTED = f"give {ORIGIN}"
ONNX = rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]"
# A zip archive whose first entry is one of torch.export or AOTInductor.
TORCH_PACKAGE = rb"PK\x03\x04.{26}[^\0]{1,150}?/(data/(weights|constants|aotinductor)/|models/|archive_format)"
OPENVINO = rb"(\s*<\?xml[^>]*>)?\s*<net "
# Other files: a pattern of their first bytes, what they are, and what to do instead.
FOREIGN = (
    (rb"\x89PNG\r\n", "a PNG image", "images go to `maskrcnn predict`"),
    (rb"\xff\xd8\xff", "a JPEG image", "images go to `maskrcnn predict`"),
    (rb"GIF8|BM.{4}\0\0\0\0|II\*\0|MM\0\*|RIFF.{4}WEBP", "an image", "images go to `maskrcnn predict`"),
    (rb"\x1f\x8b|BZh\d|\xfd7zXZ\0|7z\xbc\xaf|\x28\xb5\x2f\xfd|Rar!", "a compressed file", UNPACK),
    (rb".{257}ustar", "a tar archive", UNPACK),
    (rb"%PDF", "a PDF document", "give the file of weights"),
    (rb"\x93NUMPY", "a single array of numpy", "save all arrays by name with numpy.savez"),
    (rb"version https://git-lfs", "a pointer of Git LFS and not the file", "run `git lfs pull`"),
    (rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head)", "a web page", DOWNLOAD),
    (rb".*<Error>\s*<Code>", "an error message of a server", DOWNLOAD),
    (OPENVINO, "an OpenVINO network", EXPORTED),
    (rb"\s*<\?xml", "an XML file", "give the file of weights"),
    (rb"(.{4}\{.*)?[fp]trt", "a TensorRT engine", EXPORTED),
    (
        rb"\x12\x01\0{6}",
        "parameters of MXNet (GluonCV)",
        "its Mask R-CNN has other parts: train anew with `maskrcnn train`",
    ),
    (rb"7767517\n", "an ncnn network", EXPORTED),
    (rb".{4}TFL3", "a TensorFlow Lite model", EXPORTED),
    (
        rb"\x08\x01\x12[\x80-\xff]",
        "a TensorFlow SavedModel",
        "load it in TensorFlow and save its variables by name with numpy.savez",
    ),
    (ONNX, "an ONNX model", EXPORTED),
    (
        rb"\x0a[\x01-\xff]{1,4}\x0a[\x01-\x7f][\x20-\x7e]",
        "a frozen graph of TensorFlow (.pb)",
        EXPORTED,
    ),
)
# Files whose first bytes say nothing, by the ending of their names.
FOREIGN_SUFFIXES = {
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".bin": "the weights of an OpenVINO or ncnn network",
    ".weights": "the weights of a Darknet network (YOLO)",
    ".caffemodel": "a Caffe model",
    ".pdiparams": "an exported model of PaddlePaddle",
    ".pdmodel": "an exported model of PaddlePaddle",
}
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(([dl]p?\d*\n|[]})tlq])|c[\w.]+\n\w+\n|[]}]q\x00")
_TENSORFLOW_INDEX = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the last bytes of the table in a checkpoint's .index file


def container_of(path: Path, file: BinaryIO) -> Container:
    """The kind of a file of weights.

    Args:
        file: the file at `path`, open for reading.

    Raises:
        WeightsError: the file is empty, truncated, or of a kind that holds no weights or that holds code.
        OSError: the file cannot be read.
    """
    head = file.read(4096)
    if not head:
        raise WeightsError(f"{path}: the file is empty, {EXPECTED}")
    if head.startswith(HDF5):
        return "hdf5"
    if re.match(TORCH_PACKAGE, head, re.DOTALL):
        _foreign(path, "a package of torch.export", f"{EXPORTED}, or predict with it under a name that ends in .pt2")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path, file)
    if head.startswith(LEGACY_MAGIC):
        return "torch"
    if head[6:9] == b"\0\0{":  # eight bytes with the length of the JSON header, and its first character
        return "safetensors"
    if _PICKLE.match(head):
        return "pickle"
    file.seek(max(0, path.stat().st_size - len(_TENSORFLOW_INDEX)))
    if file.read(len(_TENSORFLOW_INDEX)) == _TENSORFLOW_INDEX or re.search(r"\.data-\d+-of-\d+$", path.name):
        _foreign(path, "a part of a TensorFlow checkpoint", "save its variables by name with numpy.savez")
    for pattern, kind, hint in FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            _foreign(path, kind, hint)
    _text_or_unknown(path, head)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading in binary mode.

    Raises:
        WeightsError: the file does not exist (suggests a similar name), is a folder (names the weights in it), or
            cannot be read.
    """
    if not path.is_file():
        _no_file(path)
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}), {EXPECTED}") from None


def _foreign(path: Path, kind: str, hint: str) -> NoReturn:
    raise WeightsError(f"{path}: {EXPECTED}, found {kind}; {hint}")


def is_openvino(path: Path) -> bool:
    """Whether a file is the graph of an OpenVINO network."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return re.match(OPENVINO, file.read(256)) is not None


def _no_file(path: Path) -> NoReturn:
    if path.is_dir():
        graph = next(filter(is_openvino, sorted(path.glob("*.xml"))), None)
        if graph is not None:
            _foreign(
                path, f"a folder with the OpenVINO network {graph.name}", f"for prediction give {graph}, else {ORIGIN}"
            )
        if (path / "saved_model.pb").exists():
            _foreign(
                path,
                "the folder of a TensorFlow SavedModel",
                "load it in TensorFlow and save its variables by name with numpy.savez",
            )
        files = sorted(found.name for found in path.iterdir() if found.suffix in WEIGHTS_SUFFIXES)
        hint = f"; it contains {', '.join(files[:3])}{', ...' if len(files) > 3 else ''}" if files else ""
        raise WeightsError(f"{path}: is a folder, {EXPECTED}{hint}")
    beside = [found.name for found in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"; did you mean {path.with_name(close[0])}?" if close else f", {EXPECTED}"
    raise WeightsError(f"{path}: no such file{hint}")


def _zip(path: Path, file: BinaryIO) -> Container:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a whole zip archive ({error}), perhaps truncated; get the file again"
        ) from None
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        _foreign(
            path, "a TorchScript archive, which holds code", "save the weights: torch.save(model.state_dict(), 'w.pth')"
        )
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if "model.weights.h5" in names:
        _foreign(path, "an archive of Keras 3", "save the weights with Keras 2: model.save_weights('w.h5')")
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    _foreign(path, f"a zip archive of other files ({shown or 'none'})", UNPACK)


def _text_or_unknown(path: Path, head: bytes) -> NoReturn:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # ignores an incomplete character at the end
    except UnicodeDecodeError:
        text = "\0"
    graph = path.with_suffix(".xml")
    if path.suffix == ".bin" and is_openvino(graph):
        _foreign(
            path, f"the weights of the OpenVINO network {graph.name}", f"for prediction give {graph}, else {ORIGIN}"
        )
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        _foreign(path, FOREIGN_SUFFIXES[path.suffix.lower()], EXPORTED)
    if re.search(r"[\0-\x08\x0e-\x1f]", text):
        _foreign(path, f"an unknown format ({head[:8].hex(' ')} ...)", "check that the file is the right one and whole")
    kind = "a text file"
    if text.lstrip().startswith(("{", "[")):
        kind = "a JSON file"
    elif re.match(r"(\s*#.*\n|---\s*\n|\s*\n)*[\w-]+:(\s|$)", text):
        kind = "a YAML file"
    _foreign(path, kind, "give the checkpoint that belongs to it")
