"""The programs in examples/ find what PyTorch finds."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from browser import chromium
from maskrcnn.config import Category
from maskrcnn.export.check import FoundObjects, pairs_of
from maskrcnn.export.save import export_model
from maskrcnn.predict import Predictor, TorchBackend, preprocess
from maskrcnn.structures.instances import Instances
from small_network import lively_network, network_config
from variants import ONE_LEVEL

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """A model, its ONNX file, a picture of the size of the network input, and one that is resized to it."""

    model: Predictor
    file: Path
    picture: Path
    large: Path

    def expected(self) -> Instances:
        return self.model.predict(self.picture)[0]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("examples")
    config = network_config(num_classes=2, neck="c5", anchors=ONE_LEVEL)
    config = replace(config, categories=(Category(3, "blue"), Category(7, "red")))
    network = lively_network(config).eval()
    export_model(network, config, {}, folder / "model.onnx")
    rng = np.random.default_rng(0)
    for name, size in (("picture", (64, 96)), ("large", (150, 230))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    model = Predictor(TorchBackend(network), config)
    return Case(model, folder / "model.onnx", folder / "picture.png", folder / "large.png")


def assert_same(boxes: Any, scores: Any, names: Any, masks: np.ndarray, expected: Instances) -> None:
    """The objects of PyTorch: edges within 0.01 px, scores within 2e-4, and masks of an IoU of 0.999."""
    labels = np.array([("blue", "red").index(name) for name in names])
    found = FoundObjects(np.array(boxes, np.float32), np.array(scores, np.float32), labels)
    pairs = pairs_of(found, FoundObjects(expected.boxes, expected.scores, expected.labels), 0.0)
    assert len(pairs) >= 0.95 * len(expected) > 10
    assert expected.masks is not None
    ours, theirs = masks[[a for a, _ in pairs]], expected.masks.dense()[[b for _, b in pairs]] > 0
    assert (ours & theirs).sum() >= 0.999 * (ours | theirs).sum()


def test_forty_lines_of_python_with_three_packages(case: Case) -> None:
    script = EXAMPLES / "python" / "predict_onnx.py"
    text = script.read_text()
    assert len(text.splitlines()) <= 40
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert names == {"json", "sys", "numpy", "onnxruntime", "PIL"}

    spec = importlib.util.spec_from_file_location("predict_onnx", script)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    session = example.onnxruntime.InferenceSession(case.file)
    boxes, scores, names_found, masks = example.predict(session, case.picture)
    assert_same(boxes, scores, names_found, masks, case.expected())

    fed: list[dict[str, np.ndarray]] = []

    class Recorded:
        get_modelmeta = session.get_modelmeta

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> Any:
            fed.append(inputs)
            return session.run(names, inputs)

    example.predict(Recorded(), case.large)
    batch = preprocess([np.array(Image.open(case.large))], case.model.config)
    assert fed[0]["sizes_hw"].tolist() == batch.sizes_hw.tolist()
    assert np.abs(fed[0]["pixels"].astype(int) - batch.pixels.numpy()).max() <= 1, "resized as we resize"


class Served(SimpleHTTPRequestHandler):
    def guess_type(self, path: Any) -> str:
        return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def page_address(tmp_path: Path) -> Iterator[str]:
    """The page of the example with what npm installs, on this machine."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm: apt-get install npm")
    folder = tmp_path / "browser"
    shutil.copytree(EXAMPLES / "browser", folder, ignore=shutil.ignore_patterns("node_modules"))
    words = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=300)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


PREDICT = """async (id) => {
    const { open, predict } = await import("./predict.js");
    const bitmap = await createImageBitmap(document.getElementById(id).files[0]);
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
    return predict(await open(await document.getElementById("model").files[0].arrayBuffer()), pixels);
}"""


RESIZED = """async (sizes) => {
    const { resized } = await import("./predict.js");
    const data = Uint8Array.from({ length: 4 * 60 * 80 }, (_, i) => (i * i * 7919) >> 5);
    return sizes.map(([width, height]) => Array.from(resized({ data, width: 80, height: 60 }, width, height)));
}"""
SIZES = ((120, 90), (160, 120), (40, 30), (53, 41))  # width and height; most values lie halfway between two grey levels


def assert_resizes_as_pillow(resized: list[list[int]]) -> None:
    values = np.arange(4 * 60 * 80, dtype=np.int64)
    wrapped = (values * values * 7919).astype(np.int32) >> 5  # JavaScript shifts numbers of 32 bits
    image = Image.fromarray(wrapped.astype(np.uint8).reshape(60, 80, 4)[..., :3].copy())
    for size, found in zip(SIZES, resized, strict=True):
        assert np.ravel(image.resize(size, Image.Resampling.BILINEAR)).tolist() == found, size


@pytest.mark.npm
def test_the_page_finds_the_same_in_a_browser(case: Case, page_address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    complaints: list[str] = []
    asked: set[str] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(page_address)
        status = page.locator("#status")
        page.set_input_files("#model", case.picture)
        expect(status).to_contain_text("Error: expected", timeout=60_000)
        page.set_input_files("#model", case.file)
        expect(status).to_have_text("Choose an image.", timeout=60_000)
        page.set_input_files("#image", case.picture)
        expect(status).to_contain_text(f"{len(case.expected())} with any score", timeout=60_000)
        found = page.evaluate(PREDICT, "image")
        page.set_input_files("#image", case.large)
        expect(status).to_contain_text("with any score", timeout=60_000)
        resized = page.evaluate(PREDICT, "image")
        assert_resizes_as_pillow(page.evaluate(RESIZED, SIZES))
        browser.close()
    assert complaints == []
    assert all(url.startswith((page_address, "blob:", "data:")) for url in asked)
    masks = np.zeros((len(found), 64 * 96), bool)
    for mask, one in zip(masks, found, strict=True):
        for start, stop in one["runs"]:
            mask[start:stop] = True
    dense = masks.reshape(-1, 96, 64).swapaxes(1, 2)
    assert_same(*([one[key] for one in found] for key in ("box", "score", "name")), dense, case.expected())
    best = case.model.predict(case.large)[0].boxes[:5]
    gaps = np.abs(np.array([one["box"] for one in resized])[:, None] - best).max(axis=2)
    assert (gaps.min(axis=0) < 2).all(), "resized as we resize"
