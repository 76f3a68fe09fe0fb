"""Arrays by name from `.npz`, from HDF5 as Keras writes it, and tensors by name from safetensors."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskrcnn.errors import MissingPackageError, WeightsError
from maskrcnn.files.pickle_calls import ElementType, RefusedError, array_of

# Compressed weights keep most of their size: a file that grows more than this was made to fill the memory.
MAX_GROWTH = 30
FREE_GROWTH = 1 << 26  # bytes
MAX_TEXTS = 100_000  # of an array; as texts of Python they take some fifty times as much memory


def read_npz(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The arrays of a `.npz`, compressed or not; arrays of texts become lists.

    Args:
        file: the file at `path`, open for reading.

    Raises:
        WeightsError: truncated, holds an array of Python objects, or unpacks to far more data than its size justifies.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_growth(path, sum(entry.file_size for entry in entries))
            return {entry.filename.removesuffix(".npy"): _npy(archive, entry) for entry in entries}
    except RefusedError as refusal:
        raise WeightsError(f"{path}: refused, it holds {refusal}; save it again from arrays of numbers alone") from None
    except WeightsError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a whole .npz file ({_line(error)}); get the file again") from None


def _npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is compressed by a method that numpy does not use")
    with archive.open(entry) as packed:
        file = io.BytesIO(packed.read(entry.file_size))  # no more than that: an entry may unpack to more than it claims
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{entry.filename} is of version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    array = array_of(file.read(), ElementType(dtype.str), shape, fortran)
    if array.dtype.kind not in "SU":
        return array
    if array.size > MAX_TEXTS:
        raise ValueError(f"{entry.filename} holds {array.size} texts")
    return array.tolist()


def read_hdf5(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a Keras file by path, such as "group/layer/kernel:0", and the plain attributes of its root.

    Weights below `model_weights`, where `model.save` puts them, get the names that `save_weights` gives them; the
    optimiser's state is left out.

    Raises:
        MissingPackageError: h5py is not installed.
        WeightsError: truncated, not written by Keras 2 (or Keras 3 in that format), or its data lies in another file.
    """
    try:
        import h5py
    except ImportError:
        raise MissingPackageError(f"{path}: Keras files need h5py: pip install 'maskrcnn[keras]'") from None
    try:
        with h5py.File(path, "r") as file:
            top = file.get("model_weights", file)
            datasets = _datasets(path, top)
            if "layer_names" not in top.attrs and not any(":" in name for name in datasets):
                shown = ", ".join([*file][:3])
                kind = "the format of Keras 3" if "layers" in file else f"other data ({shown or 'nothing'})"
                raise WeightsError(
                    f"{path}: expected the weights of a Keras model, found HDF5 with {kind}; "
                    "save them with Keras 2: model.save_weights('weights.h5')"
                )
            _check_growth(path, sum(dataset.nbytes for dataset in datasets.values()))
            attributes = {name: _plain(value) for name, value in [*file.attrs.items(), *top.attrs.items()]}
            return {name: dataset[()] for name, dataset in datasets.items()}, attributes
    except WeightsError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: not a whole HDF5 file ({_line(error)}); get the file again") from None


def _datasets(path: Path, top: Any) -> Mapping[str, Any]:
    """Datasets of numbers by path; links are not followed."""
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith("optimizer_weights/"):
            return
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: refused, {name} takes its data from another file; copy it into this one")
        if item.dtype.kind in "fiub":
            found[name] = item

    top.visititems(visit)
    return found


def _plain(value: Any) -> Any:
    """An attribute as text or a list of texts."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _check_growth(path: Path, size: int) -> None:
    limit = FREE_GROWTH + MAX_GROWTH * path.stat().st_size
    if size > limit:
        raise WeightsError(
            f"{path}: refused, it would unpack to {size} bytes, {size // path.stat().st_size} times its size, as no "
            "file of weights does"
        )


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, which lie in the file until they are read, and its metadata.

    Raises:
        WeightsError: the file is truncated or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path}: not a whole safetensors file ({reason}); it may be truncated: get the file again"
        ) from None
