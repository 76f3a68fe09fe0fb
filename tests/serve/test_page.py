"""The page in a browser without a window."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from browser import chromium
from maskrcnn.data.formats.annotation_files.coco import read as read_coco
from maskrcnn.predict import Predictor
from maskrcnn.serve.page_routes import FILES
from served_process import Running, served
from small_data import small_coco

Encode = Callable[..., bytes]
CAMERA = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


def test_the_page_loads_nothing_from_another_host(client: TestClient) -> None:
    for path in FILES:
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


@pytest.fixture(scope="module")
def running(model: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    thresholds = [0.75] * (model.config.model.num_classes - 1) + [0.45]
    tuned = replace(model, provenance={**model.provenance, "thresholds": thresholds})
    with served(tuned, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CAMERA)
        yield browser
        browser.close()


@pytest.fixture
def page(running: Running, browser: Any) -> Iterator[Any]:
    """The open page; it must not complain."""
    complaints: list[str] = []
    page = browser.new_page()
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(running.url)
    yield page
    page.close()
    assert complaints == []


def file_of(name: str, body: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": body}


def wait_for(page: Any, status: str, summary: str) -> None:
    page.wait_for_function(
        "([status, summary]) => document.querySelector('#status').textContent === status"
        " && document.querySelector('#summary').textContent.startsWith(summary)",
        arg=[status, summary],
        timeout=20_000,
    )


def set_range(page: Any, selector: str, value: float) -> float:
    """Moves a slider; returns where it stopped."""
    page.eval_on_selector(
        selector, "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }", value
    )
    return float(page.input_value(selector))


def download(page: Any, button: str) -> bytes:
    with page.expect_download() as started:
        page.click(button)
    return Path(started.value.path()).read_bytes()


@pytest.mark.slow
def test_filters_and_downloads(
    page: Any, model: Predictor, picture: np.ndarray, encoded: Encode, tmp_path: Path
) -> None:
    found = model.predict(picture)[0]
    page.wait_for_function("() => document.querySelector('#score').value === '0.45'")  # the lowest of the classes
    page.set_input_files("#files", [file_of("a.png", encoded(picture))])
    wait_for(page, "1/1 a.png", "0 objects, 0 px")  # random weights: all scores are low
    least = set_range(page, "#score", round(float(found.scores[5]), 2))
    shown = found.with_score(least)
    wait_for(page, "1/1 a.png", f"{len(shown)} objects, ")
    assert page.locator("#objects li").count() == len(shown) > 0

    canvas = "document.querySelector('#picture')"
    pixels = page.evaluate(f"[...{canvas}.getContext('2d').getImageData(0, 0, 80, 64).data]")
    differs = (np.reshape(pixels, (64, 80, 4))[..., :3] != picture).any(axis=2)
    assert not (differs & ~shown.masks.dense().any(axis=0)).any()
    assert differs.any()

    coco = tmp_path / "objects.json"
    coco.write_bytes(download(page, "#coco"))
    Image.fromarray(picture).save(tmp_path / "a.png")
    annotations = read_coco(coco, tmp_path).annotations(0)
    filled = [i for i in range(len(shown)) if shown.masks[i].area]
    assert annotations.masks() == [shown.masks[i] for i in range(len(shown))]

    rows = list(csv.DictReader(io.StringIO(download(page, "#csv").decode())))
    assert [int(row["area"]) for row in rows] == shown.masks.areas().tolist()
    starts, lengths = shown.masks[filled[0]].column_major_runs()
    pairs = [f"{start + 1} {length}" for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]
    assert rows[filled[0]]["EncodedPixels"] == " ".join(pairs)

    labelme = json.loads(download(page, "#labelme"))
    assert (labelme["imagePath"], labelme["imageHeight"], labelme["imageWidth"]) == ("a.png", 64, 80)
    assert len(labelme["shapes"]) == len(filled)
    shape = labelme["shapes"][0]
    bitmap = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))).convert("L")) > 0
    crop, (x, y) = shown.masks[filled[0]].crop()
    assert shape["points"] == [[x, y], [x + crop.shape[1] - 1, y + crop.shape[0] - 1]]
    assert np.array_equal(bitmap, crop != 0)
    assert np.asarray(Image.open(io.BytesIO(download(page, "#png")))).shape[:2] == (64, 80)

    page.locator("#classes input").first.uncheck()
    wait_for(page, "1/1 a.png", f"{shown.names.count('red')} objects, ")


@pytest.mark.slow
def test_objects_are_chosen_and_images_moved(page: Any, model: Predictor, encoded: Encode) -> None:
    images = small_coco(2)[1]
    found = model.predict(images[1])[0]
    page.set_input_files("#files", [file_of(f"{i}.png", encoded(image)) for i, image in enumerate(images)])
    wait_for(page, "2/2 1.png", "0 objects")
    set_range(page, "#score", 0)
    wait_for(page, "2/2 1.png", f"{len(found)} objects")
    best = next(i for i in range(len(found)) if found.masks[i].area)
    row, column = np.argwhere(found.masks[best].dense())[0]
    box = page.locator("#picture").bounding_box()
    zoom = box["width"] / 80
    at = (round(box["x"] + (column + 0.5) * zoom), round(box["y"] + (row + 0.5) * zoom))
    part = (at[0] - box["x"]) / box["width"]
    page.mouse.move(*at)
    assert page.get_attribute("#stage", "title").startswith(f"{found.names[best]} {found.scores[best]:.2f}, ")
    page.mouse.click(*at)
    pressed = page.locator("#objects button[aria-pressed=true]")
    assert pressed.count() == 1
    assert f"{int(found.masks[best].area):,} px" in pressed.inner_text()
    colours = page.eval_on_selector_all("#objects .swatch", "(swatches) => swatches.map((one) => one.style.background)")
    assert len(set(colours)) == len(found)

    page.mouse.wheel(0, -400)
    larger = page.locator("#picture").bounding_box()
    assert larger["width"] > 2 * box["width"]
    assert larger["x"] + part * larger["width"] == pytest.approx(at[0], abs=1)
    page.mouse.down()
    page.mouse.move(at[0] + 30, at[1] + 20)
    page.mouse.up()
    assert page.locator("#picture").bounding_box()["x"] == pytest.approx(larger["x"] + 30, abs=1)
    page.keyboard.press("0")
    assert page.locator("#picture").bounding_box() == pytest.approx(box)
    page.keyboard.press("Escape")
    assert pressed.count() == 0
    page.keyboard.press("p")
    wait_for(page, "1/2 0.png", "")
    page.keyboard.press("+")
    assert page.locator("#picture").bounding_box()["width"] == pytest.approx(1.5 * box["width"], rel=0.01)


@pytest.mark.slow
def test_images_are_dropped_pasted_and_taken_also_on_a_phone(page: Any, picture: np.ndarray, encoded: Encode) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for number, kind in enumerate(("drop", "paste"), start=1):
        page.evaluate(
            """([kind, name, text]) => {
              const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
              const data = new DataTransfer();
              data.items.add(new File([bytes], name, { type: "image/png" }));
              document.dispatchEvent(kind === "drop" ? new DragEvent("drop", { dataTransfer: data })
                : new ClipboardEvent("paste", { clipboardData: data }));
            }""",
            [kind, f"{kind}.png", base64.b64encode(encoded(picture)).decode()],
        )
        wait_for(page, f"{number}/{number} {kind}.png", "0 objects")
    page.click("#start")
    page.wait_for_function("() => document.querySelector('#camera').videoWidth > 0")
    page.click("#shoot")
    wait_for(page, "3/3 camera-3.png", "0 objects")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    set_range(page, "#score", 0)
    page.locator("#objects button").last.click()
    assert page.evaluate("scrollY") > 0
    assert page.locator("#stage").bounding_box()["y"] == 0  # the picture stays in sight beside the list
    page.set_input_files("#files", [file_of("broken.gif", b"GIF89a").copy() | {"mimeType": "text/plain"}])
    page.wait_for_function("() => document.querySelector('#status').textContent === 'This is no image'")


@pytest.mark.slow
def test_one_of_several_models_is_chosen(page: Any, picture: np.ndarray, encoded: Encode) -> None:
    asked: list[str] = []

    def with_the_only_model(route: Any) -> None:
        asked.append(route.request.url.partition("?")[2])
        route.continue_(url=f"{route.request.url.partition('?')[0]}?model=shapes")

    assert page.locator("#models").is_hidden()
    models = [{"name": "shapes", "thresholds": [0.9, 0.8]}, {"name": "a & b", "thresholds": [0.7]}]
    page.route("**/v1/model", lambda route: route.fulfill(json={"models": models}))
    page.route("**/v1/predict*", with_the_only_model)
    page.reload()
    page.select_option("#model", "shapes")
    page.set_input_files("#files", [file_of("a.png", encoded(picture)), file_of("b.png", encoded(picture))])
    wait_for(page, "2/2 b.png", "0 objects")
    assert page.input_value("#score") == "0.8"
    page.select_option("#model", "a & b")
    assert page.input_value("#score") == "0.7"
    page.wait_for_function(
        "() => performance.getEntriesByType('resource').filter((one) => one.name.includes('a%20%26')).length > 1"
    )
    assert asked == ["model=shapes"] * 2 + ["model=a%20%26%20b"] * 2
