"""The network as a package of AOTInductor: machine code that libtorch runs, without this package and without Python.

The operators that a trace keeps whole become torchvision's, so that a program needs libtorch and torchvision alone.

Legend: L lists, N boxes per list, R RoIs, C channels, O side of the RoI features.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch._inductor.utils import fresh_cache
from torch._subclasses.fake_tensor import FakeTensor

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError
from maskrcnn.export.network import ExportedNetwork, example, exported_program
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict.exported import keep_quiet_about_cuda
from maskrcnn.weights.model_file import METADATA_KEY

# AOTInductor's settings.
# - dynamic_threads: otherwise the code uses as many threads as this machine has, whatever is set later.
# - layout_optimization: it makes the input of a convolution channels-last, which `_channels_first` forbids.
# - precompile_headers: they serve a later compilation, and leave 300 MB in the folder for temporary files.
SETTINGS = {
    "cpp.dynamic_threads": True,
    "layout_optimization": False,
    "aot_inductor.precompile_headers": False,
}


def require_compiler() -> None:
    """Raises ConfigError if the machine has no C++ compiler."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ConfigError(
            f"--format torch needs a C++ compiler, and {os.environ.get('CXX', 'g++')} is missing: apt-get install g++, "
            "or name another one in CXX"
        ) from None


def write_package(network: MaskRCNN, config: Config, header: str, path: Path) -> None:
    """Compiles a network for the processor of this machine, and writes it with its metadata as one file.

    Raises:
        ConfigError: AOTInductor or the C++ compiler failed.
    """
    keep_quiet_about_cuda()
    table = {torch.ops.maskrcnn.nms.default: nms, torch.ops.maskrcnn.roi_align.default: roi_align}
    traced = exported_program(_channels_first(ExportedNetwork(network, config, "probs")), *example(config))
    settings: dict[str, Any] = {**SETTINGS, "aot_inductor.metadata": {METADATA_KEY: header}}
    with warnings.catch_warnings(), torch.no_grad(), fresh_cache(), open(path, "wb") as file:
        warnings.simplefilter("ignore")  # torch and torchvision warn of their own code
        program = traced.run_decompositions(table)
        _declare_symbols(program)
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=file, inductor_configs=settings)
        except RuntimeError as error:  # the parent of all errors of AOTInductor
            lines = str(error).splitlines() or [type(error).__name__]
            reason = next((line for line in lines if "error:" in line), lines[0]).strip()
            raise ConfigError(
                f"AOTInductor cannot compile this model ({reason}): choose --format onnx, and report this"
            ) from None


def _channels_first(network: ExportedNetwork) -> ExportedNetwork:
    """The same network with channels-first weights.

    A convolution with channels-last weights or input gives channels-last output. Where the number of RoIs depends on
    the image, AOTInductor takes it for channels-first all the same, and what follows reads wrong numbers (torch 2.15).
    """
    for tensor in (*network.parameters(), *network.buffers()):
        # The strides of 1x1 weights say channels-last, too, and `contiguous` would keep them.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return network


def _declare_symbols(program: torch.export.ExportedProgram) -> None:
    """Writes the checks of sizes that depend on the image, in place, by the symbols of the inputs.

    The trace finds that a side s is 32 r, but its earlier checks still say s. AOTInductor declares r alone, and the C++
    compiler fails (torch 2.15; pytorch/pytorch#184624 mended this where both are symbols).
    """
    values = (node.meta.get("val") for node in program.graph.nodes)
    shapes = next(value.fake_mode.shape_env for value in values if isinstance(value, FakeTensor))
    assert shapes is not None
    for symbol, checks in shapes.deferred_runtime_asserts.items():
        stated = [replace(check, expr=shapes.replace(check.expr)) for check in checks]
        shapes.deferred_runtime_asserts[symbol] = stated


def nms(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    """`ops.nms.nms` by one call of torchvision's operator.

    Lists and labels are moved so far apart that they never overlap. float64 keeps the IoU exact.
    """
    lists, count = valid.shape
    group = torch.arange(lists, device=boxes.device)[:, None].expand(lists, count)
    if labels is not None:
        group = group * (labels.max() + 1) + labels
    places = boxes.double()
    places = places + (group * (places.amax() - places.amin() + 1))[..., None]
    index = valid.flatten().nonzero()[:, 0]
    rank = torch.arange(count, 0, -1, device=boxes.device, dtype=places.dtype).expand(lists, count)
    kept = torch.ops.torchvision.nms(places.reshape(-1, 4)[index], rank.reshape(-1)[index], iou_threshold)
    return torch.zeros_like(valid).flatten().index_fill(0, index[kept], True).reshape(lists, count)


def roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """`export.operators.roi_align` by torchvision's operator, for the RoIs of each level, put back into their order."""
    rois = torch.cat([image_index[:, None].to(boxes.dtype), boxes], 1)
    orders, parts = [], []
    for number, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        here = (level == number).nonzero()[:, 0]
        orders.append(here)
        sides = (output_size, output_size)
        parts.append(torch.ops.torchvision.roi_align(feature, rois[here], 1 / stride, *sides, sampling_ratio, aligned))
    pooled = torch.cat(parts)
    return torch.empty_like(pooled).index_copy(0, torch.cat(orders), pooled)
