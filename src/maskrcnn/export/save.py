"""Writes a network as one ONNX file, as an OpenVINO folder, or as a package of PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, MissingPackageError
from maskrcnn.export.check import Exactness, check
from maskrcnn.export.int8 import Calibration, import_nncf, write_int8
from maskrcnn.export.limits import require_exportable
from maskrcnn.export.openvino_graph import write_graph
from maskrcnn.files.atomic import atomic_write, check_file, check_folder
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict.exported import (
    GRAPH,
    INSTALL,
    PACKAGE_SUFFIX,
    WEIGHTS,
    ExportFormat,
    import_openvino,
    open_engine,
)
from maskrcnn.weights.model_file import METADATA_KEY, header_of

if TYPE_CHECKING:
    from maskrcnn.export.network import MaskOutput

SUFFIXES = {"onnx": ".onnx", "torch": PACKAGE_SUFFIX}  # by format; OpenVINO has a folder
OTHER_NAMES = "--format onnx writes a file .onnx, --format torch a file .pt2, --format openvino a folder"


def export_model(
    network: MaskRCNN,
    config: Config,
    provenance: Mapping[str, Any],
    out: Path,
    form: ExportFormat = "onnx",
    *,
    masks: MaskOutput | None = None,
    resize: bool = False,
    calibration: Calibration | None = None,
) -> Exactness:
    """Writes a network with its config, and compares it with PyTorch before the file gets its name.

    Args:
        network: on the CPU, in evaluation mode.
        out: a file for `onnx` and `torch`, a folder for `openvino`.
        masks: what the graph computes of masks, beside the probabilities in boxes. A model without masks has none. By
            default `runs`, and `probs` for `torch`.
        resize: whether the graph takes an image (H, W, 3) uint8 of any size, and resizes it.
        calibration: writes int8 instead of fp32, after the comparison in fp32.

    Raises:
        ConfigError: a part of the network cannot be exported, or `out` cannot be written.
        MissingPackageError: a package of the extra `export` is not installed.
        DifferentError: the engine does not compute what PyTorch computes, or int8 is not good enough.
        OSError: the disk is full. An existing file stays unchanged. For OpenVINO it is a ConfigError.
    """
    require_exportable(config, form, masks, resize=resize, int8=calibration is not None)
    require_writable(out, form)
    require_packages(form, int8=calibration is not None)
    header = header_of(config, provenance)
    if form == "torch":
        return _write_torch(network, config, header, out)
    masks = masks or "runs"
    if form == "onnx":
        with atomic_write(out) as temporary:
            _write_onnx(network, config, header, temporary, masks, resize)
            agreement = check(open_engine(temporary, form, precision="fp32").run, network, config, resize=resize)
            if calibration is not None:
                write_int8(temporary, config, calibration, lambda: temporary, unsigned=True)
        return agreement
    there = out.is_dir()  # it may be the working folder, or a disk of its own, and then cannot be replaced
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out if there else out.parent) as folder:
        onnx_file, written = Path(folder, "model.onnx"), Path(folder, "openvino")

        def convert() -> Path:
            try:
                write_graph(onnx_file, header, written / GRAPH)
            except RuntimeError:  # which names no reason
                raise ConfigError(
                    f"{out}: OpenVINO cannot write its files; free the space or choose another path"
                ) from None
            return written

        _write_onnx(network, config, header, onnx_file, masks, resize)
        agreement = check(open_engine(convert(), form, precision="fp32").run, network, config, resize=resize)
        if calibration is not None:
            write_int8(onnx_file, config, calibration, convert, unsigned=False)
        if not there:
            written.rename(out)
        else:
            (out / GRAPH).unlink(missing_ok=True)  # so that it never stands beside the weights of another network
            for name in (WEIGHTS, GRAPH):
                (written / name).replace(out / name)
    return agreement


def require_writable(out: Path, form: ExportFormat, *sources: Path | str | None) -> None:
    """Checks before the work that an export can be written, and that its name fits its format.

    Args:
        sources: as in `check_file`.

    Raises:
        ConfigError: the name does not fit, `out` cannot be written, or it is a folder of other files.
    """
    if form != "openvino":
        check_file(out, *sources)
        if out.suffix != SUFFIXES[form]:
            raise ConfigError(
                f"{out}: expected a name that ends in {SUFFIXES[form]} for --format {form}; {OTHER_NAMES}"
            )
        return
    if out.suffix in (*SUFFIXES.values(), ".xml", ".bin"):
        raise ConfigError(f"{out}: expected the name of a folder for --format openvino, found a file's; {OTHER_NAMES}")
    check_folder(out)
    found = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if others := sorted(found - {GRAPH, WEIGHTS}):
        raise ConfigError(
            f"{out}: expected a new folder, or one of an earlier export, found {others[0]} in it; choose another folder"
        )


def require_packages(form: ExportFormat, *, int8: bool = False) -> None:
    """Checks before the work that all packages and programs are installed that write an export and run it.

    Raises:
        MissingPackageError: a package is missing. The message names the command that installs it.
        ConfigError: the C++ compiler is missing that `torch` needs.
    """
    try:
        if form == "torch":
            from maskrcnn.export.package import require_compiler

            return require_compiler()
        import maskrcnn.export.trace  # noqa: F401

        if form == "onnx":
            import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"export needs {error.name}, which is missing: {INSTALL}") from None
    if form == "openvino":
        import_openvino("--format openvino")
    if int8:
        import_nncf()


def _write_torch(network: MaskRCNN, config: Config, header: str, out: Path) -> Exactness:
    from maskrcnn.export.package import write_package

    with atomic_write(out) as temporary:
        write_package(network, config, header, temporary)
        return check(open_engine(temporary, "torch", precision="fp32").run, network, config)


def _write_onnx(network: MaskRCNN, config: Config, header: str, path: Path, masks: MaskOutput, resize: bool) -> None:
    from maskrcnn.export.trace import trace_network

    program = trace_network(network, config, masks, resize=resize)
    program.model.metadata_props[METADATA_KEY] = header
    program.save(path, external_data=False)
