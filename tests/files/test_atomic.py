from __future__ import annotations

import errno
from pathlib import Path

import pytest

from maskrcnn.errors import ConfigError
from maskrcnn.files.atomic import atomic_write, check_file, check_folder, remove_temporaries


def test_the_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "folder" / "results.json"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".json"
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "model.safetensors"
    target.write_text("old")

    def write() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "part.parquet"

    def write() -> None:
        with atomic_write(target):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*part\.parquet'"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    target.write_text("old")
    with atomic_write(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_two_writers_do_not_share_a_name(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.txt", tmp_path / "link.txt"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(target):
        pass
    assert target.read_text() == "old"


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    with atomic_write(tmp_path / "written") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".hidden.txt").touch()
    with atomic_write(tmp_path / "model.safetensors") as temporary:
        temporary.touch()
        (tmp_path / temporary.name.replace("model", "other")).touch()  # as a process leaves it that is killed here
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / ".tmp0aAgFC").touch()  # as safetensors leaves it
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden.txt"]


def test_a_place_to_write_to_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_folder(tmp_path / "new" / "run")
    check_file(tmp_path / "new" / "results.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing is created"
    with pytest.raises(ConfigError, match=r"run: expected a folder to write to, found a file at .*file"):
        check_folder(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="expected a file to write, found a folder"):
        check_file(tmp_path)


def test_no_folder_inside_one_that_is_read_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data.json").touch()
    for path in (tmp_path / "data", tmp_path / "data" / "new" / "one", tmp_path / "other" / ".." / "data" / "new"):
        with pytest.raises(
            ConfigError, match=rf"{path}: expected a folder outside of .*data, which is read .*; choose"
        ):
            check_folder(path, None, tmp_path / "data")
    check_folder(tmp_path / "data2", tmp_path / "data", tmp_path / "data.json")
    check_folder(tmp_path / "new", tmp_path / "data.json")


@pytest.mark.parametrize("address", ["s3://bucket/parts", "memory://parts", "file:///parts"])
def test_addresses_are_no_place_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.chdir(tmp_path)
    for check in (lambda: check_folder(Path(address)), lambda: check_file(f"{address}/results.json")):
        with pytest.raises(ConfigError, match="expected a folder on a disk, found an address; copy the files there"):
            check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a:").mkdir()
    check_folder(tmp_path / "a:" / "b")


@pytest.mark.parametrize("name", ["n" * 300, "nul\0", "/proc/new"])
def test_a_place_where_the_system_refuses_files_is_named_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"no file can be written there .*; choose another folder"):
        check_folder(tmp_path / name)
    with pytest.raises(ConfigError, match="choose another"):
        check_file(tmp_path / name / "file.json")
    with pytest.raises(ConfigError, match="choose another"):
        check_file(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "read.json").touch()
    (tmp_path / "link.json").symlink_to("read.json")
    check_file(tmp_path / "new.json", tmp_path / "read.json", None, "no/such/file", tmp_path)
    with pytest.raises(ConfigError, match="expected a file to write, found one that is read"):
        check_file(tmp_path / "link.json", str(tmp_path / "read.json"))


def test_no_file_of_a_folder_that_is_read_is_overwritten_but_a_page(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name in ("annotations.json", "images/one.png", "report.html"):
        (tmp_path / "data" / name).touch()
    for name in ("annotations.json", "images/one.png"):
        with pytest.raises(ConfigError, match=rf"{name}: expected a file to write, found one that is read"):
            check_file(tmp_path / "data" / name, tmp_path / "data")
    check_file(tmp_path / "data" / "report.html", tmp_path / "data")
    check_file(tmp_path / "data" / "new.json", tmp_path / "data")
    check_file(tmp_path / "data" / "annotations.json", tmp_path / "data" / "images")
