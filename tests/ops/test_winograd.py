"""3x3 convolutions by Winograd's filtering: values and gradients against torch's direct sum in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.ops import winograd
from maskrcnn.ops.winograd import conv3x3, convolve

UNIT = ((1, 1), (1, 1), (1, 1), 1)  # stride, padding, dilation, groups


def case(shape: tuple[int, int, int, int], wide: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(wide, shape[1], 3, 3, generator=generator) * (1 / 9 / shape[1]) ** 0.5
    return x, weight, torch.randn(wide, generator=generator)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 50), st.integers(1, 50)),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 1000),
)
def test_equal_to_the_direct_sum(shape: tuple[int, int, int, int], wide: int, with_bias: bool, seed: int) -> None:
    """Of sides that are no multiples of a tile, with several parts a batch and several images a part."""
    x, weight, bias = case(shape, wide, seed)
    found = conv3x3(x, weight, bias if with_bias else None)
    expected = F.conv2d(x.double(), weight.double(), bias.double() if with_bias else None, padding=1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 3, 6, 9), (3, 2, 4, 4)])
def test_gradient_check(shape: tuple[int, int, int, int]) -> None:
    inputs = [value.double().requires_grad_() for value in case(shape, 4)]
    assert torch.autograd.gradcheck(conv3x3, inputs)


@pytest.mark.parametrize("shape", [(1, 128, 60, 45), (40, 130, 7, 5)])
def test_gradients_of_large_convolutions_are_the_direct_ones(shape: tuple[int, int, int, int]) -> None:
    ours = [value.requires_grad_() for value in case(shape, 132)]
    theirs = [value.detach().double().requires_grad_() for value in ours]
    found, expected = convolve(*ours, *UNIT), F.conv2d(*theirs, padding=1)
    assert "_Conv3x3" in type(found.grad_fn).__name__
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        torch.autograd.grad(found, ours, direction),
        torch.autograd.grad(expected, theirs, direction.double()),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-4 * float(b.abs().max()))


def test_only_what_needs_a_gradient_has_one() -> None:
    x, weight, bias = case((1, 128, 40, 40), 128)
    convolve(x, weight.requires_grad_(), bias, *UNIT).sum().backward()
    assert weight.grad is not None
    assert x.grad is None
    assert bias.grad is None


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((1, 128, 40, 40), ((2, 2), (1, 1), (1, 1), 1)),
        ((1, 128, 40, 40), ((1, 1), (2, 2), (2, 2), 1)),
        ((1, 128, 40, 40), ((1, 1), (0, 0), (1, 1), 1)),
        ((1, 256, 40, 40), ((1, 1), (1, 1), (1, 1), 2)),
        ((1, 64, 40, 40), UNIT),
        ((1, 128, 20, 20), UNIT),
    ],
)
def test_others_are_torchs(size: tuple[int, int, int, int], settings: tuple[object, ...]) -> None:
    x, weight, bias = case(size, 128)
    weight = weight[:, : size[1] // settings[3]].requires_grad_()  # type: ignore[operator]
    assert torch.equal(convolve(x, weight, bias, *settings), F.conv2d(x, weight, bias, *settings))  # type: ignore[arg-type]


def test_narrow_precision_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = case((1, 128, 40, 40), 128)
    weight.requires_grad_()
    monkeypatch.setattr(winograd, "conv3x3", None)
    with torch.no_grad():  # nor is prediction's
        assert torch.equal(convolve(x, weight, bias, *UNIT), F.conv2d(x, weight, bias, padding=1))
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(x, weight, bias, *UNIT).dtype == torch.bfloat16
    assert convolve(x.bfloat16(), weight.bfloat16(), None, *UNIT).dtype == torch.bfloat16
    with torch.device("meta"):
        assert convolve(torch.empty(x.shape), torch.empty(weight.shape), None, *UNIT).shape == x.shape


@pytest.mark.parametrize("channels", [8, 15])
def test_strided_points_of_few_channels_have_the_gradients_of_the_direct_sum(channels: int) -> None:
    """On AVX-512, oneDNN's own gradient of such a weight destroys memory, which ended the process."""
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn((3, channels, 16, 24), generator=generator).to(memory_format=torch.channels_last)
    weight, bias = torch.randn((16, channels, 1, 1), generator=generator), torch.randn(16, generator=generator)
    found, expected = (
        [part.to(dtype, copy=True).requires_grad_() for part in (x, weight, bias)]
        for dtype in (torch.float32, torch.float64)
    )
    for _ in range(20):
        ours = convolve(*found, (2, 2), (0, 0), (1, 1), 1)  # type: ignore[arg-type]
        for part in found:
            part.grad = None
        ours.square().sum().backward()
    theirs = F.conv2d(*expected, stride=2)
    theirs.square().sum().backward()
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-3)  # type: ignore[union-attr]
