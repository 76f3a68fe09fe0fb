"""Configs of MMDetection are Python that is read and never run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.mmdetection.config_file import parse_config, read_settings, stages, steps
from maskrcnn.weights.frameworks.settings import setting


def written(folder: Path, **files: str) -> Path:
    """Writes `name.py` of each, and gives the first."""
    paths = [folder / f"{name}.py" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text)
    return paths[0]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(values)
def test_what_python_prints_is_read_again(value: Any) -> None:
    assert parse_config(f"model = {value!r}", "a config") == {"model": value}


def test_calls_of_dict_earlier_names_and_sums() -> None:
    text = """
'''A text.'''
import os
scale = (1333, 800)
norm = dict(type='BN', eps=1.0 / 8)
model = dict({'a': 1}, norm=norm, **dict(b=-2), pair=[*[]] if False else None)
"""
    with pytest.raises(ConfigError, match=r"a config, line 6: .*not run"):
        parse_config(text, "a config")
    found = parse_config(
        text.replace(", pair=[*[]] if False else None", ", side=scale[1], half=800 // 2, all=[1] + [2]"), ""
    )
    assert found["model"] == {
        "a": 1,
        "norm": {"type": "BN", "eps": 0.125},
        "b": -2,
        "side": 800,
        "half": 400,
        "all": [1, 2],
    }


def test_bases_lie_beneath(tmp_path: Path) -> None:
    own = written(
        tmp_path,
        own="""
_base_ = ['./model.py', 'rest.py']
_base_.optimiser.kind = 'amp'
model = dict(neck=dict(_delete_=True, type='B'), roi=dict(classes=3), of={{_base_.scale}})
model['more'] = _base_.scale[0]
""",
        model="model = dict(neck=dict(type='A', width=1), roi=dict(classes=80, stride=4))",
        rest="_base_ = 'size.py'\noptimiser = dict(kind='sgd', rate=0.1)",
        size="scale = (1333, 800)",
    )
    assert read_settings(own) == {
        "model": {"neck": {"type": "B"}, "roi": {"classes": 3, "stride": 4}, "of": (1333, 800), "more": 1333},
        "optimiser": {"kind": "amp", "rate": 0.1},
        "scale": (1333, 800),
    }


def test_files_one_after_another_as_mmcv_1_wrote_them() -> None:
    text = """configs/_base_/model.py
model = dict(neck=dict(type='A'), roi=dict(classes=80))

configs/own.py
_base_ = '_base_/model.py'
model = dict(roi=dict(classes=3))
"""
    assert parse_config(text, "a config") == {"model": {"neck": {"type": "A"}, "roi": {"classes": 3}}}


def test_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": {"type": "MaskRCNN"}}))
    assert read_settings(tmp_path / "config.json") == {"model": {"type": "MaskRCNN"}}
    for text, expected in (("{", "a JSON object"), ("[1]", "a JSON object"), ("{}", "a config of MMDetection")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=rf"config\.json: expected {expected}"):
            read_settings(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "no Python"),
        ("model = open('/etc/passwd')", r"line 1: .*found \"open\('/etc/passwd'\)\", which is not run"),
        ("model = __import__('os').getcwd()", "not run"),
        ("x = 1\nfor i in range(3):\n    x = i", "line 2"),
        ("model = unknown", "found 'unknown'"),
        ("model = dict(a=[i for i in (1, 2)])", "not run"),
        ("model = [0] * 1000000000", "not run"),
        ("model = 9 ** 9", "not run"),
        ("model = 1 / 0", "not run"),
        ("model = dict(**1)", "not run"),
        ("model = {[]: 1}", "not run"),
        ("model.x = 1", "found 'model'"),
        ("x = 1\nx.y = 2", "line 2"),
        ("model = " + "(" * 300 + "1" + ")" * 300, "no Python"),
        ("a = 1", "expected a config of MMDetection with a model, found a"),
        ("_base_ = 'own.py'\nmodel = dict()", "leads back to itself"),
        ("_base_ = [1]\nmodel = dict()", "_base_ should name files, found 1"),
        ("_base_ = 'mmdet::_base_/default.py'\nmodel = dict()", "cannot be read"),
        ("from mmengine.config import read_base\nwith read_base():\n    from .a import *", "print_config"),
    ],
)
def test_what_is_more_than_data_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(written(tmp_path, own=text))


def test_a_long_sum_ends_in_an_error_and_not_in_python() -> None:
    with pytest.raises(ConfigError):
        parse_config("model = " + "+".join(["1"] * 20000), "a config")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [1, 2]\n" + "a = a + a\n" * 40, "at most 200,000 values"),
        ("a = 'some text'\n" + "a = a + a\n" * 40, "at most 200,000 values"),
        ("a = 2\n" + "a = a * a\n" * 40, r"an integer of \d+ bits"),
        ("a = dict(x=1)\n" + "a = dict(l=a, r=[a])\n" * 40, "at most 200,000 values"),
        ("a = dict()\n" + "a['b'] = a\n", "at most 200,000 values"),
        # The largest is filled last, when each is already part of the next.
        (
            "".join(f"a{i} = dict()\n" for i in range(40))
            + "".join(f"a{i}.l = a{i - 1}\na{i}.r = a{i - 1}\n" for i in range(39, 0, -1)),
            "at most 200,000 values",
        ),
        (f"a = dict({', '.join(f'b{i}=1' for i in range(5000))})\n" + "a = dict(**a, **a)\n" * 100, "200,000 values"),
        ("a.py\n" + "".join(f"a{i} = 1\n" for i in range(2000)) + "b.py\n" * 5000, "at most 200,000 values"),
        ("model = " + "a" + ".a" * 20_000, "no Python"),
        ("a = 1\n" * 100_000, "at most 131,072 characters"),
    ],
)
def test_what_grows_without_end_is_refused_in_little_time(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=message) as raised:
        parse_config(text, "a config")
    assert "\n" not in str(raised.value)
    assert time.process_time() - start < 5


def test_files_that_name_each_other_twice_are_not_read_without_end(tmp_path: Path) -> None:
    files = {f"a{i}": f"_base_ = ['a{i + 1}.py', 'a{i + 1}.py']" for i in range(30)}
    with pytest.raises(ConfigError, match="at most 200,000 values"):
        read_settings(written(tmp_path, **files, a30="model = dict()"))


def test_a_part_a_stage_and_a_step() -> None:
    settings = {"a": {"b": None, "c": 0}, "head": [{"k": 1}, {"k": 2}], "neck": {"k": 3}}
    assert setting(settings, "a.b", 5) == 5
    assert setting(settings, "a.c", 5) == 0
    assert setting(settings, "a.c.d") is None
    assert stages(settings, "head") == [{"k": 1}, {"k": 2}]
    assert stages(settings, "neck") == [{"k": 3}]
    assert stages(settings, "none") == []
    nested = {
        "test_dataloader": {"dataset": {"pipeline": [{"type": "TestTimeAug", "transforms": [{"type": "Resize"}]}]}}
    }
    assert steps(nested, "test") == [{"type": "Resize"}]
    assert steps({}, "train") == []
