from pathlib import Path

import pytest

from maskrcnn.errors import TrainingError
from maskrcnn.files import lock
from maskrcnn.files.lock import LOCK, locked


def test_a_folder_in_use_is_refused_and_free_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    folder = tmp_path / "run"
    with locked(folder):
        message = r"another run is going on in this folder \(process \d+ on .*--out"
        with pytest.raises(TrainingError, match=message), locked(folder):
            pass
        (folder / "model").touch()
    assert [path.name for path in folder.iterdir()] == ["model"]
    (folder / LOCK).write_text("process 1 on a host that was switched off")
    with locked(folder):
        pass
    assert not (folder / LOCK).exists()
