"""Files and folders that are whole or not there."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cutaway.errors import DamagedFile, InputError
from cutaway.files import MANIFEST, atomic_folder, disk_errors, read_json, verify, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": "café"})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        write_atomic(path, "new")
    assert read_json(path) == {"old": "café"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_appears_whole_and_sealed(tmp_path: Path):
    folder = tmp_path / "run"
    with atomic_folder(folder) as room:
        (room / "sub").mkdir()
        (room / "sub/a.bin").write_bytes(b"123")
        assert not folder.exists()
    verify(folder)
    assert read_json(folder / MANIFEST)["files"]["sub/a.bin"]["bytes"] == 3


def test_a_folder_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path):
    folder = tmp_path / "run"
    with atomic_folder(folder) as room:
        (room / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder) as room:  # noqa: PT012
        (room / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    with atomic_folder(folder) as room:
        (room / "a").write_text("new")
    assert (folder / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, move = tmp_path / "run", os.replace
    with atomic_folder(folder) as room:
        (room / "a").write_text("old")

    def fails(source: Path, target: Path) -> None:
        if Path(target) == folder and (Path(source) / "a").read_text() == "new":
            raise OSError(errno.EACCES, "not now")
        move(source, target)

    with pytest.raises(InputError, match="before is unchanged"), atomic_folder(folder) as room:  # noqa: PT012
        (room / "a").write_text("new")
        monkeypatch.setattr(os, "replace", fails)
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_killed_while_writing_leaves_nothing_under_the_name(tmp_path: Path):
    code = (
        "import os, signal, sys; from pathlib import Path; from cutaway.files import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as room:\n"
        "    (room / 'a').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "manifest"])
def test_damage_is_named(tmp_path: Path, harm: str):
    folder = tmp_path / "run"
    with atomic_folder(folder) as room:
        (room / "w.bin").write_bytes(bytes(range(100)))
    file = folder / "w.bin"
    if harm == "flip":
        file.write_bytes(bytes(range(99)) + b"\0")
    elif harm == "cut":
        file.write_bytes(bytes(range(50)))
    elif harm == "remove":
        file.unlink()
    else:
        (folder / MANIFEST).unlink()
    with pytest.raises(DamagedFile, match=MANIFEST if harm == "manifest" else r"w\.bin"):
        verify(folder)


def test_json_that_is_not_json_is_named(tmp_path: Path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "y.json")


def test_other_errors_of_the_system_pass(tmp_path: Path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")
