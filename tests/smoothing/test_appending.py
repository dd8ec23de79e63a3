import subprocess
import sys

import pytest

from smoothing.storage import appending, locked, whole_lines
from tests.programs import python

HEADER = ("a", "b")


def fill(file, rows, together=1):
    with appending(file, HEADER, together) as append:
        append(rows)


def test_rows_follow_the_header_once(tmp_path):
    file = tmp_path / "rows.tsv"
    fill(file, [("1", "2")])
    fill(file, [("3", "4"), ("5", "6")])
    assert file.read_text() == "a\tb\n1\t2\n3\t4\n5\t6\n"
    assert whole_lines(file) == ["a\tb", "1\t2", "3\t4", "5\t6"]
    assert whole_lines(tmp_path / "none.tsv") == []


@pytest.mark.parametrize("together", [1, 2])
def test_what_is_torn_at_any_byte_is_as_if_not_written(tmp_path, together):
    file = tmp_path / "rows.tsv"
    fill(file, [(str(k), "x") for k in range(4)], together)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        kept = complete if complete == 0 else 1 + (complete - 1) // together * together
        assert len(whole_lines(file, together)) == kept
        fill(file, [(str(k), "x") for k in range(max(0, kept - 1), 4)], together)
        assert file.read_bytes() == whole


def test_where_the_disk_is_full_no_part_of_the_rows_stays(tmp_path):
    file = tmp_path / "rows.tsv"
    script = f"""
import resource, pathlib, sys
from smoothing.storage import appending
sys.dont_write_bytecode = True
with appending(pathlib.Path({str(file)!r}), ("a", "b")) as append:
    append([("1", "2")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    append([("x" * 200, "y")])
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "OSError" in process.stderr
    assert file.read_text() == "a\tb\n1\t2\n"


def test_a_lock_is_held_by_one_process(tmp_path):
    script = f"""
from pathlib import Path
from smoothing.storage import locked
with locked(Path({str(tmp_path)!r}) / "l", Path("it")):
    pass
"""
    with locked(tmp_path / "l", tmp_path):
        process = python(script)
    assert "it is being written by another process: let it finish, or stop it" in process.stderr
    assert not python(script).returncode
