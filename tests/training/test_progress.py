"""What training says, and to whom."""

from __future__ import annotations

import pytest

from maskrcnn.training.progress import TrainingBar


def test_brackets_and_colons_in_names_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingBar(3, 0) as bar:
        bar.say("skipped: [red]dir[/red]/:smile:.png [/]\x1b")
    assert capsys.readouterr().err == "skipped: [red]dir[/red]/:smile:.png [/]\\x1b\n"
