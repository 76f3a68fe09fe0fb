"""Files of torch.save: the same tensors as torch.load gives, and nothing that runs."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maskrcnn.errors import WeightsError
from maskrcnn.files.torch_zip import DTYPES, LEGACY_MAGIC, read_torch

FORMATS = pytest.mark.parametrize("zipped", [True, False])


def save(value: Any, path: Path, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    assert (path.read_bytes()[:2] == b"PK") == zipped
    assert path.read_bytes().startswith(LEGACY_MAGIC) != zipped
    return path


def refused(path: Path, expected: str) -> None:
    with pytest.raises(WeightsError, match=expected) as caught:
        read_torch(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or a.stride() != b.stride():
            return False
        return torch.equal(bits(a.detach()), bits(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@FORMATS
@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_type_of_elements(tmp_path: Path, zipped: bool, name: str) -> None:
    values = torch.arange(1, 13).reshape(3, 4).to(DTYPES[name])
    found, dropped = read_torch(save({"w": values, "empty": values[:0]}, tmp_path / "w.pth", zipped))
    assert same({"w": values, "empty": values[:0]}, found)
    assert dropped == ()


@FORMATS
def test_views_of_one_storage_share_it(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    views = {"t": whole.t(), "row": whole[2], "part": whole[1:3, ::2], "same": whole, "scalar": whole[3, 5]}
    found, _ = read_torch(save(views, tmp_path / "w.pth", zipped))
    assert same(views, found)
    found["same"][2, 0] = 99
    assert found["t"][0, 2] == found["row"][0] == 99
    assert same(views, read_torch(tmp_path / "w.pth")[0])  # nothing was written to the file


@FORMATS
def test_a_training_file(tmp_path: Path, zipped: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    value = {
        "model": network.state_dict(),
        "parameters": list(network.parameters()),
        "buffer": nn.Buffer(torch.ones(2)),
        "optimizer": optimiser.state_dict(),
        "iteration": 7,
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
    }
    found, _ = read_torch(save(value, tmp_path / "w.pth", zipped))
    assert same(value | {"size": (2, 3), "device": "cuda:1"}, found)
    assert type(found["parameters"][0]) is Tensor
    assert not found["parameters"][0].requires_grad


@FORMATS
def test_tensors_with_attributes_come_without_them(tmp_path: Path, zipped: bool) -> None:
    tensor, parameter = torch.ones(2), nn.Parameter(torch.zeros(3))
    tensor.note = parameter.note = "x"  # type: ignore[attr-defined]
    found, _ = read_torch(save({"t": tensor, "p": parameter}, tmp_path / "w.pth", zipped))
    assert same({"t": tensor, "p": parameter}, found)


@FORMATS
def test_what_torch_refuses_and_is_harmless_is_left_out(tmp_path: Path, zipped: bool) -> None:
    value = {"args": argparse.Namespace(lr=torch.ones(1)), "model": {"w": torch.ones(2)}}
    path = save(value, tmp_path / "w.pth", zipped)
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(path, weights_only=True)
    found, dropped = read_torch(path)
    assert same(found, {"model": value["model"]})
    assert dropped == ("argparse.Namespace",)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_any_layout_is_torch_loads(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], random: Any, zipped: bool
) -> None:
    tensor = torch.arange(300.0)[random.randint(0, 9) :]
    order = random.sample(range(len(shape)), len(shape))
    tensor = tensor[: torch.Size(shape).numel()].reshape(shape).permute(order)
    path = save([tensor], tmp_path_factory.getbasetemp() / "layout.pth", zipped)
    assert same(torch.load(path, weights_only=True), read_torch(path)[0])


@FORMATS
def test_every_cut_is_noticed(tmp_path: Path, zipped: bool) -> None:
    content = save({"w": torch.ones(50), "n": 1}, tmp_path / "w.pth", zipped).read_bytes()
    for end in range(0, len(content) - 1, 23):
        (tmp_path / "w.pth").write_bytes(content[:end])
        with pytest.raises(WeightsError):
            read_torch(tmp_path / "w.pth")


class Dangerous:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@FORMATS
def test_code_does_not_run(tmp_path: Path, zipped: bool) -> None:
    refused(
        save({"w": Dangerous(tmp_path / "canary")}, tmp_path / "w.pth", zipped), "asks for posix.system.*state_dict"
    )
    assert not (tmp_path / "canary").exists()


class Attribute:
    def __init__(self, owner: nn.Module) -> None:
        self.owner, self.sizes, self.function = owner, (1, 2), F.relu


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, eps=0.5)
        self.layers = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU())
        self.register_buffer("passing", torch.ones(1), persistent=False)
        self.attribute = Attribute(self)
        self.threshold = 0.25

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("must not run")


@FORMATS
def test_a_whole_network_is_read_as_data(tmp_path: Path, zipped: bool) -> None:
    network = Network()
    found, dropped = read_torch(save({"model": network, "optimiser": torch.optim.SGD}, tmp_path / "w.pth", zipped))
    module = found["model"]
    assert dropped == ("torch.optim.sgd.SGD",)
    assert module.kind == f"{__name__}.Network"
    assert same(module.state_dict(), dict(network.state_dict()))
    assert module.attributes["threshold"] == 0.25
    assert module.attributes["attribute"] == {"sizes": (1, 2), "function": "torch.nn.functional.relu"}
    assert module.find("norm").attributes["eps"] == 0.5
    assert module.find("layers.1").kind == "torch.nn.modules.activation.ReLU"
    assert module.find("layers.7") is module.find("norm.x") is None


def test_a_network_of_an_old_torch_names_its_classes_with_their_source(tmp_path: Path) -> None:
    """Before version 1.6 the class of a module was a persistent id with the text of its source file."""
    network = nn.Sequential(nn.Linear(2, 3))

    path = save(network, tmp_path / "w.pth", False)
    content = path.read_bytes()
    old = b"ctorch.nn.modules.linear\nLinear\n"
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, b"(X\x06\x00\x00\x00module" + old + b"NX\x01\x00\x00\x00xtQ"))
    found, dropped = read_torch(path)
    assert same(found.state_dict(), dict(network.state_dict()))
    assert found.children["0"].kind == "torch.nn.modules.linear.Linear"
    assert dropped == ()


def with_pickle(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """The archive with another data.pkl."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return path


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert content.count(old) == 1
        return content.replace(old, new)

    return change


# In the pickle of a tensor of shape (3,): offset 0, size (3,), stride (1,).
LAYOUT = b"K\x00K\x03\x85q\x08K\x01\x85q\t"


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (b"K\x01K\x03\x85q\x08K\x01\x85q\t", "in a storage of 3 elements"),
        (b"K\x00K\x03\x85q\x08K\x02\x85q\t", "in a storage of 3 elements"),
        (b"K\x00K\x04\x85q\x08K\x01\x85q\t", "in a storage of 3 elements"),
        (b"K\x00J\xff\xff\xff\x7f\x85q\x08K\x00\x85q\t", "in a storage of 3 elements"),
        (b"J\xff\xff\xff\xffK\x03\x85q\x08K\x01\x85q\t", "from -1"),
        (b"K\x00K\x03\x85q\x08J\xff\xff\xff\xff\x85q\t", "stride"),
        (b"K\x00K\x03\x85q\x08)q\t", "stride"),
        (b"K\x00NK\x01\x85q\t", "cannot be read"),
    ],
)
def test_tensors_outside_of_their_storage(tmp_path: Path, layout: bytes, expected: str) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "w.pth")
    assert torch.equal(read_torch(with_pickle(path, replaced(LAYOUT, LAYOUT)))[0]["w"], torch.ones(3))
    refused(with_pickle(path, replaced(LAYOUT, layout)), expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009", "cannot be read"),
        (b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00../..", "cannot be read"),
        (b"ctorch\nFloatStorage\n", b"ctorch\nDoubleStorage\n", "should have 24 bytes, found 12"),
        (b"ctorch\nFloatStorage\n", b"ctorch\nQInt8Storage\n", "a storage of 'torch.QInt8Storage'"),
        (b"ctorch\nFloatStorage\n", b"cposix\nsystem\n", "asks for posix.system"),
        (b"ctorch\nFloatStorage\n", b"Nq\x04(", "cannot be read"),
    ],
)
def test_storages_that_are_none(tmp_path: Path, old: bytes, new: bytes, expected: str) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "w.pth")
    refused(with_pickle(path, replaced(old, new)), expected)


def test_persistent_ids_that_are_none(tmp_path: Path) -> None:
    path = save({}, tmp_path / "w.pth")
    for pid in (b"N", b"X\x01\x00\x00\x00a", b"(X\x07\x00\x00\x00storageNNNNt", b"(X\x06\x00\x00\x00modulet"):
        refused(with_pickle(path, lambda _, pid=pid: b"\x80\x02" + pid + b"Q."), "cannot be read")


def test_storages_that_lie_at_odd_places(tmp_path: Path) -> None:
    """torch aligns them; an archive that another program packed again does not."""
    odd = 0
    for size in range(8):
        path = save({"w": torch.arange(3.0).double(), "note": "x" * size}, tmp_path / "w.pth")
        content = with_pickle(path, lambda pickle: pickle).read_bytes()
        odd += content.index(torch.arange(3.0).double().numpy().tobytes()) % 8 > 0
        found = read_torch(path)[0]["w"]
        assert found.tolist() == [0, 1, 2]
        assert found.data_ptr() % 8 == 0
    assert odd > 0


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    refused(path, "archive/data.pkl is compressed")


def test_files_of_an_archive_that_claim_the_same_bytes(tmp_path: Path) -> None:
    """Every entry of the index leads to the same storage: a small file with endless tensors."""
    path = save({"w": torch.ones(10_000)}, tmp_path / "w.pth")
    with zipfile.ZipFile(path, "a") as archive:
        entry = archive.getinfo("w/data/0")
        archive.filelist += [entry] * 5
        archive._didModify = True  # type: ignore[attr-defined]
    refused(path, "claim more than")


def test_an_archive_of_a_big_endian_machine(tmp_path: Path) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "w.pth")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"little", b"big   "))
    refused(path, "big-endian")


def test_tensors_lie_in_the_file_until_they_are_read(tmp_path: Path) -> None:
    path = save({"w": torch.zeros(1 << 24)}, tmp_path / "w.pth")

    def anonymous() -> int:
        status = Path("/proc/self/status")
        if not status.exists():
            pytest.skip("no /proc")
        return int(status.read_text().split("RssAnon:")[1].split()[0]) * 1024

    before = anonymous()
    found, _ = read_torch(path)
    assert anonymous() - before < 16 << 20
    assert found["w"].sum() == 0
