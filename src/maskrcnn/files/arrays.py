"""Reads arrays from `.npy`, `.npz` and Keras HDF5 files, and named tensors from safetensors."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskrcnn.errors import MissingPackageError, WeightsError
from maskrcnn.files.pickle_calls import Dialect, ElementType, RefusedError, array_of, element_type_or_objects
from maskrcnn.files.pickle_reader import first_line, unpickle

# Weights compress little. A file that unpacks to more than FREE_GROWTH + MAX_GROWTH * its size is an attack on memory.
MAX_GROWTH = 30
FREE_GROWTH = 1 << 26  # bytes
MAX_DEPTH = 50  # of groups in HDF5; the names of n nested groups take n * n / 2 characters
WITH_OBJECTS = Dialect(calls={"numpy.dtype": element_type_or_objects})
MAX_STRINGS = 100_000  # per array; as Python strings they take about fifty times their size in the file


def read_npz(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The arrays of a `.npz` by name, compressed or not; arrays of strings become lists.

    Args:
        file: the file at `path`, open for reading.

    Raises:
        WeightsError: the file is truncated, holds an array of Python objects, or unpacks to far more than its size.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_growth(path, sum(entry.file_size for entry in entries))
            return {entry.filename.removesuffix(".npy"): _npy(archive, entry) for entry in entries}
    except RefusedError as refusal:
        raise WeightsError(f"{path}: refused, because it holds {refusal}; save only arrays of numbers in it") from None
    except WeightsError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a whole .npz file ({first_line(error)}); get the file again") from None


def _npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is compressed by a method that numpy does not use")
    with archive.open(entry) as packed:
        file = io.BytesIO(packed.read(entry.file_size))  # the limit matters: an entry may unpack to more than it claims
    shape, fortran, dtype = _npy_header(file, entry.filename)
    array = array_of(file.read(), ElementType(dtype.str), shape, fortran)
    if array.dtype.kind not in "SU":
        return array
    if array.size > MAX_STRINGS:
        raise ValueError(f"{entry.filename} holds {array.size} strings, more than {MAX_STRINGS}")
    return array.tolist()


def _npy_header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran's order and dtype of a `.npy`; raises ValueError if its header is damaged."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has the unsupported version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return read_header(file)
    except TokenError as error:  # numpy takes a header that Python cannot parse for one of Python 2
        raise ValueError(f"{name} has a damaged header: {error}") from None


def read_pickled_npy(path: Path, instead: str) -> Any:
    """The value in a `.npy` that numpy has pickled, such as a dictionary of arrays. No code in it is run.

    Args:
        instead: what to do with a file that is refused, for messages.

    Raises:
        WeightsError: the file cannot be read, is no such file, or holds something else than arrays and plain data.
    """
    try:
        content = path.read_bytes()
        file = io.BytesIO(content)
        _, _, dtype = _npy_header(file, path.name)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a whole .npy file ({first_line(error)}); get the file again") from None
    if dtype.kind != "O":
        raise WeightsError(f"{path}: expected a dictionary, found an array of {dtype}; {instead}")
    return unpickle(content, str(path), start=file.tell(), dialect=WITH_OBJECTS, instead=instead).content


def read_hdf5(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a Keras file by path, such as "group/layer/kernel:0", and its attributes as plain values.

    Paths are relative to the group `model_weights` if it exists, so that files of `model.save` and `save_weights` give
    the same names. The optimiser's state is left out.

    Raises:
        MissingPackageError: h5py is not installed.
        WeightsError: the file is truncated, not in the format of Keras 2, or stores data in another file.
    """
    try:
        import h5py
    except ImportError:
        raise MissingPackageError(f"{path}: Keras files need h5py: pip install 'maskrcnn[keras]'") from None
    try:
        with h5py.File(path, "r") as file:
            root = _weights_group(path, file)
            datasets = _datasets(path, root)
            if "layer_names" not in root.attrs and not any(":" in name for name in datasets):
                shown = ", ".join([*file][:3])
                kind = "the format of Keras 3" if "layers" in file else f"other data ({shown or 'nothing'})"
                raise WeightsError(
                    f"{path}: expected the weights of a Keras model, found HDF5 with {kind}; "
                    "save them with Keras 2: model.save_weights('weights.h5')"
                )
            _check_growth(path, sum(dataset.nbytes for dataset in datasets.values()))
            attributes = _attributes(file) | _attributes(root)
            return {name: dataset[()] for name, dataset in datasets.items()}, attributes
    except WeightsError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise WeightsError(f"{path}: not a whole HDF5 file ({first_line(error)}); get the file again") from None


def _weights_group(path: Path, file: Any) -> Any:
    """The group `model_weights` of an HDF5 file, or the file itself if it has none.

    Raises:
        WeightsError: it is a link, which could lead to another file.
    """
    import h5py

    link = file.get("model_weights", getlink=True)
    if link is None:
        return file
    if not isinstance(link, h5py.HardLink):
        raise WeightsError(f"{path}: refused, because model_weights is a link; copy what it names into this file")
    return file["model_weights"]


def _attributes(group: Any) -> dict[str, Any]:
    """The attributes of an HDF5 group as plain values.

    Arrays of texts of any length are left out: all could name one long text, so that they unpack to any size.
    """
    names = [name for name in group.attrs if (found := group.attrs.get_id(name)).dtype.kind != "O" or not found.shape]
    return {name: _plain(group.attrs[name]) for name in names}


def _datasets(path: Path, root: Any) -> Mapping[str, Any]:
    """The datasets of numbers below an HDF5 group, by path; links are not followed."""
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if name.count("/") > MAX_DEPTH:
            raise WeightsError(
                f"{path}: expected the weights of a Keras model, found groups nested deeper than {MAX_DEPTH}"
            )
        if not isinstance(item, h5py.Dataset) or name.startswith("optimizer_weights/"):
            return
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: refused, because {name} is stored in another file; copy it into this one")
        if item.dtype.kind in "fiub" and item.dtype.itemsize <= 8 and item.shape is not None:
            found[name] = item

    root.visititems(visit)
    return found


def _plain(value: Any) -> Any:
    """An HDF5 attribute as plain Python values, with bytes decoded to strings."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic) and value.dtype.char not in "gGVO":  # long double stays what it is
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _check_growth(path: Path, size: int) -> None:
    limit = FREE_GROWTH + MAX_GROWTH * path.stat().st_size
    if size > limit:
        raise WeightsError(
            f"{path}: refused, because it would unpack to {size} bytes, {size // path.stat().st_size} times its size; "
            "no file of weights does that"
        )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, memory-mapped, and its metadata.

    Raises:
        WeightsError: the file is truncated or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: not a whole safetensors file ({first_line(error)}), perhaps truncated; get the file again"
        ) from None
