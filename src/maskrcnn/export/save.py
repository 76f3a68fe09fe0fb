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
        OSError: the disk is full. An existing file stays unchanged.
    """
    require_exportable(config, form, masks, resize=resize, int8=calibration is not None)
    header = header_of(config, provenance)
    if form == "torch":
        return _write_torch(network, config, header, out)
    masks = masks or "runs"
    if calibration is not None:
        import_nncf()  # before the work
    if form == "onnx":
        check_file(out)
        with atomic_write(out) as temporary:
            _write_onnx(network, config, header, temporary, masks, resize)
            agreement = check(open_engine(temporary, form, precision="fp32").run, network, config, resize=resize)
            if calibration is not None:
                write_int8(temporary, config, calibration, lambda: temporary, unsigned=True)
        return agreement
    openvino = import_openvino("--format openvino")
    _check_openvino_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        onnx_file, written = Path(folder, "model.onnx"), Path(folder, "openvino")

        def convert() -> Path:
            model = openvino.Core().read_model(onnx_file)
            model.set_rt_info(header, [METADATA_KEY])
            openvino.save_model(model, written / GRAPH, compress_to_fp16=False)
            return written

        _write_onnx(network, config, header, onnx_file, masks, resize)
        agreement = check(open_engine(convert(), form, precision="fp32").run, network, config, resize=resize)
        if calibration is not None:
            write_int8(onnx_file, config, calibration, convert, unsigned=False)
        if out.exists():
            out.rename(Path(folder, "replaced"))  # so that the earlier export is there until the new one is whole
        written.rename(out)
    return agreement


def _check_openvino_folder(out: Path) -> None:
    """Raises ConfigError if `out` cannot be written, or is a folder of anything but an earlier export."""
    check_folder(out)
    others = sorted({path.name for path in out.iterdir()} - {GRAPH, WEIGHTS}) if out.is_dir() else []
    if others:
        raise ConfigError(f"{out}: expected a new folder, or one of an earlier export, found {others[0]} in it")


def _write_torch(network: MaskRCNN, config: Config, header: str, out: Path) -> Exactness:
    try:
        from maskrcnn.export.package import require_compiler, write_package
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"export needs {error.name}, which is missing: {INSTALL}") from None
    if out.suffix != PACKAGE_SUFFIX:
        raise ConfigError(f"{out}: expected a name that ends in {PACKAGE_SUFFIX} for --format torch")
    check_file(out)
    require_compiler()
    with atomic_write(out) as temporary:
        write_package(network, config, header, temporary)
        return check(open_engine(temporary, "torch", precision="fp32").run, network, config)


def _write_onnx(network: MaskRCNN, config: Config, header: str, path: Path, masks: MaskOutput, resize: bool) -> None:
    try:
        from maskrcnn.export.trace import trace_network
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"export needs {error.name}, which is missing: {INSTALL}") from None
    program = trace_network(network, config, masks, resize=resize)
    program.model.metadata_props[METADATA_KEY] = header
    program.save(path, external_data=False)
