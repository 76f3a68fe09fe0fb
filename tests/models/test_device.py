"""On a device nothing waits: shapes do not follow from values, and no constant is copied there."""

from __future__ import annotations

import pytest

from maskrcnn.ops import device as device_module
from pretend_cuda import Copies, pretend_cuda
from small_network import network_config
from variants import batch_with_points, network_of

KINDS = ("FPN", "softmax masks", "PointRend", "keypoints and masks", "cascade", "cascade as in MMDetection", "C4")

MADE_ONCE = "anchors.py"  # anchors are kept for each shape of a batch, but not those of a pretended device

pytest.importorskip("triton", reason="Triton comes with torch for Linux alone")


@pytest.fixture(autouse=True)
def _with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed: no compiler needs to be there."""
    monkeypatch.setattr(device_module, "triton_works", lambda: True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_losses_on_a_device_wait_for_nothing(kind: str) -> None:
    network, batch = network_of(kind).train(), batch_with_points()
    with pretend_cuda(network, batch.images, batch.targets) as (images, targets), Copies() as copies:
        losses = network(images, targets)
    assert {loss.device.type for loss in losses.values()} == {"cuda"}
    assert [copy for copy in copies.found if MADE_ONCE not in copy] == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "keypoints" not in kind])
def test_detections_on_a_device_wait_for_nothing(kind: str) -> None:
    network, batch = network_of(kind).eval(), batch_with_points()
    with pretend_cuda(network, batch.images) as (images,), Copies() as copies:
        found = network.detect(images, network_config().model.detect)
    assert found.mask_probs is not None
    assert found.mask_probs.device.type == "cuda"
    assert [copy for copy in copies.found if MADE_ONCE not in copy] == []
