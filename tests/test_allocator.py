"""Whether freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")

FAULTS = """
torch.ones(60_000_000, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(50_000_000, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
HELD = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
torch.ones(20_000_000, dtype=torch.uint8)  # glibc learns from it to hold smaller ones back
pieces = [torch.ones(1_000_000, dtype=torch.uint8) for _ in range(100)]
before = resident()
del pieces[::2]
print(before - resident())
"""
TRIMMED = """
allocator.keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
pieces = [torch.ones(1_000_000, dtype=torch.uint8) for _ in range(100)]
before = resident()
del pieces[::2]
kept = before - resident()
allocator.trim()
print(kept, before - resident())
"""
CODES = (
    "allocator.keep_freed_memory()" + FAULTS,
    FAULTS,
    "allocator.return_freed_memory()" + HELD,
    HELD,
    TRIMMED,
)
# Each piece of code runs in a child of its own, whose allocator nobody has told anything before.
CHILDREN = """
import os, resource, sys, torch
from maskrcnn import allocator
for code in sys.argv[1:]:
    if os.fork() == 0:
        exec(code)
        sys.exit()
    os.wait()
"""


@pytest.mark.slow
def test_freed_memory_stays_or_leaves_as_the_allocator_was_told() -> None:
    done = subprocess.run([sys.executable, "-c", CHILDREN, *CODES], capture_output=True, check=True)
    kept, usually_new, returned, usually_returned, untrimmed, trimmed = map(int, done.stdout.split())
    # Large pieces freed and asked for again are not new to the process: each new page is a fault.
    assert kept < 100
    assert usually_new > 5_000
    # Of many pieces of a megabyte each second one is freed; by default these stay, between the others.
    assert returned > 48_000_000
    assert usually_returned < 20_000_000
    assert untrimmed < 1_000_000
    assert trimmed > 48_000_000
