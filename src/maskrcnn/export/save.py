"""Writes a network as one ONNX file, or as an OpenVINO folder."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, MissingPackageError
from maskrcnn.export.check import Exactness, check
from maskrcnn.export.int8 import Calibration, import_nncf, write_int8
from maskrcnn.export.limits import require_exportable
from maskrcnn.files.atomic import atomic_write, check_file, check_folder
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict.exported import GRAPH, INSTALL, WEIGHTS, ExportFormat, import_openvino, open_engine
from maskrcnn.weights.model_file import METADATA_KEY, header_of

OPSET = 18
INPUTS = ("pixels", "sizes_hw", "original_hw", "scale_xy")


def export_model(
    network: MaskRCNN,
    config: Config,
    provenance: Mapping[str, Any],
    out: Path,
    form: ExportFormat = "onnx",
    *,
    runs: bool = True,
    calibration: Calibration | None = None,
) -> Exactness:
    """Writes a network with its config, and compares it with PyTorch before the file gets its name.

    Args:
        network: on the CPU, in evaluation mode.
        out: a file for `onnx`, a folder for `openvino`.
        runs: whether the graph also computes the run lengths of masks. A model without masks has none.
        calibration: writes int8 instead of fp32, after the comparison in fp32.

    Raises:
        ConfigError: a part of the network cannot be exported, or `out` cannot be written.
        MissingPackageError: a package of the extra `export` is not installed.
        DifferentError: the engine does not compute what PyTorch computes, or int8 is not good enough.
        OSError: the disk is full. An existing file stays unchanged.
    """
    require_exportable(config)
    runs = runs and config.model.mask_head is not None
    header = header_of(config, provenance)
    if calibration is not None:
        import_nncf()  # before the work
    if form == "onnx":
        check_file(out)
        with atomic_write(out) as temporary:
            _write_onnx(network, config, header, temporary, runs=runs)
            agreement = check(open_engine(temporary, form, precision="fp32").run, network, config)
            if calibration is not None:
                write_int8(temporary, config, calibration, lambda: temporary)
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

        _write_onnx(network, config, header, onnx_file, runs=runs)
        agreement = check(open_engine(convert(), form, precision="fp32").run, network, config)
        if calibration is not None:
            write_int8(onnx_file, config, calibration, convert)
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


def _write_onnx(network: MaskRCNN, config: Config, header: str, path: Path, *, runs: bool) -> None:
    try:
        import onnxscript.optimizer

        from maskrcnn.export.network import ExportedNetwork, outputs_of
        from maskrcnn.export.operators import translations
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"export needs {error.name}, which is missing: {INSTALL}") from None
    names = outputs_of(config, runs=runs)
    exported = ExportedNetwork(network, config, runs=runs)
    arguments, varying = _example(config)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch and onnxscript warn of their own code
        traced = torch.export.export(exported, arguments, dynamic_shapes=varying, strict=False)
        program = torch.onnx.export(
            traced,
            (),
            input_names=INPUTS,
            output_names=names,
            opset_version=OPSET,
            custom_translation_table=translations(),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    everything = 1 << 40  # bytes: weights that the network joins or turns are stored as it uses them
    onnxscript.optimizer.fold_constants(
        program.model, onnx_shape_inference=False, input_size_limit=everything, output_size_limit=everything
    )
    onnxscript.optimizer.remove_unused_nodes(program.model)
    program.model.metadata_props[METADATA_KEY] = header
    program.save(path, external_data=False)


def _example(config: Config) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Arguments of the trace, and which of their sizes vary. Only their shapes matter."""
    images, rows, columns, divisor = 2, 10, 12, config.image.divisor
    height, width = 32 * rows, 32 * columns
    dtype = torch.float32 if config.float_pixels else torch.uint8
    channels = len(config.image.statistics[0])
    sizes, originals = (torch.tensor([[height, width]] * images) for _ in range(2))  # the trace joins equal objects
    batch = torch.export.Dim.DYNAMIC
    pixels = {0: batch, 2: divisor * torch.export.Dim("rows"), 3: divisor * torch.export.Dim("columns")}
    arguments = (torch.zeros((images, channels, height, width), dtype=dtype), sizes, originals, torch.ones(images, 2))
    return arguments, (pixels, {0: batch}, {0: batch}, {0: batch})
