"""Norms beside their formulas in float64."""

from __future__ import annotations

import copy

import pytest
import torch

from maskrcnn.models.norm import GroupNorm


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_group_norm_keeps_its_digits_where_a_map_hardly_varies(memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm(4, 8)
    x = (3 + 0.003 * torch.randn(2, 8, 32, 32, generator=generator)).to(memory_format=memory_format).requires_grad_()
    weight = torch.randn(x.shape, generator=generator)
    found = norm(x)
    assert found.is_contiguous(memory_format=memory_format)
    (gradient,) = torch.autograd.grad((found * weight).sum(), x)
    exact = x.detach().double().requires_grad_()
    expected = copy.deepcopy(norm).double()(exact)
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), exact)
    # The input itself is rounded to 2e-4 of its deviation.
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        gradient.double(), expected_gradient, atol=1e-4 * float(expected_gradient.abs().max()), rtol=0
    )
