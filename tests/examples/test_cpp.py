"""The C++ programs in examples/ find what PyTorch finds."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from PIL import Image

import maskrcnn
from maskrcnn.cli import main
from maskrcnn.config import Category
from maskrcnn.errors import WeightsError
from maskrcnn.export import package
from maskrcnn.export.check import FoundObjects, pairs_of
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.structures.instances import Instances
from small_network import lively_network, network_config
from variants import ONE_LEVEL

SOURCES = Path(__file__).resolve().parents[2] / "examples" / "cpp"
HEADERS = "com.github.asus4.onnxruntime@0.4.9"  # the npm package with the headers of ONNX Runtime
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake and g++"),
]


class Case(NamedTuple):
    """A model in PyTorch and as a file, and pictures: one smaller than the network input, one larger."""

    model: Predictor
    file: Path
    pictures: list[Path]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("cpp")
    config = network_config(num_classes=2, neck="c5", anchors=ONE_LEVEL)
    config = replace(config, categories=(Category(3, "blue"), Category(7, 'a "red" é')))
    model = Predictor(TorchBackend(lively_network(config).eval()), config, {"steps": 5})
    model.save(folder / "model.safetensors")
    pictures, rng = [folder / "small.ppm", folder / "large.ppm"], np.random.default_rng(0)
    for file, (height, width) in zip(pictures, ((50, 70), (230, 300)), strict=True):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    return Case(model, folder / "model.safetensors", pictures)


def built(name: str, folder: Path, **settings: Path | str) -> Path:
    """The program of that name, which CMake builds."""
    words = ["-DCMAKE_BUILD_TYPE=None", *(f"-D{key}={value}" for key, value in settings.items())]
    for command in (["cmake", "-S", str(SOURCES), "-B", str(folder), *words], ["cmake", "--build", str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / name


def assert_program_finds(program: Path, file: Path, picture: Path, expected: Instances) -> None:
    """The objects of PyTorch: edges within 0.01 px, scores within 2e-4, and masks of an IoU of 0.999."""
    folder = program.parent / picture.stem
    folder.mkdir()
    done = subprocess.run([program, file, picture], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    rows = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    found = FoundObjects(rows[:, 2:], rows[:, 1], rows[:, 0].astype(np.int64))
    pairs = pairs_of(found, FoundObjects(expected.boxes, expected.scores, expected.labels), 0.0)
    assert len(rows) == len(expected)
    assert len(pairs) >= 0.95 * len(expected) > 10
    assert expected.masks is not None
    both = either = 0
    for ours, theirs in pairs:
        mask = np.array(Image.open(folder / f"mask_{ours}.pgm")) > 0
        truth = expected.masks[theirs].dense() > 0
        both, either = both + int((mask & truth).sum()), either + int((mask | truth).sum())
    assert both >= 0.999 * either > 0


def test_a_package_of_torch_in_cpp_and_python(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(package.SETTINGS, "aot_inductor.debug_compile", True)  # unoptimised code is compiled faster
    file = tmp_path / "model.pt2"
    assert main(["export", "--model", str(case.file), "--format", "torch", str(file)]) == 0
    assert "objects in generated images agree with PyTorch's" in capsys.readouterr().out
    loaded = maskrcnn.load(file, threads=torch.get_num_threads())
    assert (loaded.config, loaded.provenance) == (case.model.config, {"steps": 5})
    images = [np.array(Image.open(picture)) for picture in case.pictures]
    images += [np.full((1, 1, 3), 9, np.uint8), images[1][:, :25]]
    for found, expected in zip(loaded.predict(images, 3), case.model.predict(images, 3), strict=True):
        sides = (FoundObjects(each.boxes, each.scores, each.labels) for each in (found, expected))
        assert len(pairs_of(*sides, 0.0)) >= 0.95 * len(expected)

    assert all(len(source.read_text().splitlines()) <= 80 for source in SOURCES.iterdir())
    folders = {"TORCH": Path(torch.__file__).parent, "TORCHVISION": Path(torchvision.__file__).parent}
    program = built("predict_torch", tmp_path / "build", **folders)
    for picture in case.pictures:
        assert_program_finds(program, file, picture, case.model.predict(picture)[0])
    failed = subprocess.run([program, file, case.file], capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "expected a PPM file" in failed.stderr

    (tmp_path / "cut.pt2").write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(WeightsError, match=r"cut\.pt2: expected a whole exported network"):
        maskrcnn.load(tmp_path / "cut.pt2")


@pytest.mark.npm
def test_a_file_of_onnx_in_cpp(case: Case, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm: apt-get install npm")
    subprocess.run([npm, "pack", HEADERS], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    (packed,) = tmp_path.glob("*.tgz")
    subprocess.run(["tar", "xzf", packed, "--wildcards", "*-simulator/*/Headers/*"], cwd=tmp_path, check=True)
    headers = next(tmp_path.rglob("onnxruntime_cxx_api.h")).parent
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)  # the name by which a program looks for it
    file = tmp_path / "model.onnx"
    assert main(["export", "--model", str(case.file), "--with-resize", str(file)]) == 0
    folders = {"ONNXRUNTIME_HEADERS": headers, "ONNXRUNTIME_LIBRARY": tmp_path / "libonnxruntime.so.1"}
    program = built("predict_onnx", tmp_path / "build", **folders)
    for picture in case.pictures:
        assert_program_finds(program, file, picture, case.model.predict(picture)[0])
    failed = subprocess.run([program, case.file, case.pictures[0]], capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: ")
