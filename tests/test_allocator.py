"""Whether freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")


def in_a_process(code: str) -> int:
    """What the last line of `code` prints; the allocator of this process is let alone."""
    code = f"import resource, torch\nfrom maskrcnn import allocator\n{code}"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def test_kept_memory_is_handed_out_again() -> None:
    """Large pieces freed and asked for again are not new to the process: each new page is a fault."""
    faults = """
torch.ones(60_000_000, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(50_000_000, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert in_a_process("allocator.keep_freed_memory()" + faults) < 100
    assert in_a_process(faults) > 5_000


def test_returned_memory_leaves_the_process() -> None:
    """Of many pieces of a megabyte each second one is freed; by default these stay, between the others."""
    held = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
torch.ones(20_000_000, dtype=torch.uint8)  # glibc learns from it to hold smaller ones back
pieces = [torch.ones(1_000_000, dtype=torch.uint8) for _ in range(100)]
before = resident()
del pieces[::2]
print(before - resident())
"""
    assert in_a_process("allocator.return_freed_memory()" + held) > 48_000_000
    assert in_a_process(held) < 20_000_000
