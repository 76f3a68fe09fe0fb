"""Backbones in torchvision's layout: from files, by name, and what fine-tuning keeps."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet18_Weights, get_model, resnet18
from torchvision.models._utils import IntermediateLayerGetter

from maskrcnn.config import Category, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.models.norm import Norm
from maskrcnn.models.resnet import ResNet
from maskrcnn.weights.initialise import CLASS_LAYERS, read_initial_weights
from maskrcnn.weights.model_file import save_model
from small_network import lively_network, load_backbone, network_config


def lively(model: nn.Module) -> nn.Module:
    """Norms with statistics and parameters of their own."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def backbone(depth: int, norm: Norm = "frozen_batch_norm") -> ResNet:
    return ResNet(ResNetConfig(depth=depth, norm=norm)).eval()  # type: ignore[arg-type]


def assert_same_features(ours: ResNet, theirs: nn.Module) -> None:
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    layers = {f"layer{i}": str(i) for i in range(1, 5)}
    with torch.no_grad():
        expected = list(IntermediateLayerGetter(theirs, layers)(image).values())
        found = ours(image)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return lively(resnet18(weights=None))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("norm", ["frozen_batch_norm", "batch_norm"])
def test_features_are_torchvisions(small: nn.Module, tmp_path: Path, suffix: str, norm: Norm) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(small.state_dict(), path)
    else:
        torch.save(small.state_dict(), path)
    ours = backbone(18, norm)
    assert path.name in load_backbone(ours, path)
    assert_same_features(ours, small)


BOTTLENECKS = {
    "resnet50": ResNetConfig(depth=50),
    "resnet152": ResNetConfig(depth=152),
    "resnext50_32x4d": ResNetConfig(depth=50, groups=32, bottleneck_width=128),
    "resnext101_32x8d": ResNetConfig(depth=101, groups=32, bottleneck_width=256),
    "resnext101_64x4d": ResNetConfig(depth=101, groups=64, bottleneck_width=256),
    "wide_resnet50_2": ResNetConfig(depth=50, bottleneck_width=128),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if config.depth > 50 else ()) for name, config in BOTTLENECKS.items()],
)
def test_features_of_bottlenecks_are_torchvisions(name: str, tmp_path: Path) -> None:
    theirs = lively(get_model(name, weights=None))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = ResNet(BOTTLENECKS[name]).eval()
    load_backbone(ours, tmp_path / "weights.pth")
    assert_same_features(ours, theirs)


def test_half_precision_and_missing_classifier(small: nn.Module, tmp_path: Path) -> None:
    state = {k: v.half() for k, v in small.state_dict().items() if v.is_floating_point() and not k.startswith("fc.")}
    save_file(state, tmp_path / "half.safetensors")
    ours = backbone(18)
    load_backbone(ours, tmp_path / "half.safetensors")
    assert all(value.dtype == torch.float32 for value in ours.state_dict().values())
    halved = resnet18(weights=None).eval()
    halved.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    assert_same_features(ours, halved)


def test_the_real_files_open(shared: Path) -> None:
    for depth in (18, 50):
        ours = backbone(depth)
        load_backbone(ours, shared / "weights" / f"resnet{depth}_imagenet.safetensors")
        with torch.no_grad():
            top = ours(torch.randn(1, 3, 64, 64))[-1]
        assert torch.isfinite(top).all()
        assert top.std() > 0.01


def refused(source: Path | str, expected: str, depth: int = 18) -> str:
    network = backbone(depth)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=expected) as caught:
        load_backbone(network, source)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_backbone(small: nn.Module, tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", "no such file")
    refused(tmp_path / "none.safetensors", "no such file")
    refused(tmp_path, "is a folder")
    path = tmp_path / "w.pth"
    path.touch()
    refused(path, "the file is empty")
    torch.save(small.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "not a whole zip archive .*truncated")
    torch.save([torch.zeros(3)], path)
    refused(path, "expected a dictionary of tensors by name, found list")
    torch.save({3: torch.zeros(3)}, path)
    refused(path, "tensors by name, found the name 3")


def test_a_training_file_with_the_backbone_in_it(small: nn.Module, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in small.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth.tar")
    ours = backbone(18)
    load_backbone(ours, tmp_path / "w.pth.tar")
    assert_same_features(ours, small)


def test_a_backbone_of_another_depth(small: nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "r18.pth")
    message = refused(tmp_path / "r18.pth", "do not fit", depth=34)
    assert "missing" in message
    assert "res2.2." in message


@pytest.mark.parametrize("name", ["resnet51", "ResNet50_Weights.NOPE", "weights", "No_Weights.DEFAULT"])
def test_an_unknown_name(name: str) -> None:
    assert "resnet50" in refused(name, "neither a file nor the name")


class Server(http.server.ThreadingHTTPServer):
    status: int = 200
    content: bytes = b""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads go, nothing in it, nor where torch.hub keeps its own; and no proxy in between."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def point_to(monkeypatch: pytest.MonkeyPatch, port: int, file: str) -> None:
    monkeypatch.setattr(ResNet18_Weights.DEFAULT.value, "url", f"http://127.0.0.1:{port}/{file}")


def test_by_name(
    small: nn.Module, server: Server, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small.state_dict(), tmp_path / "r18.pth")
    server.content = (tmp_path / "r18.pth").read_bytes()
    file = f"resnet18-{hashlib.sha256(server.content).hexdigest()[:8]}.pth"
    point_to(monkeypatch, server.server_port, file)
    for name in ("resnet18", "ResNet18_Weights.IMAGENET1K_V1"):
        ours = backbone(18)
        assert name in load_backbone(ours, name)
        assert_same_features(ours, small)
    assert len(list(empty_cache.rglob(file))) == 1


def test_by_address(small: nn.Module, server: Server, empty_cache: Path, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "mine.pth")
    server.content = (tmp_path / "mine.pth").read_bytes()
    ours = backbone(18)
    load_backbone(ours, f"http://127.0.0.1:{server.server_port}/mine.pth")
    assert_same_features(ours, small)
    assert len(list(empty_cache.rglob("mine.pth"))) == 1


def test_by_name_without_a_network(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    point_to(monkeypatch, port, "resnet18-00000000.pth")
    message = refused("resnet18", "cannot download")
    assert f"http://127.0.0.1:{port}/" in message
    assert "give the path" in message


@pytest.mark.parametrize("status", [403, 404, 500])
def test_by_name_from_a_server_that_refuses(
    server: Server, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server.status = status
    point_to(monkeypatch, server.server_port, "resnet18-00000000.pth")
    refused("resnet18", f"cannot download http.*resnet18.*{status}")


def test_by_name_a_download_that_is_not_the_file(
    server: Server, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captive portal answers everything with a page."""
    server.content = b"<html>please log in</html>"
    point_to(monkeypatch, server.server_port, "resnet18-00000000.pth")
    refused("resnet18", "expected a SHA-256 hash of 00000000, found ")
    assert not list(empty_cache.rglob("*.pth"))


def test_by_name_from_the_files_of_torchvision(
    small: nn.Module, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, 1, "resnet18-00000000.pth")
    own = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-00000000.pth"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"half a file")
    refused("resnet18", r"resnet18-00000000\.pth: .*found a text file")
    torch.save(small.state_dict(), own)
    ours = backbone(18)
    load_backbone(ours, "resnet18")
    assert_same_features(ours, small)
    assert not empty_cache.exists()


RED, BLUE, GREEN = Category(7, "red"), Category(3, "blue"), Category(4, "green")
PINK, GREY = Category(5, "pink"), Category(6, "grey")


def test_fine_tuning_with_other_classes_keeps_all_but_the_class_layers(tmp_path: Path) -> None:
    old_config = replace(network_config(num_classes=2), categories=(BLUE, RED))
    old = lively_network(old_config, seed=1)
    save_model(tmp_path / "old.safetensors", old, old_config, {})
    for categories in ((PINK, GREY, GREEN), (PINK, GREEN)):  # as many can be others, too
        config = replace(network_config(num_classes=len(categories)), categories=categories)
        new = lively_network(config, seed=2)
        fresh = {name: value.clone() for name, value in new.state_dict().items()}
        assert "class layers new" in read_initial_weights(tmp_path / "old.safetensors", config).fill(new, config)
        changed = 0
        for name, value in new.state_dict().items():
            if CLASS_LAYERS.match(name):
                assert torch.equal(value, fresh[name]), name
                changed += 1
            else:
                assert torch.equal(value, old.state_dict()[name]), name
        assert changed == 6


def test_going_on_with_the_same_classes_keeps_everything(tmp_path: Path) -> None:
    config = replace(network_config(num_classes=2), categories=(BLUE, RED))
    old, new = lively_network(config, seed=1), lively_network(config, seed=2)
    save_model(tmp_path / "old.safetensors", old, config, {})
    assert "class layers" not in read_initial_weights(tmp_path / "old.safetensors", config).fill(new, config)
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


def test_weights_of_another_backbone_are_refused_and_both_are_named(tmp_path: Path) -> None:
    config = replace(network_config(num_classes=2), categories=(BLUE, RED))
    other = replace(config, model=replace(config.model, backbone=ResNetConfig(depth=18, width=16)))
    own = config.model.backbone.name
    save_model(tmp_path / "detector.safetensors", lively_network(other), other, {})
    torch.save(get_model("resnext50_32x4d", weights=None).state_dict(), tmp_path / "backbone.pth")
    for name, found in (("detector.safetensors", "ResNet-18 of width 16"), ("backbone.pth", "ResNeXt-50 32x4d")):
        with pytest.raises(WeightsError) as caught:
            read_initial_weights(tmp_path / name, config).fill(lively_network(config), config)
        assert str(caught.value) == (
            f"{tmp_path / name}: expected weights for the backbone of the settings, {own}, found weights of {found}; "
            "choose a preset with that backbone or other weights"
        )


def test_a_model_of_another_shape_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    config = replace(network_config(num_classes=2), categories=(BLUE, RED))
    wide = replace(config, model=replace(config.model, fpn_channels=48))
    save_model(tmp_path / "wide.safetensors", lively_network(wide), wide, {})
    network = lively_network(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"wide\.safetensors: .* should be .*, found .*preset"):
        read_initial_weights(tmp_path / "wide.safetensors", config).fill(network, config)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_initialise_takes_a_backbone_too(small: nn.Module, tmp_path: Path) -> None:
    config = network_config(backbone=ResNetConfig(depth=18))
    network = lively_network(config)
    save_file(small.state_dict(), tmp_path / "r18.safetensors")
    read_initial_weights(tmp_path / "r18.safetensors", config).fill(network, config)
    assert isinstance(network.backbone, ResNet)
    assert_same_features(network.eval().backbone, small)  # type: ignore[arg-type]
