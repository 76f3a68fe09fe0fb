"""The promises to people who import the package or type its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import maskrcnn
from maskrcnn.config import config_from_dict, config_to_dict
from maskrcnn.config.presets import PRESETS, preset

HEAVY = ["torch", "torchvision", "numpy", "PIL", "pydantic", "rich", "matplotlib", "supervision", "hotcoco", "tyro"]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_public_names():
    assert set(maskrcnn.__all__) == {
        *("Config", "MaskRCNNError", "Recipe", "__version__", "evaluate", "load", "presets", "train")
    }
    assert set(maskrcnn.__all__) <= set(dir(maskrcnn))


@pytest.mark.parametrize("name", ["Config", "MaskRCNNError", "Recipe", "evaluate", "load", "train"])
def test_public_names_resolve(name):
    assert getattr(maskrcnn, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        maskrcnn.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["import maskrcnn", "from maskrcnn import presets, Config", "from maskrcnn import cli; cli.main(['--help'])"],
)
def test_importing_is_light(statement):
    code = f"{statement}\nimport sys, json\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    assert json.loads(python(code).splitlines()[-1]) == []


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_model_file(name):
    config = preset(name)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def seconds(args: list[str]) -> float:
    """The processor time of a run. Wall time would also measure what else the machine does."""
    process = subprocess.Popen([sys.executable, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def limit() -> float:
    """Half a second. On a quiet machine the bare interpreter takes 12 ms; where it takes longer, so may we."""
    return 0.5 * max(1.0, min(seconds(["-c", "pass"]) for _ in range(3)) / 0.012)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "trian",
        "train d.json --out o --preset nonsense",
        "train d.json --out o --no-such-flag 1",
        "train --out o",
        "evaluate --data d.json",
        "predict",
        "data chekc d.json",
    ],
)
def test_commands_answer_within_half_a_second(command, limit):
    tries = (seconds(["-m", "maskrcnn", *command.split()]) for _ in range(3))
    assert any(used < limit for used in tries), "the least of three runs counts"
