"""ResNet, its norms and the pyramid: shapes, values, and what is not trained."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskrcnn.config import Norm, ResNetConfig
from maskrcnn.models.build import build_model
from maskrcnn.models.fpn import FPN, add_upsampled
from maskrcnn.models.norm import ConvNorm, FrozenBatchNorm
from maskrcnn.models.resnet import ResNet
from small_network import batch_of, lively_network, network_config, sample_of


def resnet(depth: int = 10, norm: Norm = "frozen_batch_norm", frozen_stages: int = 2) -> ResNet:
    width = 32 if norm == "group_norm" else 8
    return ResNet(ResNetConfig(depth=depth, width=width, norm=norm, frozen_stages=frozen_stages))  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [10, 18, 34, 50, 101, 152])
def test_shapes(depth: int) -> None:
    backbone = resnet(depth).eval()
    expansion = 1 if depth < 50 else 4
    assert backbone.channels == [8 * expansion, 16 * expansion, 32 * expansion, 64 * expansion]
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize("frozen", range(6))
def test_frozen_stages_get_no_gradient(frozen: int) -> None:
    backbone = resnet(norm="batch_norm", frozen_stages=frozen).train()
    if frozen < 5:
        sum(f.mean() for f in backbone(torch.rand(2, 3, 64, 64))).backward()  # type: ignore[union-attr]
    stages = backbone.stages()
    assert len(stages) == 5
    for number, stage in enumerate(stages, start=1):
        for parameter in stage.parameters():
            assert parameter.requires_grad == (number > frozen)
            assert (parameter.grad is not None) == (number > frozen)


def buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


def test_frozen_norms_never_change() -> None:
    backbone = resnet(frozen_stages=0).train()
    before = buffers(backbone)
    assert not any("norm" in name for name, _ in backbone.named_parameters())
    optimiser = torch.optim.SGD(backbone.parameters(), lr=1.0)
    sum(f.square().mean() for f in backbone(torch.rand(2, 3, 64, 64))).backward()  # type: ignore[union-attr]
    optimiser.step()
    after = buffers(backbone)
    assert len(before) > 0
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batch_norms_of_frozen_stages_keep_still_and_the_others_learn() -> None:
    backbone = resnet(norm="batch_norm", frozen_stages=2).train()
    before = buffers(backbone)
    backbone(torch.rand(2, 3, 64, 64))
    for name, value in buffers(backbone).items():
        assert torch.equal(before[name], value) == name.startswith(("stem.", "res2.")), name


def test_frozen_norm_is_batch_norm_in_evaluation() -> None:
    torch.manual_seed(0)
    reference = ConvNorm(3, 5, 3, stride=2, norm="batch_norm", eps=1e-3).eval()
    assert isinstance(reference.norm, nn.BatchNorm2d)
    for value in (reference.norm.weight.data, reference.norm.bias.data, reference.norm.running_mean):
        value.normal_()
    reference.norm.running_var.uniform_(0.01, 2)
    folded = ConvNorm(3, 5, 3, stride=2, norm="frozen_batch_norm", eps=1e-3)
    folded.load_state_dict({k: v for k, v in reference.state_dict().items() if "num_batches" not in k})
    image = torch.randn(2, 3, 9, 9)
    a, b = folded(image), reference(image)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(folded.conv.weight.grad, reference.conv.weight.grad, rtol=1e-4, atol=1e-3)


def test_a_fresh_frozen_norm_changes_nothing() -> None:
    weight = torch.randn(4, 3, 2, 2)
    folded, bias = FrozenBatchNorm(4, eps=1e-5).fold(weight)
    torch.testing.assert_close(folded, weight)
    torch.testing.assert_close(bias, torch.zeros(4))


def test_group_norm_does_not_look_at_other_images() -> None:
    torch.manual_seed(0)
    backbone = resnet(norm="group_norm", frozen_stages=0).train()
    assert sum(isinstance(module, nn.GroupNorm) for module in backbone.modules()) == 1 + 4 * 2 + 3
    images = torch.rand(2, 3, 64, 64)
    together, alone = backbone(images), backbone(images[:1])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:1], b, rtol=1e-4, atol=1e-5)


def test_synchronised_batch_norm_of_one_process_is_batch_norm() -> None:
    plain, synchronised = resnet(norm="batch_norm"), resnet(norm="sync_batch_norm")
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules()) == 12
    synchronised.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    for backbone in (plain, synchronised):
        backbone.train()
    assert all(torch.equal(a, b) for a, b in zip(plain(images), synchronised(images), strict=True))


@pytest.mark.parametrize("in_1x1", [False, True])
def test_the_stride_of_a_bottleneck(in_1x1: bool) -> None:
    backbone = ResNet(ResNetConfig(depth=50, width=8, stride_in_1x1=in_1x1))
    block = backbone.get_submodule("res3")[0]  # type: ignore[index]
    assert block.conv1.conv.stride == ((2, 2) if in_1x1 else (1, 1))
    assert block.conv2.conv.stride == ((1, 1) if in_1x1 else (2, 2))
    assert backbone(torch.zeros(1, 3, 64, 64))[-1].shape[-2:] == (2, 2)


@pytest.mark.parametrize("size", [(64, 96), (96, 160)])
def test_pyramid_shapes(size: tuple[int, int]) -> None:
    maps = [torch.rand(2, c, size[0] // s, size[1] // s) for c, s in zip((8, 16, 32, 64), (4, 8, 16, 32), strict=True)]
    pyramid = FPN((8, 16, 32, 64), 24)(iter(maps[::-1]))
    sizes = [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]
    sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    assert [tuple(level.shape) for level in pyramid] == [(2, 24, *hw) for hw in sizes]
    assert torch.equal(pyramid[4], pyramid[3][:, :, ::2, ::2])
    assert FPN.strides == (4, 8, 16, 32, 64)


@torch.no_grad()
def test_a_map_of_the_backbone_is_released_once_the_neck_has_read_it() -> None:
    network = lively_network(network_config()).eval()
    maps: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    network.backbone.register_forward_hook(lambda module, inputs, outputs: maps.extend(map(weakref.ref, outputs)))
    for output in network.neck.output:  # type: ignore[union-attr]
        output.register_forward_pre_hook(lambda module, inputs: alive.append(sum(each() is not None for each in maps)))
    network.features(batch_of(sample_of(64, 96, [])).images)
    assert alive == [3, 2, 1, 0]


def test_every_level_hears_of_the_coarsest() -> None:
    maps = [torch.rand(1, 4, 32 // 2**i, 32 // 2**i, requires_grad=True) for i in range(4)]
    pyramid = FPN((4, 4, 4, 4), 6)(reversed(maps))
    (gradient,) = torch.autograd.grad(pyramid[0].sum(), [maps[3]])
    assert gradient.any()


@given(st.sampled_from([(8, 12), (7, 12), (8, 11), (9, 13)]), st.booleans())
def test_cells_are_added_to_those_under_them(size: tuple[int, int], channels_last: bool) -> None:
    order = torch.channels_last if channels_last else torch.contiguous_format
    coarse = torch.randn(2, 3, 4, 6, requires_grad=True)
    start = torch.randn(2, 3, *size).to(memory_format=order)
    fine = start.clone()
    add_upsampled(fine, coarse)
    expected = start + F.interpolate(coarse, size=size, mode="nearest")
    assert torch.equal(fine, expected)
    weights = torch.randn(expected.shape)
    torch.testing.assert_close(*(torch.autograd.grad((m * weights).sum(), coarse)[0] for m in (fine, expected)))


@pytest.mark.parametrize("norm", ["frozen_batch_norm", "batch_norm"])
def test_blocks_that_are_computed_twice_give_the_same_gradients_and_keep_less(norm: Norm) -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = ResNet(ResNetConfig(depth=18, width=8, norm=norm, frozen_stages=2), recompute=recompute).train()
        kept: list[int] = []
        count = torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: (kept.append(t.numel()), t)[1], lambda t: t
        )
        with count:
            maps = backbone(torch.rand(2, 3, 64, 64))
        torch.stack([m.square().mean() for m in maps]).sum().backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        found.append((gradients, {name: b.clone() for name, b in backbone.named_buffers()}, sum(kept)))
    (plain, buffers, all_kept), (again, same_buffers, less) = found
    assert plain.keys() == again.keys()
    assert not any(name.startswith(("stem", "res2")) for name in plain)
    for ours, theirs in ((plain, again), (buffers, same_buffers)):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert less < all_kept / 2


def _note(runs: list[str], name: str, *given: object) -> None:
    runs.append(name)


def test_blocks_that_are_computed_again_give_the_same_gradients_and_statistics() -> None:
    """`train.activation_checkpointing`: a trained block runs twice, a frozen one once."""
    config = network_config(backbone=replace(network_config().model.resnet, frozen_stages=2))
    again = replace(config, train=replace(config.train, activation_checkpointing=True))
    pixels, found = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)), []
    for one in (config, again):
        torch.manual_seed(0)
        backbone = build_model(one).backbone.train()
        runs: list[str] = []
        for name in ("res2", "res5"):
            getattr(backbone, name)[0].register_forward_pre_hook(partial(_note, runs, name))
        sum(feature.square().mean() for feature in backbone(pixels)).backward()
        tensors = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        found.append((runs, {**tensors, **dict(backbone.named_buffers())}))
    assert [runs for runs, _ in found] == [["res2", "res5"], ["res2", "res5", "res5"]]
    assert found[0][1].keys() == found[1][1].keys()
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, msg=name)
