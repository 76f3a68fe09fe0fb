"""One step of training: as one graph, without a look at its losses, and harmless where one is not finite."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from maskrcnn.config import Config, ImageConfig, MaskHeadConfig, Norm, TrainConfig
from maskrcnn.data.loading.loader import Batch, collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.errors import TrainingError
from maskrcnn.models import rois
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops import matching
from maskrcnn.ops.device import compiled, in_precision
from maskrcnn.training.loop import train
from maskrcnn.training.state import TrainingState
from maskrcnn.training.step import LossWindow, on_device, train_step
from small_data import small_config, write_small
from small_network import batch_of, lively_network, network_config, sample_of

CONFIG = TrainConfig(learning_rate=0.01, warmup_steps=0, precision="fp32")


def batch() -> Batch:
    objects = [(0, (5, 5, 40, 40)), (1, (30, 20, 80, 60)), (-1, (60, 0, 90, 30))]
    return collate(
        [sample_of(64, 96, objects), sample_of(96, 64, [(0, (5, 5, 40, 40))], seed=1)],
        ImageConfig(short_side=64, long_side=96),
        static_shapes=True,
    )  # type: ignore[arg-type]


def weights_after(network: MaskRCNN, number: int, images: Batch, **settings: object) -> list[torch.Tensor]:
    config = replace(CONFIG, **settings)  # type: ignore[arg-type]
    state = TrainingState.begin(network.train(), config)
    for step in range(number):
        train_step(network.loss_sums, state, [images], config, step)
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.slow
def test_losses_and_gradients_are_one_graph_and_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = lively_network(network_config()).train(), batch()

    def run(losses_of: object) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        torch.manual_seed(0)
        losses = losses_of(images.images, images.targets)  # type: ignore[operator]
        trained = [p for p in network.parameters() if p.requires_grad]
        return losses, list(torch.autograd.grad(torch.stack(list(losses.values())).sum(), trained))

    found, gradients = run(torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager"))
    for module in (rois, matching):  # the same slots without the compiler
        monkeypatch.setattr(module, "static_shapes", lambda tensor: True)
    expected, theirs = run(network)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=0)
    for ours, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.slow
def test_a_compiled_run_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is run operation by operation: to generate code for it takes minutes on two cores.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    data = write_small(tmp_path / "data", "train", 4)
    config = small_config(steps=3)
    config = replace(config, augment=replace(config.augment, crop=(64, 64)))
    plain = train(config, data, out=tmp_path / "plain")
    compiled = train(replace(config, train=replace(config.train, compile=True)), data, out=tmp_path / "compiled")
    losses = [json.loads((run.out / "metrics.jsonl").read_text())["loss"] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)  # of more slots, other samples are drawn


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_loss_that_is_not_finite_changes_no_weight_and_is_told_when_losses_are_read(optimizer: str) -> None:
    network, images = lively_network(network_config()).train(), batch()
    config = replace(CONFIG, optimizer=optimizer)  # type: ignore[arg-type]
    state = TrainingState.begin(network, config)
    window = LossWindow()
    window.add(1, ("a", "b"), train_step(network.loss_sums, state, [images], config, 0))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        network.rpn.head.objectness.bias.fill_(torch.nan)
    window.add(2, ("c", "d"), train_step(network.loss_sums, state, [images], config, 1))
    bias = network.rpn.head.objectness.bias
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert parameter is bias or torch.equal(parameter, value)
    with pytest.raises(TrainingError, match=r"step 2: loss_rpn_class is nan.* on images c, d; lower"):
        window.read()


def test_a_step_draws_by_the_seed_and_its_number_alone() -> None:
    def one(seed: int, skip: int) -> list[torch.Tensor]:
        torch.manual_seed(skip)
        return weights_after(lively_network(network_config()), 2, batch(), seed=seed)

    first, second, third = one(0, 1), one(0, 2), one(1, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, third, strict=True))


def test_means_are_over_the_steps_since_the_last_ones() -> None:
    window = LossWindow()
    for step, value in enumerate((1.0, 2.0, 6.0), start=1):
        window.add(step, (), {"loss_mask": torch.tensor(value), "loss": torch.tensor(2 * value)})
    window.read()
    assert window.steps == 3
    assert window.means() == {"loss_mask": 3.0, "loss": 6.0}
    window.add(4, (), {"loss_mask": torch.tensor(5.0)})
    window.read()
    assert window.means() == {"loss_mask": 5.0}


def four_samples() -> list[Sample]:
    """Images with different numbers of objects, one without any."""
    objects = [[(0, (5, 5, 40, 40)), (1, (30, 20, 80, 60))], [], [(1, (50, 5, 90, 60))], [(0, (0, 0, 12, 60))] * 3]
    return [sample_of(64, 96, own, seed=i) for i, own in enumerate(objects)]  # type: ignore[arg-type]


def with_norm(config: Config, norm: Norm) -> Config:
    backbone = replace(config.model.resnet, norm=norm, frozen_stages=0)
    return replace(config, model=replace(config.model, backbone=backbone))


@pytest.mark.slow
def test_batches_of_a_step_give_the_losses_and_weights_of_one_large_batch() -> None:
    """Sums of losses are divided by what is counted in all images, and each image keeps its random numbers."""
    one, two, three, four = four_samples()
    model = network_config(mask_head=replace(network_config().model.mask_head or MaskHeadConfig(), samples=3))
    model = with_norm(model, "frozen_batch_norm")
    config = replace(CONFIG, clip_norm=1.0)
    found = []
    divided = [[one], [two], [three], [four]], [[one, two, three], [four]]
    for parts in ([[one, two, three, four]], *divided):
        batches = [batch_of(*part) for part in parts]
        network = lively_network(model).train()
        state = TrainingState.begin(network, config)
        rows = [train_step(network.loss_sums, state, batches, config, step) for step in range(2)]
        found.append((rows, [parameter.detach() for parameter in network.parameters()]))
    for rows, weights in found[1:]:
        for row, expected in zip(rows, found[0][0], strict=True):
            assert {k: float(v) for k, v in row.items()} == pytest.approx(
                {k: float(v) for k, v in expected.items()}, rel=1e-5
            )
        for ours, other in zip(weights, found[0][1], strict=True):
            torch.testing.assert_close(ours, other, rtol=0, atol=1e-5)


def test_statistics_of_batch_norm_see_each_image_once() -> None:
    network = lively_network(with_norm(network_config(), "batch_norm")).train()
    state = TrainingState.begin(network, CONFIG)
    train_step(network.loss_sums, state, [batch_of(sample) for sample in four_samples()[:2]], CONFIG, 0)
    counts = [value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {2}


@pytest.mark.slow
def test_losses_in_fp16_are_those_of_fp32() -> None:
    network, images = lively_network(with_norm(network_config(), "frozen_batch_norm")).train(), batch()
    targets = replace(images.targets, seeds=torch.arange(2))
    with torch.no_grad():
        expected = network(images.images, targets)
        with in_precision("fp16", torch.device("cpu")):
            found = network(images.images, targets)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=0.1), name


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_fp16_skips_a_step_that_overflows_and_goes_on_with_a_smaller_scale(clip_norm: float | None) -> None:
    """The momentum after a skipped first step is that of a new run."""
    config = replace(CONFIG, precision="fp16", clip_norm=clip_norm)
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    plain = deepcopy(network)
    state = TrainingState.begin(network, config)

    def step(state: TrainingState, number: int) -> None:
        state.optimiser.zero_grad()
        loss = 100 * state.network(torch.ones(4, 3)).square().mean()
        state.scaler.scale(loss).backward()
        state.update(loss.detach(), config, number)

    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**127})
    step(state, 0)
    assert state.scaler.get_scale() == 2.0**126
    assert torch.equal(network.weight, plain.weight)
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**8})
    other = TrainingState.begin(plain, replace(config, precision="fp32"))
    for number in (1, 2):
        step(state, number)
        step(other, number)
    torch.testing.assert_close(network.weight, plain.weight)


@pytest.mark.gpu
@pytest.mark.parametrize("compile_it", [False, True])
def test_steps_on_a_gpu_wait_for_nothing(compile_it: bool) -> None:
    device = torch.device("cuda")
    network = lively_network(network_config()).train().to(device)
    state = TrainingState.begin(network, CONFIG)
    sums_of = compiled(network.loss_sums, device) if compile_it else network.loss_sums
    images = next(on_device(iter([batch()]), device))
    for step in range(4):  # kernels are built, graphs recorded
        train_step(sums_of, state, [images], CONFIG, step)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = train_step(sums_of, state, [images], CONFIG, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert losses["loss"].isfinite()
