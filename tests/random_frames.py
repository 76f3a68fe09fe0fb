"""Frames of every kind, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from maskrcnn.structures.frame import Frame, frame_of_size


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame of scale, window, flips, turns and padding."""
    original, resized = (draw(st.tuples(*[st.integers(*bounds)] * 2)) for bounds in ((8, 60), (4, 90)))
    frame = frame_of_size(original, resized)
    out = draw(st.integers(1, resized[0])), draw(st.integers(1, resized[1]))
    left, top = draw(st.integers(0, resized[1] - out[1])), draw(st.integers(0, resized[0] - out[0]))
    frame = frame.cropped(left, top, out)
    if draw(st.booleans()):
        frame = frame.flipped_horizontally()
    if draw(st.booleans()):
        frame = frame.flipped_vertically()
    for _ in range(draw(st.integers(0, 3))):
        frame = frame.turned()
    padding = draw(st.integers(0, 5))
    return frame.centred_in((frame.input_hw[0] + padding, frame.input_hw[1] + 2 * padding))
