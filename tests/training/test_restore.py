"""A damaged checkpoint is refused before anything of it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn.errors import TrainingError
from maskrcnn.training.checkpoint import NAME, Progress, load_checkpoint, save_checkpoint
from maskrcnn.training.state import TrainingState
from small_data import small_config

State = dict[str, Any]
DATA = {"train": {"images": 4, "annotations": 7}}


def small_network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()


def trained(optimizer: str) -> tuple[Any, TrainingState]:
    """A config, and the state of a network after one step."""
    config = small_config(optimizer=optimizer, ema=True)
    network = small_network()
    state = TrainingState.begin(network, config.train)
    step(network, state.optimiser)
    return config, state


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, state = trained("adamw")
    out = tmp_path_factory.mktemp("run")
    save_checkpoint(out, state, config, Progress(1, 0.5, 1, "weights of mine"), DATA, None)
    return out


def resume(out: Path, state: State) -> Progress:
    config = small_config(optimizer="adamw", ema=True)
    network = small_network()
    begun = TrainingState.begin(network, config.train)
    before = copy.deepcopy(network.state_dict())
    torch.save(state, out / NAME)
    try:
        return load_checkpoint(out).restore(begun, config, DATA)[0]
    except TrainingError:
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "half filled"
        assert not begun.optimiser.state
        raise


def first(state: State) -> State:
    """The state of the first parameter in the optimiser."""
    found: State = state["optimiser"]["state"][0]
    return found


def weight(state: State, change: Callable[[torch.Tensor], object]) -> None:
    name = next(name for name, value in state["network"].items() if value.ndim == 4)
    state["network"][name] = change(state["network"][name])


DAMAGES: dict[str, Callable[[State], object]] = {
    "a moment with an axis less": lambda s: first(s).update(exp_avg=first(s)["exp_avg"][0]),
    "a moment of other numbers": lambda s: first(s).update(exp_avg=first(s)["exp_avg"].double()),
    "a moment that is a list": lambda s: first(s).update(exp_avg_sq=[0.0, 1.0]),
    "a moment that is not finite": lambda s: first(s)["exp_avg"][0].fill_(float("nan")),
    "a negative square": lambda s: first(s)["exp_avg_sq"][0].fill_(-1.0),
    "a count of steps as a number": lambda s: first(s).update(step=1),
    "a negative count": lambda s: first(s).update(step=torch.tensor(-1.0)),
    "a count with an axis": lambda s: first(s).update(step=torch.ones(1)),
    "no second moment": lambda s: first(s).pop("exp_avg_sq"),
    "a foreign entry": lambda s: first(s).update(max_exp_avg_sq=first(s)["exp_avg_sq"]),
    "a parameter without state": lambda s: s["optimiser"]["state"].pop(0),
    "the state of no parameter": lambda s: s["optimiser"]["state"].update({10_000: dict(first(s))}),
    "states by name": lambda s: s["optimiser"].update(state={str(k): v for k, v in s["optimiser"]["state"].items()}),
    "no state": lambda s: s["optimiser"].update(state={}),
    "a state of another optimiser": lambda s: s.update(optimiser=trained("sgd")[1].optimiser.state_dict()),
    "groups without their parameters": lambda s: s["optimiser"]["param_groups"][0].update(params=[]),
    "another decay": lambda s: s["optimiser"]["param_groups"][0].update(weight_decay=float("nan")),
    "a group that is a number": lambda s: s["optimiser"].update(param_groups=[1, 2]),
    "an optimiser in a list": lambda s: s.update(optimiser=[s["optimiser"]]),
    "a weight of another shape": lambda s: weight(s, lambda t: t[:1]),
    "a weight in half precision": lambda s: weight(s, torch.Tensor.half),
    "a weight that is text": lambda s: weight(s, str),
    "an infinite weight": lambda s: weight(s, lambda t: t / 0),
    "a missing weight": lambda s: s["network"].popitem(),
    "a foreign weight": lambda s: s["network"].update({"head.of.mine": torch.ones(1)}),
    "an average of another network": lambda s: s["model"].popitem(),
    "an average that is not finite": lambda s: next(iter(s["model"].values())).fill_(float("inf")),
    "no average": lambda s: s.update(model=None),
    "half an update": lambda s: s.update(average_updates=0.5),
    "a negative count of updates": lambda s: s.update(average_updates=-1),
    "the state of a scaler that is not used": lambda s: s.update(scaler={"scale": 2.0}),
    "weights by number": lambda s: s.update(network=dict(enumerate(s["network"].values()))),
    "more steps than the run has": lambda s: s.update(step=7),
    "half a step": lambda s: s.update(step=1.5),
    "a step that is true": lambda s: s.update(step=True),
    "no step": lambda s: s.pop("step"),
    "an evaluation before the run": lambda s: s.update(evaluated=-1),
    "an AP that is no number": lambda s: s.update(best=float("nan")),
    "an AP in words": lambda s: s.update(best="0.5"),
    "an origin that is a list": lambda s: s.update(origin=["resnet50"]),
    "a count of evaluations that is negative": lambda s: s.update(stale=-1),
    "no fingerprint of the data": lambda s: s.pop("data"),
    "a fingerprint that is a list": lambda s: s.update(data=[1]),
    "a part of the data that is a number": lambda s: s.update(data={"train": 4}),
    "no config": lambda s: s.update(config=None),
    "a setting of another type": lambda s: s["config"]["train"].update(batch_size="two"),
    "a setting that does not exist": lambda s: s["config"].update(trian={}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_refused_before_anything_is_filled(saved: Path, tmp_path: Path, damage: str) -> None:
    state = torch.load(saved / NAME)
    DAMAGES[damage](state)
    with pytest.raises(
        TrainingError, match=r"last\.ckpt: not a checkpoint of this run and this version, or damaged \([^\n]+$"
    ):
        resume(tmp_path, state)


def test_a_whole_checkpoint_is_restored(saved: Path, tmp_path: Path) -> None:
    assert resume(tmp_path, torch.load(saved / NAME)) == Progress(1, 0.5, 1, "weights of mine")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_restored_optimiser_goes_on_as_the_saved_one(tmp_path: Path, optimizer: str) -> None:
    config, state = trained(optimizer)
    save_checkpoint(tmp_path, state, config, Progress(1), DATA, None)
    restored = TrainingState.begin(small_network(), config.train)
    load_checkpoint(tmp_path).restore(restored, config, DATA)
    step(state.network, state.optimiser)
    step(restored.network, restored.optimiser)
    ours, theirs = state.network.state_dict(), restored.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path, share: float) -> None:
    content = (saved / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: int(share * len(content))])
    with pytest.raises(TrainingError, match=r"last\.ckpt: not a checkpoint of this run and this version, or damaged"):
        load_checkpoint(tmp_path)


def test_a_flipped_bit_is_refused_wherever_it_lies(saved: Path, tmp_path: Path) -> None:
    content = (saved / NAME).read_bytes()
    index = content.index(b"PK\x01\x02")
    weights = torch.load(saved / NAME)["network"].values()
    tensors = [content.index(value.numpy().tobytes()) for value in weights if value.ndim == 4]
    for place in (0, 27, *tensors, index, index + 10, index + 16, len(content) - 20):
        changed = bytearray(content)
        changed[place] ^= 0x40
        (tmp_path / NAME).write_bytes(changed)
        with pytest.raises(
            TrainingError, match=r"last\.ckpt: not a checkpoint of this run and this version, or damaged"
        ):
            load_checkpoint(tmp_path)


def test_a_folder_in_place_of_the_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(TrainingError, match="nothing to resume, found a folder of this name"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.9)])
def test_momentum_may_be_zero_before_and_after_a_change(tmp_path: Path, before: float, after: float) -> None:
    def settings(momentum: float, rate: float) -> Any:
        return small_config(optimizer="sgd", momentum=momentum, learning_rate=rate)

    config, network = settings(before, 0.1), small_network()
    state = TrainingState.begin(network, config.train)
    step(network, state.optimiser)
    save_checkpoint(tmp_path, state, config, Progress(1), DATA, None)
    changed = settings(after, 0.2)
    restored = TrainingState.begin(small_network(), changed.train)
    progress, _ = load_checkpoint(tmp_path).restore(restored, changed, DATA, changes=True)
    assert progress.step == 1
    step(restored.network, restored.optimiser)
