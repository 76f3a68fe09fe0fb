"""Runs side by side, from files that a run leaves."""

from __future__ import annotations

import json

import pytest
import torch

from maskrcnn.models.build import build_model
from maskrcnn.training.reports.compare import comparison_page, read_runs
from maskrcnn.training.run import MODEL
from maskrcnn.weights.model_file import save_model
from small_data import small_config


def run_in(folder, aps, data=None, **train):
    """The files of a run with these APs of masks, and these fingerprints of its data."""
    config = small_config(**train)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_model(folder / MODEL, build_model(config), config, {"data": data} if data else {})
    rows = [
        {"step": 10 * i, "loss": 3.0 / i, "seconds": {"loading": 0.5, "steps": 9.5}} for i in range(1, len(aps) + 1)
    ]
    rows += [{"step": 10 * i, "masks": {"AP": ap, "AP50": 0.9}} for i, ap in enumerate(aps, start=1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def test_runs_stand_side_by_side_with_the_settings_that_differ(command, tmp_path):
    first = run_in(tmp_path / "a", [0.2, 0.5, 0.4], learning_rate=0.01)
    second = run_in(tmp_path / "b <2>", [0.3], learning_rate=0.02, drops=(0.5, 0.75))
    page = tmp_path / "page.html"
    ran = command("compare", first, second, "--json", "--report", page)
    assert ran.code == 0
    a, b = json.loads(ran.out)["runs"]
    assert (a["steps"], a["seconds"], a["loss"], a["masks AP"], a["best AP"], a["at step"]) == (30, 30, 1, 0.4, 0.5, 20)
    assert (b["steps"], b["best AP"], b["settings"]) == (
        10,
        0.3,
        {"train.drops": [0.5, 0.75], "train.learning_rate": 0.02},
    )
    assert "2: b &lt;2&gt;" in page.read_text()
    lines = command("compare", first, second).out.splitlines()
    assert lines[0].split() == ["a", "b", "<2>"]
    assert [line.split() for line in lines if line.startswith(("best AP", "train."))] == [
        ["best", "AP", "0.500", "0.300"],
        ["train.drops", "0.6667", "0.8889", "0.5", "0.75"],
        ["train.learning_rate", "0.01", "0.02"],
    ]


def test_the_curve_shows_the_figure_of_the_table_if_the_first_run_has_none(tmp_path):
    plain = run_in(tmp_path / "plain", [])
    (plain / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n')
    judged = [run_in(tmp_path / name, aps) for name, aps in (("a", [0.2, 0.3]), ("b", [0.6, 0.1]))]
    pages = [comparison_page(read_runs([plain, run])) for run in judged]
    curves = [page.split("<svg")[1] for page in pages]
    assert curves[0] != curves[1]


def test_runs_of_one_name_are_told_apart_by_their_paths(command, tmp_path):
    folders = [run_in(tmp_path / name / "run", []) for name in ("x", "y")]
    for folder in folders:
        (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n')
    out = command("compare", *folders).out
    assert all(str(folder) in out for folder in folders)
    assert "best AP" in out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "metrics.jsonl").unlink(), "one without metrics.jsonl"),
        (lambda folder: (folder / MODEL).unlink(), f"one without {MODEL}"),
        (lambda folder: folder.rename(folder.with_name("gone")), "found no folder"),
        (lambda folder: (folder / "metrics.jsonl").write_text("no JSON\n"), "the run has just begun"),
        (lambda folder: (folder / MODEL).write_bytes(b"\x08"), MODEL),
    ],
)
def test_what_is_no_run_is_refused_in_a_line(command, tmp_path, spoil, words):
    good, bad = run_in(tmp_path / "good", [0.1]), run_in(tmp_path / "bad", [0.1])
    spoil(bad)
    ran = command("compare", good, bad)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert str(bad) in ran.err
    assert words in ran.err


def test_a_comparison_needs_two_runs(command, tmp_path):
    one = run_in(tmp_path / "one", [0.1])
    assert "expected the folders of two or more runs to compare, found 1" in command("compare", one).err
    assert "expected each run once, found it twice" in command("compare", one, tmp_path / "x" / ".." / "one").err
    refused = command("compare", one, run_in(tmp_path / "two", [0.1]), "--report", one / MODEL)
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_runs_that_were_judged_by_different_data_are_named(command, tmp_path):
    def judged(name, images, content, aps=(0.5,)):
        data = {"train": {"images": 9, "content": name}, "val": {"images": images, "content": content}}
        return run_in(tmp_path / name, aps, data)

    first, same, other, old = (
        judged("a", 3, "x"),
        judged("b", 3, "x"),
        judged("c", 4, "y"),
        run_in(tmp_path / "d", [0.1]),
    )
    unjudged = judged("e", 4, "y", aps=())
    (unjudged / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n')
    page = tmp_path / "page.html"
    ran = command("compare", first, other, "--report", page)
    assert "different validation data" in ran.err
    assert "different validation data" in page.read_text()
    assert [line.split()[-2:] for line in ran.out.splitlines() if "images" in line] == [["9", "9"], ["3", "4"]]
    assert len(json.loads(command("compare", first, other, "--json").out)["doubts"]) == 1
    for second in (same, old, unjudged):
        ran = command("compare", first, second)
        assert (ran.code, "different" in ran.err) == (0, False)
