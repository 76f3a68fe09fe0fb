"""CI must notice a test that it did not run: tests/conftest.py, tried on a small suite of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITES = {
    "green": "def test_a(): pass",
    "skipped": "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no time')",
    "skipped_file": "import pytest\npytest.skip('not here', allow_module_level=True)",
    "shared_missing": "def test_a(): pass\ndef test_b(shared): pass",
    "gpu": "import pytest\ndef test_a(): pass\n@pytest.mark.gpu\ndef test_b(): pytest.skip('no device')",
    "xfail": "import pytest\ndef test_a(): pass\n@pytest.mark.xfail\ndef test_b(): assert 0",
}


def run_suite(folder: Path, name: str, ci: str) -> subprocess.CompletedProcess[str]:
    suite = folder / "checkout" / "tests"
    suite.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("conftest.py"), suite)
    (suite / "test_it.py").write_text(SUITES[name])
    # The suite keeps away from a real GPU, whose driver would make this test slow.
    environment = {**os.environ, "CI": ci, "CUDA_VISIBLE_DEVICES": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    markers = ["-o", "markers=gpu: needs CUDA\nshared: real data"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *markers, str(suite)],
        capture_output=True,
        text=True,
        cwd=suite,
        env=environment,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ci", "code"),
    [
        ("green", "true", 0),
        ("skipped", "true", 1),
        ("skipped", "", 0),
        ("skipped_file", "true", 1),
        ("shared_missing", "true", 1),
        ("shared_missing", "", 0),
        ("gpu", "true", 0),
        ("xfail", "true", 0),
    ],
)
def test_skips_fail_only_in_ci(tmp_path, name, ci, code):
    done = run_suite(tmp_path, name, ci)
    assert (done.returncode != 0) == (code != 0), done.stdout + done.stderr
    assert ("skipped although CI must run them" in done.stdout) == (code != 0)
