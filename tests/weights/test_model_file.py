"""The model file: everything comes back bit for bit, and every file that is not one says so in a line."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from maskrcnn.config import Category, Config, DetectConfig
from maskrcnn.config.conventions import TORCHVISION
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.initialise import read_initial_weights
from maskrcnn.weights.model_file import FORMAT, METADATA_KEY, save_model
from maskrcnn.weights.open import open_weights
from small_network import batch_of, lively_network, network_config, sample_of

CONFIG = replace(
    network_config(num_classes=2),
    categories=(Category(7, "red", ("left_end", "right_end"), ((0, 1),)), Category(3, "blue")),
)
PROVENANCE = {"version": "0.1.0", "steps": 12, "data": {"path": "træ.json"}, "results": [0.5, None]}


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    return lively_network(CONFIG).eval()


@pytest.fixture
def path(network: MaskRCNN, tmp_path: Path) -> Path:
    save_model(tmp_path / "model.safetensors", network, CONFIG, PROVENANCE)
    return tmp_path / "model.safetensors"


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Path:
    """The same file after `change` of its tensors and header."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()[METADATA_KEY])
    change(tensors, header)
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(header)})
    return path


def refused(path: Path, expected: str) -> None:
    with pytest.raises((WeightsError, ConfigError), match=expected) as caught:
        open_weights(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_round_trip_is_equal_bit_for_bit(network: MaskRCNN, path: Path) -> None:
    found, config, provenance = open_weights(path)
    assert config == CONFIG
    assert provenance == PROVENANCE
    assert not found.training
    before, after = network.state_dict(), found.state_dict()
    assert list(before) == list(after)
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert torch.equal(value, after[name]), name
    images = batch_of(sample_of(64, 96, [(0, (10, 10, 40, 40))])).images
    a, b = network.detect(images, DetectConfig()), found.detect(images, DetectConfig())
    assert torch.equal(a.boxes, b.boxes)
    assert torch.equal(a.scores, b.scores)


def test_half_a_file_holds_the_rounded_numbers(network: MaskRCNN, path: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_model(half, network, CONFIG, PROVENANCE, half=True)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    opened = open_weights(half)[0]
    for name, value in network.state_dict().items():
        found = opened.state_dict()[name]
        assert found.dtype == value.dtype
        assert torch.equal(found, value.half().to(value.dtype)), name


def test_numbers_that_float16_lacks_are_refused(tmp_path: Path) -> None:
    large = lively_network(CONFIG)
    next(large.parameters()).data[0] = 1e6
    with pytest.raises(WeightsError, match="above 65,504"):
        save_model(tmp_path / "half.safetensors", large, CONFIG, PROVENANCE, half=True)
    assert not list(tmp_path.iterdir())


def test_one_file_and_nothing_beside_it(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = path.with_name("again.safetensors")
    save_model(again, *open_weights(path))
    with safe_open(path, framework="pt") as a, safe_open(again, framework="pt") as b:
        assert json.loads(a.metadata()[METADATA_KEY]) == json.loads(b.metadata()[METADATA_KEY])


def test_a_failed_save_leaves_the_old_file(network: MaskRCNN, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_model(path, network, CONFIG, {"no JSON": object()})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_settings_of_every_kind_come_back(tmp_path: Path) -> None:
    base = network_config().model
    config = replace(
        network_config(
            mask_head=None,
            box_head=replace(base.box_head, class_agnostic=True),
            conventions=TORCHVISION,
        ),
        image=replace(network_config().image, fixed_size=(64, 96)),
    )
    save_model(tmp_path / "m.safetensors", lively_network(config), config, {})
    found, found_config, _ = open_weights(tmp_path / "m.safetensors")
    assert found_config == config
    assert isinstance(found_config.image.fixed_size, tuple)
    assert found.roi_heads.mask is None


def test_missing_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such file")
    refused(tmp_path, "is a folder")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    refused(tmp_path / "m.safetensors", "the file is empty")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * share))])
    refused(path, "not a whole safetensors file .*truncated")


def test_foreign_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps({"model": list(range(1000))}))
    refused(path, "expected a dictionary of tensors by name, .*found {'model': list}")
    torch.save({"a": torch.zeros(3)}, path)
    refused(path, "expected a model file of this package .*found tensors named a")
    path.write_text("not weights\nat all\n" * 50)
    refused(path, "found a text file")


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    refused(tmp_path / "m.safetensors", "expected a model file of this package .*found tensors named a")
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "expected a model file of this package .*found tensors named a")


@pytest.mark.parametrize(
    "header",
    [
        *("", "{", "[]", "3", "{}", "[" * 100_000, '{"format": 1}', '{"format": "x", "config": {}}'),
        *('{"format": 1, "config": 3}', '{"format": Infinity, "config": {}}'),
        '{"format": 1, "config": {}, "provenance": [1]}',
    ],
)
def test_a_broken_header(tmp_path: Path, header: str) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors", metadata={METADATA_KEY: header})
    refused(tmp_path / "m.safetensors", "header")


def test_a_header_without_a_config_says_so(path: Path) -> None:
    refused(rewritten(path, lambda _, header: header.pop("config")), r"cannot be read \(no 'config'\)")


def test_a_newer_format(path: Path) -> None:
    refused(rewritten(path, lambda _, header: header.update(format=FORMAT + 1)), "upgrade maskrcnn")


def test_a_config_field_of_a_newer_version(path: Path) -> None:
    refused(rewritten(path, lambda _, header: header["config"]["model"].update(surprise=1)), r"surprise.*newer version")


def test_a_config_that_cannot_work(path: Path) -> None:
    refused(rewritten(path, lambda _, header: header["config"]["model"].update(num_classes=0)), "num_classes")


def test_tensors_that_do_not_fit_are_named(path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        del tensors["neck.lateral.0.weight"]
        tensors["stranger"] = torch.zeros(2)
        tensors["rpn.head.objectness.bias"] = torch.zeros(7)

    refused(
        rewritten(path, spoil),
        r"1 missing: neck\.lateral\.0\.weight.*1 unexpected: stranger.*objectness\.bias is \(7,\)",
    )


HUGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "gigabytes": (
        lambda config: config["model"].update(fpn_channels=16_000),
        r"neck\.lateral\.0\.bias is \(32,\) and should be \(16000,\)",
    ),
    "more than can be counted": (
        lambda config: (
            config.update(categories=[]),
            config["model"].update(num_classes=10**9),
            config["model"]["mask_head"].update(kind="mlp", norm="none", resolution=256, hidden=2**14),
        ),
        "network that is too large to be built",
    ),
    "more than 64 bits": (
        lambda config: config["model"].update(fpn_channels=10**30),
        r"model\.fpn_channels must be a whole number from 1 to 16384, found 10{30}",
    ),
    "layers without end": (
        lambda config: config["model"]["box_head"].update(convs=10**9),
        "box_head.convs must be .* from 0 to 100",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_config_of_any_size_takes_no_memory(path: Path, name: str) -> None:
    change, expected = HUGE[name]
    rewritten(path, lambda _, header: change(header["config"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, expected)
    with pytest.raises(WeightsError, match=expected):
        read_initial_weights(path, CONFIG)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_complex_numbers_are_refused(path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        tensors["rpn.head.objectness.bias"] = tensors["rpn.head.objectness.bias"].to(torch.complex64)

    refused(rewritten(path, spoil), r"1 of complex numbers: rpn\.head\.objectness\.bias")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_of_a_training_that_diverged_are_refused(path: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        tensors["rpn.head.objectness.bias"][0] = value

    expected = r"expected finite numbers, found NaN or infinity in 1 of \d+ tensors, first: rpn\.head\.objectness\.bias"
    refused(rewritten(path, spoil), expected)


def test_names_with_control_codes_are_shown_as_escapes(path: Path) -> None:
    odd = {"\x1b[2J\na": torch.zeros(1)}
    refused(rewritten(path, lambda tensors, _: tensors.update(odd)), r"unexpected: \\x1b\[2J\\na")


def test_config_is_the_one_that_was_given(path: Path) -> None:
    config: Config = open_weights(path)[1]
    assert [category.name for category in config.categories] == ["red", "blue"]
    assert [category.id for category in config.categories] == [7, 3]


def test_a_file_from_before_categories_had_keypoints(path: Path) -> None:
    def older(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        header["config"]["categories"] = [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]

    assert open_weights(rewritten(path, older))[1].categories == (Category(7, "red"), Category(3, "blue"))
