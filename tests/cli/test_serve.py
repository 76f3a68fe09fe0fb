from __future__ import annotations

import builtins
import socket

import pytest

from maskrcnn.cli import serve
from maskrcnn.errors import ConfigError
from small_data import random_predictor


def test_flags():
    parsed = serve.parse(["--model", "a.safetensors", "cells=b.pth", "--port", "0", "--queue", "3"])
    assert (parsed.model, parsed.port, parsed.host) == (("a.safetensors", "cells=b.pth"), 0, "127.0.0.1")
    assert parsed.limits.queue == 3
    assert serve.models_by_name(parsed.model) == {"a": "a.safetensors", "cells": "b.pth"}


def test_names_of_models(tmp_path):
    (tmp_path / "a=b.pth").touch()
    given = (f"{tmp_path}/a=b.pth", "detectron2/COCO/mask_rcnn_R_50_FPN_3x", "x=https://example.org/m.pth?v=1")
    assert list(serve.models_by_name(given)) == ["a_b", "mask_rcnn_R_50_FPN_3x", "x"]
    with pytest.raises(ConfigError, match=r"x/m\.pth and y/m\.pth are both named m"):
        serve.models_by_name(("x/m.pth", "y/m.pth"))


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.TOKEN_VARIABLE, raising=False)
    assert serve.read_token(None) is None
    monkeypatch.setenv(serve.TOKEN_VARIABLE, "from-there")
    assert serve.read_token(None) == "from-there"
    (tmp_path / "token").write_text("from-file\n")
    assert serve.read_token(tmp_path / "token") == "from-file"
    for wrong in ("", " \n", "two words"):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(ConfigError, match="token: expected a token of printable ASCII"):
            serve.read_token(tmp_path / "token")


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_what_cannot_be_served_is_one_line(command, tmp_path, taken):
    random_predictor().save(tmp_path / "m.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"no model")
    good = ("--model", tmp_path / "m.safetensors", "--port", 0)
    for args, words in (
        (("--model", tmp_path / "no.pth", "--port", 0), "no.pth"),
        (("--model", tmp_path / "broken.pth", "--port", 0), "broken.pth"),
        ((*good[:2], "--port", taken), f"port {taken} (Address already in use)"),
        ((*good, "--port", 70000), "--port: expected 0 to 65535, found 70000"),
        ((*good, "--host", "no.such.host.invalid"), "cannot listen at no.such.host.invalid"),
        ((*good, "--token-file", tmp_path / "none"), "none: expected a file with a token"),
        ((*good, "--processes", 0), "--processes: expected 1 or more, found 0"),
        ((*good, "--queue", 0), "--queue: expected 1 or more, found 0"),
        ((*good, "--timeout", "nan"), "--timeout: expected more than 0, found nan"),
        ((*good, "--max-megabytes", "inf"), "--max-megabytes: expected more than 0, found inf"),
        (("--model", "--port", 0), "--model: expected one or more models"),
    ):
        ran = command("serve", *args)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
        assert ran.err.startswith("error: ")
        assert words in ran.err


@pytest.mark.slow
def test_what_no_process_can_open_is_one_line(fresh, tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no model")
    ran = fresh("serve", "--model", tmp_path / "broken.pth", "--port", 0, "--processes", 2)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert "broken.pth" in ran.err


def test_without_the_extra_the_install_command_is_named(command, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("maskrcnn.serve.app"):
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    ran = command("serve", "--model", "m")
    assert (ran.code, ran.err) == (2, "error: serve needs fastapi: pip install 'maskrcnn[serve]'\n")
