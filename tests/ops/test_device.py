"""Which precision and how many threads a processor is given."""

from __future__ import annotations

import pytest
import torch

from maskrcnn.errors import ConfigError
from maskrcnn.ops import device
from maskrcnn.ops.device import living_threads, resolve_precision, usable_device

CPU = torch.device("cpu")

# What `torch.cpu.get_capabilities` says on processors, as far as it matters here.
PROCESSORS = {
    "Xeon with tiles": ({"avx512_bf16": True, "avx512_fp16": True, "amx_tile": True, "amx_bf16": True}, torch.bfloat16),
    "the same, tiles hidden": ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": False}, torch.float32),
    "Zen 4": ({"avx512_bf16": True, "avx512_fp16": False, "amx_bf16": False}, torch.bfloat16),
    "AVX-512 alone": ({"avx512_bf16": False, "avx512_fp16": False, "amx_bf16": False}, torch.float32),
    "another architecture": ({"neon": True, "bf16": True}, torch.float32),
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_cpu_computes_in_bfloat16_where_that_is_faster(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    can, expected = PROCESSORS[processor]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("fp32", CPU) == torch.float32
    assert resolve_precision("bf16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("tiles", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_an_older_torch_is_asked_for_tiles_alone(
    tiles: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert resolve_precision("auto", CPU) == expected


def test_a_device_of_another_kind_computes_in_float32() -> None:
    assert resolve_precision("auto", torch.device("mps")) == torch.float32


def test_a_forked_process_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with living_threads() as threads:
            assert (threads, torch.get_num_threads()) == (2, 2)
        monkeypatch.setattr(device, "_IMPORTED_BY", -1)
        with living_threads() as threads:
            assert (threads, torch.get_num_threads()) == (1, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(given)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", 3.5])
def test_a_device_that_the_machine_lacks_is_one_line(name: str) -> None:
    assert usable_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"expected a device of this machine, such as 'cpu' \(") as error:
        usable_device(name)
    assert "\n" not in str(error.value)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of auto, fp32, bf16, fp16, found 'fp8'"):
        resolve_precision("fp8", CPU)  # type: ignore[arg-type]
