from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn.benchmark.settings import KernelSettings, LoaderSettings, PredictSettings, Timing, TrainSettings
from maskrcnn.cli import bench

SMALL = (
    *("--boxes", "20", "--channels", "4", "--map-size", "32", "40", "--masks", "6", "--image-size", "120", "160"),
    *("--rounds", "2", "--no-memory"),
)


def test_flags():
    words = "predict --images a b/*.jpg --batch-size 2 --precision bf16 --rounds 3 --no-memory"
    parsed = bench.parse(words.split())
    assert isinstance(parsed, bench.BenchPredict)
    assert parsed.images == ("a", "b/*.jpg")
    assert parsed.settings == PredictSettings(batch_size=2)
    assert parsed.timing == Timing(rounds=3, precision="bf16", memory=False)
    assert bench.parse(["train", "--size", "128"]).settings == TrainSettings(size=128)
    assert bench.parse(["kernels"]).settings == KernelSettings()
    loader = bench.parse(["loader", "--data", "a.json", "--batch-size", "3", "--workers", "1"])
    assert isinstance(loader, bench.BenchLoader)
    assert loader.data == Path("a.json")
    assert loader.settings == LoaderSettings(batch_size=3, workers=1)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("predict --rounds 0", "--rounds must be 1 or more, found 0"),
        ("predict --warmup -1", "--warmup must not be negative"),
        ("predict --batch-size 0", "--batch-size must be 1 or more and below 2^31, found 0"),
        ("predict --size 20 640", "32 or more pixels a side, found --size 20 640"),
        ("predict --short-side 900 --long-side 800", "--short-side must not exceed --long-side"),
        ("predict --score-threshold 1", "--score-threshold must lie in 0..1, found 1.0"),
        ("predict --images no/such", "no/such"),
        ("predict --threads 0", "--threads must be 1 or more and below 2^31, found 0"),
        ("predict --backend onnx --precision bf16", "--backend onnx computes in fp32, found --precision bf16"),
        (
            "predict --backend torch-package --precision bf16",
            "--backend torch-package computes in fp32, found --precision bf16",
        ),
        ("predict --backend openvino --compile", "--compile belongs to --backend torch, found --backend openvino"),
        ("predict --backend onnx --device cuda", "--backend onnx runs on the CPU, found --device cuda"),
        ("predict --int8", "--int8 needs --backend onnx or openvino"),
        ("predict --int8 --backend openvino --precision bf16", "and --precision fp32 for torchvision's side"),
        ("train --size 100", "--size must be a multiple of 32"),
        ("serve --model m --clients 0", "--clients must be 1 or more"),
        ("serve --model m --seconds 0.5", "--seconds must be 1 or more"),
        ("serve --model no/such.pth --seconds 1", "no/such.pth"),
        ("loader --annotations 0", "--annotations must be 1 or more"),
        ("loader --size 8", "--size must be 128 or more, found 8"),
        ("loader --data no/such.json", "no/such.json: no such file"),
        ("loader --precision bf16", "Unrecognized options: --precision, bf16"),
        ("loader --compile", "Unrecognized options: --compile"),
        ("loader --device cuda", "Unrecognized options: --device, cuda"),
        ("kernels --compile", "Unrecognized options: --compile"),
        ("kernels --boxes 1180591620717411303424", "--boxes must be 1 or more and below 2^31"),
        ("kernels --masks 0", "--masks must be 1 or more"),
        ("kernels --map-size 4 4", "--map-size needs 32 or more a side"),
        ("kernels --precision bf16", "Unrecognized options: --precision, bf16"),
        ("kernels --device abacus", "--device must be cpu or a GPU that works, found 'abacus'"),
    ],
)
def test_nonsense_is_refused(command, args, text):
    ran = command("bench", *args.split())
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert text in ran.err


def test_the_help_shows_the_flags_that_act(command):
    for name, flags in bench.IDLE.items():
        text = command("bench", name, "--help").out
        assert "--rounds" in text
        assert [flag for flag in flags if f"--{flag}" in text] == []
    assert "--compile" in command("bench", "train", "--help").out


def test_a_table_the_verdict_and_one_line(command):
    ran = command("bench", "kernels", *SMALL)
    assert ran.code == 0
    header, *rows, verdict, line = ran.out.splitlines()
    assert header.split() == ["ms", "quartiles", "share", "memory", "MB"]
    assert len(rows) == 10
    assert [row.split(": ")[1].split()[0] for row in rows[:3]] == ["ours", "torchvision", "a"]
    assert {row.split(": ")[1].split()[0] for row in rows[6:]} == {"ours", "torchvision"}
    assert verdict.startswith("results agree")
    assert "torch 2." in line
    assert line.endswith("maskrcnn bench kernels " + " ".join(SMALL))


def test_json(command):
    ran = command("bench", "kernels", *SMALL, "--json")
    found = json.loads(ran.out)
    assert found["bench"] == "kernels"
    assert found["settings"]["map_size"] == [32, 40]
    assert found["kernels"]["RoIAlign"]["seconds"]["rounds"] == 2
    assert found["line"].startswith("kernels: RoIAlign x")
    assert "results agree" in ran.err


def test_loader(command):
    words = ["--size", "128", "--count", "2", "--batch-size", "2", "--rounds", "2", "--no-memory"]
    ran = command("bench", "loader", *words)
    assert ran.code == 0
    _, ours, theirs, verdict, line = ran.out.splitlines()
    assert ours.split()[0] == "ours"
    assert theirs.split()[0] == "torchvision"
    assert verdict.startswith("samples agree")
    assert "images a second on one core" in line
    assert line.endswith("maskrcnn bench loader " + " ".join(words))
    found = json.loads(command("bench", "loader", *words, "--json").out)
    assert found["bench"] == "loader"
    assert found["settings"]["size"] == 128
    assert found["agreement"]["agree"]
    assert found["line"].startswith("loader: ours ")


def test_a_difference_ends_with_1(command, monkeypatch):
    from maskrcnn.benchmark import kernels

    (name, make, _), *_ = kernels.CASES
    monkeypatch.setattr(kernels, "CASES", ((name, make, 0.0),))  # nothing is allowed to differ by rounding
    ran = command("bench", "kernels", *SMALL)
    assert ran.code == 1
    assert "RESULTS DIFFER" in ran.out
