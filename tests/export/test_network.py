"""The sizes that a trace begins with, and what may vary in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maskrcnn.config import Config
from maskrcnn.export.network import ExportedNetwork, example, exported_program
from small_network import lively_network, network_config
from variants import ONE_LEVEL


def config_of(divisor: int) -> Config:
    config = network_config(neck="c5", anchors=ONE_LEVEL)
    return replace(config, image=replace(config.image, divisor=divisor))


@pytest.mark.parametrize("divisor", [1, 20, 32, 64, 96, 128])
def test_the_example_has_sides_that_the_divisor_allows(divisor: int) -> None:
    (pixels, sizes, *_), _ = example(config_of(divisor))
    for side in pixels.shape[2:]:
        assert side % divisor == side % 32 == 0
    assert sizes.tolist() == [list(pixels.shape[2:])] * 2


@pytest.mark.slow
def test_a_network_with_a_large_divisor_is_traced() -> None:
    config = config_of(128)
    program = exported_program(ExportedNetwork(lively_network(config), config, "probs"), *example(config))
    pixels = next(node for node in program.graph.nodes if node.name == "pixels").meta["val"]
    assert [str(side).partition("*")[0] for side in pixels.shape[2:]] == ["128", "128"]  # times any number
