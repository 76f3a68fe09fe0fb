"""The slow, readable twins of the kernels: float64, plain loops over boxes, bins and pixels.

They define what each operation means, and the fast versions are tested against them. Boxes are continuous edges
x1 y1 x2 y2. Pixel i covers [i, i + 1), so its centre is at i + 0.5.
"""
