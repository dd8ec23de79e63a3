"""May this folder be written: one answer for all who write into one, before any work."""

import os
import re

import pytest
from filelock import FileLock

from smoothing.storage import check_folder, locked


def refused(path, message, *files, beside=False):
    with pytest.raises(ValueError, match="^" + re.escape(f"--out {path}: {message}") + "$"):
        check_folder(path, "--out", files, beside=beside)


@pytest.fixture
def locked_away(tmp_path, monkeypatch):
    """A folder in which nobody may write; tests may run as somebody who may do anything."""
    folder = tmp_path / "locked"
    folder.mkdir()
    monkeypatch.setattr("smoothing.storage.os.access", lambda path, mode: path != folder)
    return folder


def test_folders_that_can_be_made_or_written_are_free(tmp_path, monkeypatch):
    (tmp_path / "held").mkdir()
    (tmp_path / "held/rows.tsv").write_text("")
    for path in (tmp_path, tmp_path / "held", tmp_path / "a/b/c"):
        for beside in (False, True):
            check_folder(path, "--out", ("rows.tsv", "others.tsv"), beside=beside)
    monkeypatch.chdir(tmp_path)
    check_folder(tmp_path.relative_to(tmp_path) / "new", "--out")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("make", [lambda path: path.touch(), os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_folder_is_refused(tmp_path, make):
    make(tmp_path / "out")
    refused(tmp_path / "out", "is a file; name a folder")


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file/out", f"cannot write in {tmp_path / 'file'}; name a folder elsewhere")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to(__file__)])
def test_nothing_will_be_written_through_a_link(tmp_path, make):
    make(tmp_path / "rows.tsv")
    check_folder(tmp_path, "--out", ("others.tsv",))
    refused(tmp_path, "rows.tsv is a link or no regular file; put a file in its place", "others.tsv", "rows.tsv")


def test_where_nobody_may_write_is_refused(locked_away):
    message = f"cannot write in {locked_away}; name a folder elsewhere"
    refused(locked_away, message)
    refused(locked_away / "a/b", message)
    check_folder(locked_away, "--out", beside=True)  # what is written is the folder that holds it
    (locked_away / "out").mkdir()
    check_folder(locked_away / "out", "--out")
    refused(locked_away / "out", message, beside=True)


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Whoever held it last removed it between this process's opening and locking: then it locks nothing."""
    file, acquire, times = tmp_path / ".lock", FileLock.acquire, []

    def late(self, *arguments, **options):
        found = acquire(self, *arguments, **options)
        times.append(1)
        if len(times) == 1:
            file.unlink()
        return found

    monkeypatch.setattr(FileLock, "acquire", late)
    with locked(file, tmp_path):
        assert file.exists()
        with pytest.raises(ValueError, match="is being written by another process"), locked(file, tmp_path):
            pass
    assert len(times) == 2
    with locked(file, tmp_path):  # let go of as often as it was taken
        pass
