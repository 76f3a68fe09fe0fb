"""The Triton kernel of RoIAlign: when it serves, compiled for a GPU, and run on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kernels_without_gpu import ptx
from maskrcnn.ops import device as device_module
from maskrcnn.ops.roi_align import level_of, roi_align

SIDES = (4, 8, 16, 32)  # pixels a cell


@pytest.mark.parametrize(
    ("dtype", "backward", "ratio", "side"),
    [
        ("bf16", True, 2, 14),
        pytest.param("bf16", False, 2, 7, marks=pytest.mark.slow),
        pytest.param("fp32", True, 0, 7, marks=pytest.mark.slow),
        pytest.param("fp16", False, 0, 14, marks=pytest.mark.slow),
    ],
)
def test_compiles_for_a_gpu(dtype: str, backward: bool, ratio: int, side: int) -> None:
    """Down to machine code of an H200, without one."""
    pytest.importorskip("triton", reason="Triton comes with torch for Linux alone")
    types = {"bins": f"*{dtype}", "low": "*fp32", "length": "*fp32", "image_index": "*i64", "level": "*i64"}
    types |= {f"map{k}": "*fp32" if backward else f"*{dtype}" for k in range(5)}
    types |= {f"{axis}{k}": "i32" for axis in "hw" for k in range(5)} | {"channels": "i32"}
    constants = {"side": side, "ratio": ratio, "backward": backward}
    constants |= {"row_block": 4, "column_block": 1 << (side - 1).bit_length(), "channel_block": 128}
    # Pointers that 16 bytes divide and 256 channels: what a launch finds out about its arguments.
    divided = [name for name, kind in types.items() if kind.startswith("*") or name == "channels"]
    options = {"num_warps": 1, "enable_fp_fusion": False}
    types |= dict.fromkeys(constants, "constexpr")
    code = ptx("maskrcnn.ops.roi_align_triton", "_walk", types, constants, divided, options)
    assert "ld.global.v4" in code
    assert ("add.v4.f32" in code) == backward  # four channels an atomic addition
    assert "bar.sync" not in code  # no thread waits for another


class Operators(TorchDispatchMode):
    """Notes which of our operators are called."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator.namespace == "maskrcnn":
            self.found.append(operator.name())
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"sampling_ratio": 0, "dtype": torch.float32}, True),
        ({"device": "cpu"}, False),
        ({"dtype": torch.float64}, False),
        ({"levels": 6}, False),
        ({"deterministic": True}, False),
    ],
    ids=str,
)
def test_which_calls_take_the_kernel(changes: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without memory, of which a GPU need not be there and with which waiting for it would fail."""
    pytest.importorskip("triton", reason="Triton exists for Linux alone")
    monkeypatch.setattr(device_module, "triton_works", lambda: True)
    how = {"device": "cuda", "dtype": torch.bfloat16, "levels": 4, "sampling_ratio": 2, "deterministic": False}
    device, dtype, levels, ratio, deterministic = (how | changes).values()
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    with FakeTensorMode(), Operators() as operators:
        features = [torch.empty(2, 8, 64 >> k, 80 >> k, device=device, dtype=dtype) for k in range(levels)]
        boxes, index = torch.empty(9, 4, device=device), torch.zeros(9, dtype=torch.int64, device=device)
        strides = [4 << k for k in range(levels)]
        found = roi_align(features, boxes, index, index, strides=strides, output_size=7, sampling_ratio=ratio)
    assert found.shape == (9, 8, 7, 7)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert operators.found == (["maskrcnn::pool_averages"] if taken else [])


def on_the_gpu(
    channels: int, dtype: torch.dtype, images: int = 2, image_hw: tuple[int, int] = (800, 1088)
) -> list[torch.Tensor]:
    """A pyramid of real size, channels-last."""
    generator = torch.Generator("cuda").manual_seed(0)
    maps = [
        torch.randn(images, image_hw[0] // s, image_hw[1] // s, channels, device="cuda", generator=generator)
        for s in SIDES
    ]
    return [m.to(dtype).permute(0, 3, 1, 2).requires_grad_() for m in maps]


def proposals(count: int, images: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes of every size, some partly or wholly outside and some of whole cells, their image and their level."""
    generator = torch.Generator("cuda").manual_seed(1)
    side = torch.exp(torch.empty(count, 2, device="cuda").uniform_(1, 7, generator=generator))
    centre = torch.rand(count, 2, device="cuda", generator=generator) * 1500 - 200
    boxes = torch.cat([centre - side / 2, centre + side / 2], dim=1)
    boxes[::4] = (boxes[::4] / 224).round() * 224  # 7 and 14 bins of whole cells on every level
    index = torch.randint(images, (count,), device="cuda", generator=generator)
    return boxes, index, level_of(boxes, len(SIDES), 4, 224.0)


@pytest.mark.gpu
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("output_size", [7, 14])
@pytest.mark.parametrize("channels", [256, 200])
def test_equal_to_the_lookup_on_a_gpu(channels: int, output_size: int, ratio: int) -> None:
    """Real sizes in float32 against the lookup in float64, forward and backward."""
    boxes, index, level = proposals(1000)
    ours = on_the_gpu(channels, torch.float32)
    exact = [f.detach().double().requires_grad_() for f in ours]
    how: dict[str, Any] = {"strides": SIDES, "output_size": output_size, "sampling_ratio": ratio}
    found, expected = (roi_align(f, boxes, index, level, **how) for f in (ours, exact))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)  # positions are float32 on both sides
    weights = torch.randn(found.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(2))
    gradients = torch.autograd.grad(found, ours, weights)
    for gradient, their in zip(gradients, torch.autograd.grad(expected, exact, weights.double()), strict=True):
        torch.testing.assert_close(gradient.double(), their, rtol=1e-3, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("ratio", [0, 2])
def test_equal_to_torchvisions_on_a_gpu(ratio: int) -> None:
    """One map in bfloat16, beside torchvision's kernel in float32 on the same values."""
    boxes, index, _ = proposals(500)
    feature = on_the_gpu(256, torch.bfloat16)[0]
    found = roi_align([feature], boxes, index, index * 0, strides=[4], output_size=7, sampling_ratio=ratio)
    indexed = torch.cat([index[:, None].float(), boxes], dim=1)
    expected = torchvision.ops.roi_align(feature.float().contiguous(), indexed, 7, 1 / 4, ratio, True)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=5e-3)


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu_and_the_step_is_a_graph() -> None:
    """A CUDA graph can hold nothing that waits; its replay gives the values of the boxes then in place."""
    boxes, index, level = proposals(200)
    features = on_the_gpu(64, torch.bfloat16)

    def step() -> tuple[torch.Tensor, ...]:
        found = roi_align(features, boxes, index, level, strides=SIDES, output_size=7, sampling_ratio=0)
        return found, *torch.autograd.grad(found.float().square().sum(), features)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    boxes.copy_(boxes.flip(0))
    graph.replay()
    for found, expected in zip(results, step(), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_more_than_two_to_the_31_values() -> None:
    """The last image of a batch whose values 32-bit offsets cannot count."""
    images, channels, side = 33, 1024, 256
    features = torch.zeros(images, side, side, channels, dtype=torch.bfloat16, device="cuda").permute(0, 3, 1, 2)
    assert features.numel() > 1 << 31
    features[-1] = torch.randn(channels, side, side, device="cuda")
    boxes = torch.tensor([[700.0, 800.0, 1000.0, 1010.0]], device="cuda")
    first = torch.zeros(1, dtype=torch.int64, device="cuda")
    how: dict[str, Any] = {"strides": [4], "output_size": 7}
    found = roi_align([features], boxes, first + images - 1, first, **how)
    torch.testing.assert_close(found, roi_align([features[-1:].contiguous()], boxes, first, first, **how))
    assert found.any()
