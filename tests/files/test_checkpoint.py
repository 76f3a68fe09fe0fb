"""One function opens every kind of checkpoint, and says what a file is that is none."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import re
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from maskrcnn.errors import MissingPackageError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint, read_checkpoint

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2, dtype=torch.float64)}
ARRAYS = {name: value.numpy() for name, value in WEIGHTS.items()}


def write_hdf5(path: Path, arrays: dict[str, np.ndarray], top: str = "/") -> None:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = np.bytes_("2.15.0")
        group = file.require_group(top)
        group.attrs["layer_names"] = [np.bytes_(name.split("/")[0]) for name in arrays]
        for name, array in arrays.items():
            group[name] = array


WRITERS: dict[str, Callable[[Path], object]] = {
    "torch": lambda path: torch.save(WEIGHTS, path),
    "torch legacy": lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
    "pickle": lambda path: path.write_bytes(pickle.dumps(ARRAYS)),
    "pickle 0": lambda path: path.write_bytes(pickle.dumps(ARRAYS, 0)),
    "pickle 1": lambda path: path.write_bytes(pickle.dumps(ARRAYS, 1)),
    "pickle 2": lambda path: path.write_bytes(pickle.dumps(ARRAYS, 2)),
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "npz": lambda path: write_npz(path, np.savez),
    "npz compressed": lambda path: write_npz(path, np.savez_compressed),
    "hdf5": lambda path: write_hdf5(path, ARRAYS),
}


def write_npz(path: Path, writer: Callable[..., None]) -> None:
    with open(path, "wb") as file:
        writer(file, **ARRAYS)


def opened(path: Path, value: Any = None) -> Checkpoint:
    if value is not None:
        torch.save(value, path)
    return read_checkpoint(path)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def refused(path: Path, expected: str) -> str:
    with pytest.raises(WeightsError, match=expected) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("suffix", [".pth", ".png", ""])
def test_the_content_tells_the_kind(tmp_path: Path, kind: str, suffix: str) -> None:
    WRITERS[kind](tmp_path / f"w{suffix}")
    found = read_checkpoint(tmp_path / f"w{suffix}")
    assert found.container == kind.split()[0]
    assert same(found.tensors, WEIGHTS)
    assert found.dropped == ()
    for value in found.tensors.values():
        value += 1  # they can be written, which changes nothing in the file
    assert same(read_checkpoint(tmp_path / f"w{suffix}").tensors, WEIGHTS)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_cut_file_is_noticed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w"
    WRITERS[kind](path)
    content = path.read_bytes()
    for share in (0.02, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        refused(path, "truncated|not a whole|get the file again|the right one and whole")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_byte_order_and_precision_are_kept(tmp_path: Path, protocol: int) -> None:
    for dtype in (">f2", ">f4", ">f8", "<f2", ">i8", "u2", "?"):
        array = np.array([[1, 0, 1], [0, 1, 1]], dtype)
        expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        assert same(pickled(tmp_path, {"w": array}, protocol).tensors, {"w": expected})


def pickled(folder: Path, value: Any, protocol: int = 4) -> Checkpoint:
    (folder / "w.pkl").write_bytes(pickle.dumps(value, protocol))
    return read_checkpoint(folder / "w.pkl")


# What is left of a file after somebody changed it.


def checkpoint_of(kind: str, folder: Path) -> bytes:
    """A small training file as the frameworks write it."""
    logs = {"epoch": 3, "cfg": "MODEL: 1", "args": argparse.Namespace(lr=0.1), "names": np.array(["a", "b"]), "f": {1}}
    optimiser = torch.optim.SGD([torch.ones(2, requires_grad=True)], 0.1, momentum=0.9).state_dict()
    if kind.startswith("pickle"):
        return pickle.dumps({"model": ARRAYS | {"big": np.ones(3, ">f4")}, **logs}, int(kind[-1]))
    if kind.startswith("torch"):
        value = {"model": collections.OrderedDict(WEIGHTS), "optimizer": optimiser, **logs, "names": ["a", "b"]}
        torch.save(value, folder / "w", _use_new_zipfile_serialization=kind == "torch")
    else:
        WRITERS[kind](folder / "w")
    return (folder / "w").read_bytes()


KINDS = [
    *(f"pickle {protocol}" for protocol in range(6)),
    "torch",
    "torch legacy",
    "npz",
    "npz compressed",
    "safetensors",
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_change_gives_a_checkpoint_or_one_error(tmp_path: Path, kind: str) -> None:
    content, path = checkpoint_of(kind, tmp_path), tmp_path / "changed"
    path.write_bytes(content)
    read_checkpoint(path)

    @given(st.data())
    def change(data: st.DataObject) -> None:
        changed = bytearray(content)
        for _ in range(data.draw(st.integers(1, 3))):
            start = data.draw(st.integers(0, len(changed)))
            end = min(len(changed), start + data.draw(st.integers(0, 4)))
            other = data.draw(st.integers(0, len(content)))
            changed[start:end] = data.draw(
                st.one_of(st.binary(max_size=4), st.just(content[other : other + data.draw(st.integers(0, 40))]))
            )
        path.write_bytes(changed)
        with suppress(WeightsError):
            read_checkpoint(path)

    change()


# Where the weights are.


def test_the_files_of_the_frameworks(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    module = {f"module.{name}": value for name, value in WEIGHTS.items()}
    optimiser = {"state": {0: {"momentum": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    cases: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
        (WEIGHTS, {}, ()),
        ({"model": WEIGHTS, "optimizer": optimiser, "iteration": 9}, {"iteration": 9}, ("optimizer",)),
        (
            {"meta": {"epoch": 1, "CLASSES": ("a", "b")}, "state_dict": module},
            {"meta": {"epoch": 1, "CLASSES": ("a", "b")}},
            (),
        ),
        ({"model_state": WEIGHTS, "cfg": "MODEL: 1"}, {"cfg": "MODEL: 1"}, ()),
        ({"epoch": torch.tensor(3), "model": WEIGHTS}, {}, ("epoch",)),
        ({"epoch": 3, "ema": {"state_dict": module, "decay": 0.9}}, {"epoch": 3, "decay": 0.9}, ()),
        ({"epoch": 3, "my_net": WEIGHTS}, {"epoch": 3}, ()),
        ({**WEIGHTS, "version": 2, "none": None}, {"version": 2, "none": None}, ()),
    ]
    for value, extra, dropped in cases:
        found = opened(path, value)
        assert same(found.tensors, WEIGHTS)
        assert found.extra == extra
        assert found.dropped == dropped


def test_the_files_of_detectron_and_detectron2(tmp_path: Path) -> None:
    found = pickled(tmp_path, {"blobs": ARRAYS, "cfg": "TRAIN: 1"}, 2)
    assert same(found.tensors, WEIGHTS)
    assert found.extra == {"cfg": "TRAIN: 1"}
    found = pickled(tmp_path, {"model": ARRAYS, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True})
    assert found.extra == {"__author__": "Detectron2 Model Zoo", "matching_heuristics": True}


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    value = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert same(opened(tmp_path / "w.pth", value).tensors, value)


@pytest.mark.parametrize(
    "wrapped",
    ["module.{}", "model.{}", "net.{}", "detector.{}", "model.module.{}", "module._orig_mod.{}", "ema_model.module.{}"],
)
def test_the_names_of_wrappers_are_taken_off(tmp_path: Path, wrapped: str) -> None:
    value = {wrapped.format(name): tensor for name, tensor in WEIGHTS.items()}
    assert same(opened(tmp_path / "w.pth", {"state_dict": value}).tensors, WEIGHTS)


def test_the_count_of_averaged_models_is_no_weight(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    averaged = torch.optim.swa_utils.AveragedModel(nn.ModuleDict({"net": nn.ModuleDict({"head": network})}))
    found = opened(tmp_path / "w.pth", averaged.state_dict())
    assert same(found.tensors, {f"head.{name}": value for name, value in network.state_dict().items()})
    assert found.dropped == ("n_averaged",)


def test_compiled_parts_have_the_names_of_parts(tmp_path: Path) -> None:
    value = {"backbone._orig_mod.a": torch.ones(1), "head._fsdp_wrapped_module._orig_mod.b": torch.zeros(2)}
    assert list(opened(tmp_path / "w.pth", value).tensors) == ["backbone.a", "head.b"]


def test_numbered_layers_of_a_model_keep_its_name(tmp_path: Path) -> None:
    value = {"model.0.weight": torch.ones(1), "model.1.weight": torch.ones(1)}
    assert list(opened(tmp_path / "w.pth", value).tensors) == list(value)


@pytest.mark.parametrize("key", [None, "model", "my_net"])
def test_a_whole_network_gives_its_tensors_and_itself(tmp_path: Path, key: str | None) -> None:
    network = nn.ModuleDict({"head": nn.Linear(2, 3)})
    value = nn.DataParallel(network)
    torch.save(value if key is None else {key: value, "epoch": 3}, tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth")
    assert same(found.tensors, dict(network.state_dict()))
    assert found.network is not None
    assert found.network.find("head") is not None
    assert found.extra == ({} if key is None else {"epoch": 3})


TEACHER = {name: value + 1 for name, value in WEIGHTS.items()}
OPTIMISER = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
PAIRS = {
    "entries": {"student": WEIGHTS, "teacher": TEACHER, "optimizer": OPTIMISER, "epoch": 3},
    "entries around": {"student": {"state_dict": WEIGHTS}, "teacher": {"state_dict": TEACHER}},
    "entries inside": {"model": {"student": WEIGHTS, "teacher": TEACHER}},
    "wrapped": {"student": WEIGHTS, "teacher": {f"module.{name}": value for name, value in TEACHER.items()}},
}


@pytest.mark.parametrize("name", PAIRS)
def test_one_of_two_networks_is_chosen_by_its_name(tmp_path: Path, name: str) -> None:
    torch.save(PAIRS[name], tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"w\.pth: .*found those of 'student', 'teacher'; .*--part student, or part="
    ):
        read_checkpoint(tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth", "teacher")
    assert same(found.tensors, TEACHER)
    assert found.parts == ()
    with pytest.raises(WeightsError, match="found those of 'student', 'teacher'"):
        read_checkpoint(tmp_path / "w.pth", "teachers")


@pytest.mark.parametrize("key", ["model_ema", "ema_state_dict", "teacher"])
def test_averages_beside_the_usual_weights_are_offered(tmp_path: Path, key: str) -> None:
    averages = {"module": {"module": TEACHER}} if key == "teacher" else {f"module.{n}": v for n, v in TEACHER.items()}
    torch.save({"model": WEIGHTS, key: averages, "optimizer": OPTIMISER}, tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth")
    assert same(found.tensors, WEIGHTS)
    assert found.parts == (key,)
    assert same(read_checkpoint(tmp_path / "w.pth", key).tensors, TEACHER)
    with pytest.raises(WeightsError, match=rf"expected a part 'ema', found '{key}', "):
        read_checkpoint(tmp_path / "w.pth", "ema")


def test_a_part_may_be_the_beginning_of_names(tmp_path: Path) -> None:
    both = {f"student.{name}": value for name, value in WEIGHTS.items()}
    both |= {f"teacher.module.{name}": value for name, value in TEACHER.items()}
    torch.save({"model": both}, tmp_path / "w.pth")
    for part in ("teacher", "teacher.", "teacher.module"):
        assert same(read_checkpoint(tmp_path / "w.pth", part).tensors, TEACHER)
    with pytest.raises(WeightsError, match=r"w\.pth: expected a part 'tutor', found 'student', 'teacher'"):
        read_checkpoint(tmp_path / "w.pth", "tutor")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (OPTIMISER, ""),
        ({"optimizer": OPTIMISER, "epoch": 3}, " under 'optimizer'"),
        ({"optimizer_states": [OPTIMISER], "loops": {}}, " under 'optimizer_states'"),
        ({"optimizer": OPTIMISER, "scaler": {"scale": torch.ones(1)}}, " under 'optimizer'"),
        ({"optimizer": OPTIMISER, "step": torch.ones(1)}, " under 'optimizer'"),
    ],
)
def test_the_state_of_an_optimiser_is_named(tmp_path: Path, content: Any, where: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"found only the state of an optimiser{where}; give the file"):
        read_checkpoint(tmp_path / "w.pth")


def test_a_compiled_network_is_the_network_in_it(tmp_path: Path) -> None:
    network = nn.ModuleDict({"head": nn.Linear(2, 3)})
    torch.save({"model": torch.compile(network)}, tmp_path / "w.pth")
    assert same(read_checkpoint(tmp_path / "w.pth").tensors, dict(network.state_dict()))


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")])
def test_tensors_of_other_kinds_are_named(tmp_path: Path, change: Callable[[Tensor], Tensor]) -> None:
    torch.save({"a.weight": change(torch.ones(2, 2))}, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"found only what is not read: torch\._utils\._rebuild_(sparse|meta)"):
        read_checkpoint(tmp_path / "m.pth")


def test_hdf5_below_model_weights(tmp_path: Path) -> None:
    arrays = {
        "conv1/conv1/kernel:0": np.ones((3, 3, 2, 4), np.float32),
        "rpn_model/rpn/bias:0": np.zeros(2, np.float16),
    }
    write_hdf5(tmp_path / "w.h5", arrays, "model_weights")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["optimizer_weights/iterations:0"] = 3
    found = read_checkpoint(tmp_path / "w.h5")
    assert same(found.tensors, {name: torch.from_numpy(array) for name, array in arrays.items()})
    assert found.extra == {"keras_version": "2.15.0", "layer_names": ["conv1", "rpn_model"]}


def test_safetensors_metadata_is_extra(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w", metadata={"format": "pt"})
    assert read_checkpoint(tmp_path / "w").extra == {"format": "pt"}


def test_data_that_would_grow_without_end_is_refused(tmp_path: Path) -> None:
    level: list[Any] = [1]
    for _ in range(50):
        level = [level] * 10
    with pytest.raises(WeightsError, match="more memory than a file of its size justifies"):
        pickled(tmp_path, {"model": ARRAYS, "log": level})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], "found list"),
        ("text", "found str"),
        ({}, "found {nothing}"),
        ({"epoch": 3}, "found {'epoch': int}"),
        ({3: np.ones(2)}, "found the name 3"),
        ({"a": {"w": np.ones(2)}, "b": {"w": np.ones(2)}}, "found {'a': dict, 'b': dict}"),
        ({"model": {"deep": {"deeper": {}}}}, "found {'model': dict}"),
    ],
)
def test_files_without_tensors_by_name(tmp_path: Path, value: Any, expected: str) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(value))
    refused(tmp_path / "w.pkl", re.escape(expected))


# Other files.


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    (tmp_path / "model_final.pkl").touch()
    refused(tmp_path / "model_fnal.pkl", "no such file; did you mean .*model_final.pkl")
    refused(tmp_path / "nothing" / "w.pth", "no such file, expected weights")
    refused(tmp_path, "is a folder, .*; it contains model_final.pkl")
    refused(tmp_path / "model_final.pkl", "the file is empty")
    (tmp_path / "saved_model.pb").touch()
    refused(tmp_path, "the folder of a TensorFlow SavedModel")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that exists and cannot be read")
def test_a_file_that_cannot_be_read() -> None:
    refused(Path("/proc/self/mem"), "cannot be read .Input/output error")


def image(path: Path, kind: str) -> None:
    Image.new("RGB", (40, 30)).save(path, kind)


def gz(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__)


def zipped(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)


def write_npy(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.ones(3))


def scripted(path: Path) -> None:
    with torch.jit.optimized_execution(False):
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "png": (lambda path: image(path, "PNG"), "found a PNG image; images go to `maskrcnn predict`"),
    "jpeg": (lambda path: image(path, "JPEG"), "found a JPEG image"),
    "bmp": (lambda path: image(path, "BMP"), "found an image"),
    "tiff": (lambda path: image(path, "TIFF"), "found an image"),
    "webp": (lambda path: image(path, "WEBP"), "found an image"),
    "text": (lambda path: path.write_text("some words\n" * 1000), "found a text file"),
    "umlauts": (lambda path: path.write_text("å" * 5000, "utf-8"), "found a text file"),
    "yaml": (lambda path: path.write_text("# settings\nMODEL:\n  WEIGHTS: x.pkl\n"), "found a YAML file; .*checkpoint"),
    "json": (lambda path: path.write_text(json.dumps({"a": 1})), "found a JSON file"),
    "html": (lambda path: path.write_text("\n<!DOCTYPE html><html>"), "found a web page; the download went wrong"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "tar": (tar, "found a tar archive; unpack"),
    "gz": (gz, "found a compressed file; unpack"),
    "npy": (lambda path: write_npy(path), "found a single array of numpy"),
    "bytes": (lambda path: path.write_bytes(bytes(range(256)) * 9), r"an unknown format \(00 01 02"),
    "saved model": (
        lambda path: path.write_bytes(b"\x08\x01\x12\x8c\x93\x02" + b"\x0a" * 99),
        "a TensorFlow SavedModel",
    ),
    "frozen graph": (
        lambda path: path.write_bytes(b"\x0a\x2e\x0a\x05input\x12\x0bPlaceholder" + bytes(99)),
        "frozen graph",
    ),
    "index": (lambda path: path.write_bytes(bytes(99) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"), "TensorFlow checkpoint"),
    "tflite": (lambda path: path.write_bytes(b"\x20\0\0\0TFL3" + bytes(99)), "a TensorFlow Lite model"),
    "TensorRT": (lambda path: path.write_bytes(b"ftrt" + bytes(range(99))), "found a TensorRT engine"),
    "TensorRT of Ultralytics": (lambda path: path.write_bytes(b"\x05\0\0\0{...}ftrt" + bytes(9)), "a TensorRT engine"),
    "OpenVINO": (
        lambda path: path.write_text('<?xml version="1.0"?>\n<net name="m" version="11">'),
        "found an OpenVINO network; give the checkpoint that it was exported from",
    ),
    "GluonCV": (lambda path: path.write_bytes(b"\x12\x01" + bytes(99)), "found parameters of MXNet"),
    "ncnn": (lambda path: path.write_text("7767517\n75 83\n"), "found an ncnn network"),
    "web page behind a byte order mark": (lambda path: path.write_bytes(b"\xef\xbb\xbf<!DOCTYPE html>"), "a web page"),
    "answer of a storage": (
        lambda path: path.write_text("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
        "found an error message of a server; the download went wrong",
    ),
    "onnx": (lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(99)), "found an ONNX model"),
    "zip": (lambda path: zipped(path, a="1", b__c="2"), r"a zip archive of other files \(a, b/c\)"),
    "empty zip": (lambda path: zipped(path), r"a zip archive of other files \(none\)"),
    "keras 3": (lambda path: zipped(path, **{"config.json": "{}", "model.weights.h5": ""}), "an archive of Keras 3"),
    "torchscript": (scripted, "a TorchScript archive, which holds code; save"),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("m.engine", "TensorRT"), ("m.PLAN", "TensorRT"), ("m.bin", "OpenVINO"), ("yolo.weights", "Darknet")],
)
def test_bytes_that_say_nothing_are_named_by_the_file_name(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(range(7, 200)))
    with pytest.raises(WeightsError, match=rf"found .*{kind}.*; give the checkpoint that it was exported from"):
        read_checkpoint(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_named(tmp_path: Path, kind: str) -> None:
    write, expected = FOREIGN[kind]
    write(tmp_path / "w.pth")
    refused(tmp_path / "w.pth", expected)


def test_the_data_of_a_tensorflow_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(1000))
    refused(tmp_path / "model.ckpt.data-00000-of-00001", "a part of a TensorFlow checkpoint; .*numpy.savez")


def test_hdf5_of_other_data(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["measurement/x"] = np.ones(3)
    refused(path, r"HDF5 with other data \(measurement\)")
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(3)
    refused(path, "the format of Keras 3.*save_weights")
    with h5py.File(path, "w"):
        pass
    refused(path, r"other data \(nothing\)")


def test_hdf5_that_reads_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret!!" * 2)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/kernel:0", (4,), "f4", external=[(str(secret), 0, 16)])
    refused(path, "refused, because a/kernel:0 is stored in another file")
    write_hdf5(tmp_path / "other.h5", {"a/kernel:0": np.ones(4, np.float32)})
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a/kernel:0", (4,))
        file.create_virtual_dataset("a/kernel:0", layout)
    refused(path, "is stored in another file")
    with h5py.File(path, "w") as file:
        file["b/kernel:0"] = np.ones(2, np.float32)
        file["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "a")
    assert list(read_checkpoint(path).tensors) == ["b/kernel:0"]
    for link in (h5py.ExternalLink(str(tmp_path / "other.h5"), "a"), h5py.SoftLink("/a")):
        with h5py.File(path, "w") as file:
            file["model_weights"] = link
        refused(path, "refused, because model_weights is a link")


def test_hdf5_of_odd_types(tmp_path: Path) -> None:
    """What is no tensor is left out: numbers of 16 bytes, records, references, lists of any length."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["a/kernel:0"] = np.ones(3, np.float32)
        file["a/scalar:0"] = 3.0
        for name, value in (("longdouble", np.ones(2, np.longdouble)), ("text", [b"x"]), ("empty", h5py.Empty("f4"))):
            file[f"a/{name}:0"] = file.attrs[name] = value
        file["a/type"] = np.dtype("f4")
        file["loop"] = file["a"]
        for name, kind in (("ref", h5py.ref_dtype), ("lists", h5py.vlen_dtype(np.float32)), ("record", [("x", "f4")])):
            file.create_dataset(f"a/{name}:0", (2,), kind)
        file.attrs["texts"] = np.array(["long"] * 3, h5py.string_dtype())
        file.attrs["keras_version"] = "2.1"
    found = read_checkpoint(path)
    assert sorted(found.tensors) == ["a/kernel:0"]
    assert found.extra == {"a/scalar:0": 3.0, "keras_version": "2.1"}
    with h5py.File(path, "w") as file:
        file["/".join("a" * 100)] = np.ones(3)
    refused(path, "groups nested deeper than 50")


@pytest.mark.slow
def test_bombs(tmp_path: Path) -> None:
    bombs = [tmp_path / name for name in ("w.h5", "w.npz", "header.npz")]
    with h5py.File(bombs[0], "w") as file:
        file.create_dataset("a/kernel:0", (1 << 40,), "f4", chunks=(1 << 10,))
    with zipfile.ZipFile(bombs[1], "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as entry:
        np.lib.format.write_array_header_1_0(entry, {"descr": "|u1", "fortran_order": False, "shape": (100_000_000,)})
        for _ in range(100):
            entry.write(bytes(1_000_000))
    with zipfile.ZipFile(bombs[2], "w") as archive, archive.open("a.npy", "w") as entry:
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": True, "shape": (1 << 30, 512)})
    for path, expected in zip(bombs, ["unpack to", "unpack to", "needs 2199023255552 bytes, found 0"], strict=True):
        tracemalloc.start()
        refused(path, expected)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()


def test_an_entry_that_unpacks_to_more_than_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(100_000_000))
    content = path.read_bytes()
    path.write_bytes(content.replace((100_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    tracemalloc.start()
    refused(path, "not a whole .npz file")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_objects_in_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([print, None], object))
    refused(tmp_path / "w.npz", "refused, because it holds an array of Python objects")
    np.savez(tmp_path / "w.npz", a=np.zeros(2, [("x", "f4")]))
    refused(tmp_path / "w.npz", "not supported")


def test_texts_in_npz_are_extra(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.ones(2), names=np.array(["x", "yz"]))
    assert read_checkpoint(tmp_path / "w.npz").extra == {"names": ["x", "yz"]}


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(tmp_path / "w.h5", ARRAYS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'maskrcnn\[keras\]'"):
        read_checkpoint(tmp_path / "w.h5")


# The real files, and the names that each framework gives (CHECKPOINTS.md, section 2).

NAMES = {
    "detectron2/r50_fpn/model_final.pkl": [
        "backbone.bottom_up.stem.conv1.weight",
        "backbone.bottom_up.stem.conv1.norm.running_mean",
        "backbone.bottom_up.res2.0.shortcut.norm.weight",
        "backbone.bottom_up.res5.2.conv3.weight",
        "backbone.fpn_lateral2.weight",
        "backbone.fpn_output5.bias",
        "proposal_generator.rpn_head.conv.weight",
        "proposal_generator.rpn_head.objectness_logits.weight",
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.box_head.fc1.weight",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.mask_head.mask_fcn4.weight",
        "roi_heads.mask_head.deconv.weight",
        "roi_heads.mask_head.predictor.weight",
    ],
    "detectron2/r50_c4/model_final.pkl": [
        "backbone.stem.conv1.weight",
        "backbone.res4.5.conv3.norm.bias",
        "roi_heads.res5.2.conv3.weight",
        "roi_heads.mask_head.deconv.weight",
        "roi_heads.mask_head.predictor.weight",
    ],
    "detectron2/cascade_r50_fpn/model_final.pkl": [
        "roi_heads.box_head.2.fc2.weight",
        "roi_heads.box_predictor.2.bbox_pred.weight",
    ],
    "detectron2/keypoint_r50_fpn/model_final.pth": [
        "roi_heads.keypoint_head.conv_fcn1.weight",
        "roi_heads.keypoint_head.score_lowres.weight",
    ],
    "mmdet/r50_caffe_fpn/epoch_12.pth": [
        "backbone.conv1.weight",
        "backbone.layer1.0.downsample.1.running_var",
        "neck.lateral_convs.0.conv.weight",
        "neck.fpn_convs.3.conv.bias",
        "rpn_head.rpn_conv.weight",
        "rpn_head.rpn_cls.weight",
        "rpn_head.rpn_reg.bias",
        "roi_head.bbox_head.shared_fcs.1.weight",
        "roi_head.bbox_head.fc_cls.weight",
        "roi_head.bbox_head.fc_reg.weight",
        "roi_head.mask_head.convs.3.conv.weight",
        "roi_head.mask_head.upsample.weight",
        "roi_head.mask_head.conv_logits.weight",
    ],
    "matterport/resnet50/mask_rcnn_fx.h5": [
        "conv1/conv1/kernel:0",
        "bn_conv1/bn_conv1/moving_variance:0",
        "res2a_branch2a/res2a_branch2a/kernel:0",
        "fpn_c5p5/fpn_c5p5/kernel:0",
        "rpn_model/rpn_conv_shared/kernel:0",
        "rpn_model/rpn_class_raw/bias:0",
        "mrcnn_class_logits/mrcnn_class_logits/kernel:0",
        "mrcnn_mask_deconv/mrcnn_mask_deconv/kernel:0",
        "mrcnn_mask/mrcnn_mask/kernel:0",
    ],
}


@pytest.mark.parametrize("file", NAMES)
def test_the_real_files_open(shared: Path, file: str) -> None:
    found = read_checkpoint(shared / "fixtures" / file)
    assert set(NAMES[file]) - found.tensors.keys() == set()
    assert all(torch.isfinite(value).all() for value in found.tensors.values())
    assert found.dropped == ()


def test_the_real_files_say_what_they_are(shared: Path) -> None:
    fixtures = shared / "fixtures"
    found = read_checkpoint(fixtures / "mmdet/r50_caffe_fpn/epoch_12.pth")
    assert found.extra["meta"]["epoch"] == 12
    assert "model = dict(" in found.extra["meta"]["cfg"]
    found = read_checkpoint(fixtures / "detectron2/r50_fpn/model_final.pkl")
    assert found.extra == {"__author__": "fixture"}
    with open(fixtures / "detectron2/r50_fpn/model_final.pkl", "rb") as file:
        expected = pickle.load(file, encoding="latin1")["model"]
    assert same(found.tensors, {name: torch.from_numpy(array) for name, array in expected.items()})
    path = fixtures / "mmdet/r50_caffe_fpn/epoch_12.pth"
    assert same(read_checkpoint(path).tensors, torch.load(path, weights_only=False)["state_dict"])


@pytest.mark.parametrize("depth", [18, 50])
def test_the_real_backbones_open(shared: Path, depth: int) -> None:
    found = read_checkpoint(shared / "weights" / f"resnet{depth}_imagenet.safetensors")
    assert found.container == "safetensors"
    assert {"conv1.weight", "bn1.running_mean", "layer4.1.conv2.weight"} <= found.tensors.keys()
    assert found.extra["layout"] == "torchvision resnet state dict"
