"""Networks that `maskrcnn export` wrote, in the engine that runs them: ONNX Runtime, OpenVINO or PyTorch.

Legend: B images, D detections per image, M side of a mask, K runs.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from maskrcnn.config import DetectConfig
from maskrcnn.errors import ConfigError, MissingPackageError, WeightsError
from maskrcnn.files.containers import ONNX, TORCH_PACKAGE, is_openvino
from maskrcnn.ops.device import Precision, resolve_precision
from maskrcnn.predict.engine_errors import damaged, failed, foreign, incomplete
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.weights.model_file import METADATA_KEY, read_header

ExportFormat = Literal["onnx", "openvino", "torch"]
Arrays = Mapping[str, np.ndarray]
INPUTS = ("pixels", "sizes_hw", "original_hw", "scale_xy")  # of a network that does not resize
OUTPUTS = ("boxes", "scores", "labels", "masks")  # of a package of PyTorch; the last one may be missing
PACKAGE_SUFFIX = ".pt2"
KNOWN_INPUTS = {*INPUTS, "image"}  # the last one of a network that resizes
IN_FP32 = {"precise_0", "DisablePrecisionConversion_0"}  # OpenVINO's marks of an operator that keeps its precision
GRAPH, WEIGHTS = "model.xml", "model.bin"  # the files in the folder of an OpenVINO network
INSTALL = "pip install 'maskrcnn[export]'"
CPU = torch.device("cpu")


class OpenedGraph(NamedTuple):
    """A network in an engine.

    Attributes:
        run: inputs by name to outputs by name.
        header: the metadata of the file, as `weights.model_file.header_of` writes them.
        resizes: whether the graph takes one image (H, W, 3) uint8 as `image`.
        computes_in: the precision of all layers that are not int8 in the file: fp32 or bf16.
    """

    run: Callable[[Arrays], Arrays]
    header: str
    resizes: bool
    computes_in: str = "fp32"


def exported_format(source: Path | str) -> ExportFormat | None:
    """The format of an exported network, by the content of the file; None for anything else.

    The weights of an OpenVINO network without a whole graph are one, too, so that its engine says what is missing.
    A package of PyTorch must also have its suffix. It is a program, and a file with another name shall run no code.
    """
    path = graph_file(Path(source))
    if is_openvino(path) or (path.with_name(WEIGHTS).is_file() and path.name == GRAPH):
        return "openvino"
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(256)
    if path.suffix == PACKAGE_SUFFIX and re.match(TORCH_PACKAGE, head, re.DOTALL):
        return "torch"
    return "onnx" if re.match(ONNX, head, re.DOTALL) else None


def graph_file(path: Path) -> Path:
    """The file that holds the graph: a path itself, or the one in the folder of an OpenVINO network."""
    return path / GRAPH if path.is_dir() else path


def open_engine(
    path: Path, form: ExportFormat, *, threads: int | None = None, precision: Precision = "auto"
) -> OpenedGraph:
    """Opens an exported network.

    Args:
        threads: number of threads; None: one for each core.
        precision: `auto` is bf16 in OpenVINO on a processor that multiplies bf16 faster, otherwise fp32.

    Raises:
        WeightsError: the file is damaged, or `maskrcnn export` did not write it.
        MissingPackageError: the engine is not installed.
        ConfigError: the engine does not compute in this precision.
    """
    if form == "onnx":
        return _open_onnx(path, threads, precision)
    if form == "torch":
        return _open_torch(path, threads, precision)
    return _open_openvino(graph_file(path), threads, precision)


def _open_onnx(path: Path, threads: int | None, precision: Precision) -> OpenedGraph:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingPackageError(f"{path}: an ONNX file needs ONNX Runtime, which is missing: {INSTALL}") from None
    if precision in ("bf16", "fp16"):
        raise ConfigError(
            f"{path}: ONNX Runtime computes this file in fp32; choose --precision fp32, or export with "
            "--format openvino"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # errors are raised, too
    # Its own stock of memory grows by doubling, and a plan for one size of images is of no use for the next.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise damaged(path, error) from None
    names, inputs = ([part.name for part in side] for side in (session.get_outputs(), session.get_inputs()))
    header = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if header is None or not KNOWN_INPUTS.issuperset(inputs):
        parts = [[(part.name, part.shape) for part in side] for side in (session.get_inputs(), session.get_outputs())]
        raise foreign(path, "an ONNX file", KNOWN_INPUTS.issuperset(inputs), *parts)
    resizes = inputs == ["image"]

    def run(inputs: Arrays) -> Arrays:
        try:
            found = session.run(names, dict(inputs))
        except Exception as error:  # its exceptions have no common class
            raise failed(path, inputs, error) from None
        return dict(zip(names, found, strict=True))

    return OpenedGraph(run, header, resizes)


def _open_openvino(path: Path, threads: int | None, precision: Precision) -> OpenedGraph:
    if precision == "fp16":
        raise ConfigError(f"{path}: OpenVINO computes in fp32 or bf16 on a CPU; choose --precision fp32 or bf16")
    openvino = import_openvino(str(path))
    problem = incomplete(path)  # before OpenVINO reads it, which prints lines of its own about a graph that breaks off
    if problem is not None:
        raise problem
    core = openvino.Core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise damaged(path, error) from None
    known = KNOWN_INPUTS.issuperset(part.any_name for part in model.inputs)
    if not model.has_rt_info([METADATA_KEY]) or not known:
        parts = [
            [
                (part.any_name, [None if side.is_dynamic else side.get_length() for side in part.partial_shape])
                for part in ends
            ]
            for ends in (model.inputs, model.outputs)
        ]
        raise foreign(path, "an OpenVINO network", known, *parts)
    header = model.get_rt_info([METADATA_KEY]).astype(str)
    resizes = model.inputs[0].any_name == "image"
    if resizes and precision == "bf16":
        raise ConfigError(
            f"{path}: it resizes images, which needs fp32; choose --precision fp32, or export without --with-resize"
        )
    bf16 = not resizes and resolve_precision(precision, CPU) == torch.bfloat16
    if bf16 and not _keeps_boxes_exact(model):
        if precision == "bf16":
            raise ConfigError(f"{path}: it was exported for fp32 alone; choose --precision fp32, or export it anew")
        bf16 = False
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    names = [output.any_name for output in model.outputs]

    def run(inputs: Arrays) -> Arrays:
        try:
            request.infer(dict(inputs))
        except RuntimeError as error:
            raise failed(path, inputs, error) from None
        return {name: request.get_tensor(name).data.copy() for name in names}

    return OpenedGraph(run, header, resizes, "bf16" if bf16 else "fp32")


def _keeps_boxes_exact(model: Any) -> bool:
    """Whether operators of the graph are marked that compute in fp32 even where layers are in bf16."""
    return any(not IN_FP32.isdisjoint(node.get_rt_info().keys()) for node in model.get_ordered_ops())


def _open_torch(path: Path, threads: int | None, precision: Precision) -> OpenedGraph:
    """A package of AOTInductor is machine code. It is loaded only if its metadata are those of `maskrcnn export`."""
    if precision in ("bf16", "fp16"):
        raise ConfigError(f"{path}: this file computes in fp32; choose --precision fp32, or give the model file")
    header = _package_header(path)
    config, _ = read_header(header, path)  # before any code of the file runs
    # AOTInductor takes no side of P6, whose stride is 64, for 1. Where one is, the objects are wrong.
    coarsest = 64 if config.model.neck == "fpn" else 0
    keep_quiet_about_cuda()
    import torchvision.ops  # noqa: F401 - defines the operators that the package calls

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = torch._inductor.aoti_load_package(str(path))
    except RuntimeError as error:
        raise damaged(path, error) from None

    @torch.no_grad()
    def run(inputs: Arrays) -> Arrays:
        height, width = inputs["pixels"].shape[2:]
        if min(height, width) <= coarsest:
            raise ConfigError(
                f"{path}: this package takes images that are resized to more than {coarsest} pixels on each side, "
                f"found {height}x{width}; use the model file, or an ONNX file of it, which take any size"
            )
        try:
            found = model(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in INPUTS))
        except RuntimeError as error:
            raise failed(path, inputs, error) from None
        return {name: part.numpy() for name, part in zip(OUTPUTS, found, strict=False)}

    return OpenedGraph(run, header, resizes=False)


def keep_quiet_about_cuda() -> None:
    """Stops AOTInductor from reporting that a machine has the compiler of CUDA and no GPU, which CPUs do not need."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def _package_header(path: Path) -> str:
    """The metadata of a package, which are read before its code runs.

    Raises:
        WeightsError: the file is damaged, or `maskrcnn export` did not write it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            stored = [json.loads(archive.read(name)) for name in names if name.endswith("_metadata.json")]
    except (zipfile.BadZipFile, ValueError) as error:
        raise damaged(path, error) from None
    headers = [each[METADATA_KEY] for each in stored if isinstance(each, dict) and METADATA_KEY in each]
    if not headers:
        raise WeightsError(
            f"{path}: expected a package that `maskrcnn export --format torch` wrote, found another one of torch "
            f"with {', '.join(name.partition('/')[2] for name in names[:3])}; export the model with maskrcnn"
        )
    return str(headers[0])


def import_openvino(needed_by: str) -> Any:
    """The package OpenVINO.

    It reports its use to its makers only from its own converter, which this package does not call.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingPackageError(f"{needed_by}: needs OpenVINO, which is missing: {INSTALL}") from None
    return openvino


@dataclass(frozen=True)
class ExportedBackend:
    """An exported network: a `Backend`.

    Attributes:
        run, resizes, computes_in: as in `OpenedGraph`.
        exported: the settings of detection in the graph. A call may ask for fewer detections or a higher score.
    """

    run: Callable[[Arrays], Arrays]
    exported: DetectConfig
    resizes: bool = False
    computes_in: str = "fp32"
    device: torch.device = CPU
    static_shapes: bool = False

    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        """The detections of the batch, in pixels of the network input.

        Raises:
            ConfigError: the graph has left out detections that `settings` asks for.
        """
        limits = self.exported
        if (
            settings.nms_iou != limits.nms_iou
            or settings.score_threshold < limits.score_threshold
            or settings.max_detections > limits.max_detections
        ):
            raise ConfigError(
                f"the exported network has nms_iou {limits.nms_iou}, score_threshold {limits.score_threshold} and "
                f"max_detections {limits.max_detections}, found a call with {settings.nms_iou}, "
                f"{settings.score_threshold} and {settings.max_detections}: only a higher score_threshold and a lower "
                "max_detections need no new export"
            )
        found = self._run_images(images) if self.resizes else self._run_batch(images)
        kept = {
            name: torch.from_numpy(value[:, : settings.max_detections])
            for name, value in found.items()
            if name not in ("runs", "dense")
        }
        valid = kept["scores"] > settings.score_threshold
        masks, keypoints = kept.get("masks"), kept.get("keypoints")
        return Detections(kept["boxes"], kept["scores"] * valid, kept["labels"], valid, masks, keypoints)

    def _run_batch(self, images: ImageBatch) -> Arrays:
        # The network input takes the place of the original image, so that boxes stay in its pixels.
        sizes = images.sizes_hw.numpy()
        scale = np.ones(sizes.shape, np.float32)
        return self.run({"pixels": images.pixels.numpy(), "sizes_hw": sizes, "original_hw": sizes, "scale_xy": scale})

    def _run_images(self, images: ImageBatch) -> Arrays:
        """The outputs for each image, one after the other, with as many slots as the fullest one has."""
        whole = [image[:, :h, :w] for image, (h, w) in zip(images.pixels, images.sizes_hw.tolist(), strict=True)]
        found = [self.run({"image": image.permute(1, 2, 0).contiguous().numpy()}) for image in whole]
        slots = max(each["scores"].shape[1] for each in found)
        names = found[0].keys() - {"runs", "dense"}
        return {name: np.concatenate([_with_slots(each[name], slots) for each in found]) for name in names}


def _with_slots(values: np.ndarray, slots: int) -> np.ndarray:
    """(1, D, ...) with empty slots after the others."""
    return np.pad(values, [(0, 0), (0, slots - values.shape[1])] + [(0, 0)] * (values.ndim - 2))
