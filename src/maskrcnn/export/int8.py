"""An exported network in int8: one ONNX file whose layers multiply whole numbers of 8 bits, for both engines.

NNCF puts a pair of QuantizeLinear and DequantizeLinear before each layer, chooses the ranges by what the layers see in
images, and corrects the biases. Everything behind the layers, such as the arithmetic of boxes, stays in float.
Then the pairs are placed as the engine wants them, because a layer that stays in float takes six times as long.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, MissingPackageError
from maskrcnn.export.check import DifferentError
from maskrcnn.files.images import read_image
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.norm import GroupNorm
from maskrcnn.predict.exported import Arrays
from maskrcnn.predict.images import preprocess

INSTALL = "pip install 'maskrcnn[int8]'"
LEAST, USUAL, MOST = 8, 64, 300  # images; 300 is NNCF's default, and 64 are usually as good
LAYERS = {"Conv", "Gemm", "MatMul"}  # with constant weights
STOPS = {
    "RoiAlign",
    "TopK",
    "NonMaxSuppression",
    "NonZero",
    "Cast",
    "Softmax",
    "Shape",
}  # behind these the next part begins
BETWEEN = {"Relu", "MaxPool", "Resize", "Add"}  # int8 passes through these, if all they take comes from layers
MOVES = {"Concat", "Gather", "Reshape", "Transpose"}  # these move values and compute none


@dataclass(frozen=True)
class Calibration:
    """What makes an export int8.

    Attributes:
        files: image files. If there are more than 300, 300 are taken evenly from them, because neighbours are alike.
        objection: gets the written network, and says why it is not good enough; None if it is.
        track: wraps the images with their number, for a progress bar.

    Raises:
        ConfigError: fewer than 8 files.
    """

    files: Sequence[Path]
    objection: Callable[[Path], str | None] = lambda written: None
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items

    def __post_init__(self) -> None:
        if len(self.files) < LEAST:
            raise ConfigError(
                f"int8 needs {LEAST} or more images that can be read, and better {USUAL}, found {len(self.files)}; "
                "give images of the kind that the model will see"
            )

    @property
    def chosen(self) -> Sequence[Path]:
        """The files that the network sees."""
        count = min(len(self.files), MOST)
        return [self.files[i * len(self.files) // count] for i in range(count)]


def write_int8(
    source: Path, config: Config, calibration: Calibration, finish: Callable[[], Path], *, unsigned: bool
) -> None:
    """Turns a network into int8. If that is not good enough, it tries again with the last layers of the heads in float.

    Args:
        source: the ONNX file in float, which is replaced.
        finish: makes the export from the new content of `source`, and returns its path.
        unsigned: whether all activations are uint8, as ONNX Runtime needs it. OpenVINO is faster with signed ones.

    Raises:
        MissingPackageError: NNCF is not installed.
        ConfigError: the model finds no object in the images, so that its heads have seen nothing.
        DifferentError: the network is not good enough in either way.
    """
    onnx, nncf = import_nncf()
    model = onnx.load(source)
    inside = int8_nodes(model.graph)
    last = last_layers(model.graph, inside)
    objection: str | None = None
    for in_int8 in (inside, inside - last):
        outside = [node.name for node in model.graph.node if node.name not in in_int8]
        try:
            with _quiet():
                quantised = nncf.quantize(
                    model,
                    nncf.Dataset(_Inputs(calibration, config)),
                    subset_size=MOST,
                    ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
                )
        except nncf.InternalError as error:  # a head has run on no object
            raise ConfigError(
                f"--calibrate: expected images in which the model finds objects, found {len(calibration.chosen)} in "
                f"which some layers see nothing ({error}); give images of the kind that the model will see"
            ) from None
        share_quantised(quantised.graph, in_int8)
        quantise_early(quantised.graph)
        if unsigned:
            make_unsigned(quantised.graph)
        onnx.save(quantised, source)
        objection = calibration.objection(finish())
        if objection is None:
            return
    raise DifferentError(f"int8 costs too much, even with the last layers of the heads in float: {objection}")


def gains_no_speed(network: MaskRCNN) -> bool:
    """Whether ONNX Runtime computes a network in int8 no faster than in fp32 (docs/export.md#speed).

    Group norm takes and gives floats, and ONNX Runtime has int8 only for layers that also give it.
    """
    return any(isinstance(part, GroupNorm) for part in network.modules())


def import_nncf() -> tuple[Any, Any]:
    """The packages `onnx` and `nncf`. NNCF reports its use to its makers unless this variable is set at its import.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")
    try:
        with _quiet():
            import nncf
            import onnx
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"--precision int8 needs {error.name}, which is missing: {INSTALL}") from None
    return onnx, nncf


def int8_nodes(graph: Any) -> set[str]:
    """The names of the layers, and of the operators between layers, of an ONNX graph."""
    constant = {weight.name for weight in graph.initializer}
    constant |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    made: set[str] = set()  # the tensors that come from these nodes
    names: set[str] = set()
    for node in graph.node:
        taken = [name for name in node.input if name and name not in constant]
        is_layer = node.op_type in LAYERS and len(taken) == 1
        if is_layer or (node.op_type in BETWEEN and taken and made.issuperset(taken)):
            names.add(node.name)
            made.update(node.output)
    return names


def last_layers(graph: Any, inside: Collection[str]) -> set[str]:
    """The layers among the nodes `inside` behind which no other layer of the same head follows."""
    followed: set[str] = set()  # the tensors that a layer takes, perhaps through other operators
    last = set()
    for node in reversed(graph.node):
        is_layer = node.name in inside and node.op_type in LAYERS
        leads_on = not followed.isdisjoint(node.output)
        if is_layer and not leads_on:
            last.add(node.name)
        if is_layer or (leads_on and node.op_type not in STOPS):
            followed.update(node.input)
    return last


def share_quantised(graph: Any, inside: Collection[str]) -> None:
    """Lets all that takes the result of a layer take its quantised values, where one of its consumers has them.

    NNCF quantises a map of the pyramid for the layers behind it, and leaves it in float for RoIAlign. ONNX Runtime has
    kernels of whole numbers only for layers whose whole result is quantised.

    Args:
        inside: the layers, and the operators between them, that are in int8.
    """
    made_inside = {name for node in graph.node if node.name in inside for name in node.output}
    pairs: dict[str, tuple[Any, Any]] = {}  # by the tensor that they quantise
    dequantise = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in made_inside:
            pairs[node.input[0]] = (node, dequantise[node.output[0]])
    moved = {node.name for pair in pairs.values() for node in pair}
    ordered = []
    for node in graph.node:
        if node.name in moved:
            continue
        for position, name in enumerate(node.input):
            if name in pairs and node.op_type != "QuantizeLinear":
                node.input[position] = pairs[name][1].output[0]
        ordered.append(node)
        ordered += [part for name in node.output if name in pairs for part in pairs[name]]  # before their consumers
    _replace_nodes(graph, ordered)


def quantise_early(graph: Any) -> None:
    """Puts each QuantizeLinear before the operators that only move what it takes, so that they move bytes.

    The features of 1000 RoIs have 48 MB in float, and an engine joins, sorts and turns them before a layer takes them.
    """
    made = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    early: dict[str, list[Any]] = {}  # new nodes by the tensor that they quantise
    late, moved = set(), set()  # names of the old nodes, and of the tensors that become int8
    for quantise in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        movers = _movers(quantise.input[0], made, readers)
        if not movers:
            continue
        inside = {node.output[0] for node in movers}
        for node in movers:
            for position, name in enumerate(node.input[: len(node.input) if node.op_type == "Concat" else 1]):
                if name not in inside:
                    copy = type(quantise).FromString(quantise.SerializeToString())
                    copy.name, copy.input[0], copy.output[0] = (
                        f"{quantise.name}_{name}",
                        name,
                        f"{quantise.name}_{name}",
                    )
                    early.setdefault(name, []).append(copy)
                    node.input[position] = copy.output[0]
        movers[0].output[0] = quantise.output[0]
        late.add(quantise.name)
        moved |= inside
    ordered = []
    for node in graph.node:
        if node.name not in late:
            ordered.append(node)
            ordered += [quantise for name in node.output for quantise in early.get(name, ())]
    _replace_nodes(graph, ordered)
    for kept in list(graph.value_info):
        if kept.name in moved:
            graph.value_info.remove(kept)  # their types are those of before


def _movers(name: str, made: Mapping[str, Any], readers: Mapping[str, int]) -> list[Any]:
    """The nodes that only move values and give this tensor to one reader, from the last to the first."""
    node = made.get(name)
    if node is None or node.op_type not in MOVES or readers[name] != 1:
        return []
    taken = node.input if node.op_type == "Concat" else node.input[:1]  # the others are places and shapes
    return [node, *(before for each in taken for before in _movers(each, made, readers))]


def _replace_nodes(graph: Any, nodes: Iterable[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]  # they are freed with the old list
    del graph.node[:]
    graph.node.extend(copies)


def make_unsigned(graph: Any) -> None:
    """Moves the activations from -128..127 to 0..255, with their zero points. The values that they stand for stay.

    ONNX Runtime has kernels of whole numbers only for layers that take and give the same type, and what follows a ReLU
    is uint8.
    """
    import onnx

    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for constant in graph.initializer:
        values = onnx.numpy_helper.to_array(constant) if constant.name in zeros else None
        if values is not None and values.dtype == np.int8:
            moved = (values.astype(np.int16) + 128).astype(np.uint8)
            constant.CopyFrom(onnx.numpy_helper.from_array(moved, constant.name))
    for kept in list(graph.value_info):
        if kept.type.tensor_type.elem_type == onnx.TensorProto.INT8:
            graph.value_info.remove(kept)  # their types are those of before


@dataclass(frozen=True)
class _Inputs:
    """The inputs of the network for each image of a calibration, one by one, made anew in each pass."""

    calibration: Calibration
    config: Config

    def __iter__(self) -> Iterator[Arrays]:
        files = self.calibration.chosen
        for file in self.calibration.track(files, len(files)):
            batch = preprocess([read_image(file, channels=self.config.image.channel_names)], self.config)
            sizes = batch.sizes_hw.numpy()
            scale = np.ones(sizes.shape, np.float32)
            yield {"pixels": batch.pixels.numpy(), "sizes_hw": sizes, "original_hw": sizes, "scale_xy": scale}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the progress bars, messages and warnings of NNCF away, which are about its own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
