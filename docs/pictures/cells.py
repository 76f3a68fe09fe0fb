"""Draws generated cells, on which nuclei.png shows what the model `nuclei` finds.

python docs/pictures/cells.py cells.png
maskrcnn predict --model nuclei cells.png --out runs/cells
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

HEIGHT, WIDTH, CELLS = 320, 480, 42


def cells() -> np.ndarray:
    """A grey image (HEIGHT, WIDTH) uint8 of bright ellipses with texture and noise, which hardly overlap."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.full((HEIGHT, WIDTH), 10.0)
    placed: list[tuple[float, float, float]] = []
    while len(placed) < CELLS:
        centre_x, centre_y = random.uniform(10, WIDTH - 10), random.uniform(10, HEIGHT - 10)
        long, short = random.uniform(9, 18), random.uniform(9, 14)
        size = max(long, short)
        if any(np.hypot(centre_x - a, centre_y - b) < 0.92 * (size + other) for a, b, other in placed):
            continue
        placed.append((centre_x, centre_y, size))
        angle = random.uniform(0, np.pi)
        along = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
        across = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
        texture = 1 + 0.15 * np.sin(along / 2.3 + random.uniform(0, 6)) * np.cos(across / 2.9 + random.uniform(0, 6))
        edge = 1 + np.exp((np.hypot(along / long, across / short) - 1) * 12)
        image += random.uniform(45, 130) * texture / edge
    image += random.normal(0, 2.5, image.shape)
    return image.clip(0, 255).astype(np.uint8)


Image.fromarray(cells()).convert("RGB").save(sys.argv[1])
