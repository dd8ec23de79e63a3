"""What commands print: names as they are, an end without noise where nobody reads, one line where nothing arrives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from srs.commands.allocate import main
from srs.text import visible
from tests.srs.programs import call, program

COMMANDS = ("allocate", "attack", "certify", "predict", "report", "score", "train", "verify")

#: Names that a console's markup, its emoji codes, a terminal, a formula or an encoding would make something else of.
NAMES = {
    "[bold]a[b[": "[bold]a[b[",
    "[/x]": "[/x]",
    ":smile:": ":smile:",
    "_$x$": "_$x$",
    "tab\tline\n\x1b[31m": r"tab\tline\n\x1b[31m",
    os.fsdecode(b"caf\xe9"): r"caf\udce9",
}


@pytest.fixture
def points(tmp_path):
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "p.npz", points=rng.random((20, 2)), R=rng.random(20))
    return tmp_path


def piped(folder, command, *flags, unbuffered=""):
    """Run a command whose stdout is a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [*program(command), *flags], cwd=folder, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300,
            check=False, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    finally:
        os.close(write)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_that_nobody_reads_to_its_end_ends_quietly(tmp_path, command):
    process = piped(tmp_path, command, "--help")
    assert (process.returncode, process.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_results_that_nobody_reads_are_written_all_the_same(points, unbuffered):
    process = piped(points, "allocate", "p.npz", unbuffered=unbuffered)
    assert (process.returncode, process.stderr) == (141, "")
    assert (points / "allocation.npz").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flags", [["p.npz"], ["--help"]])
def test_a_full_stdout_is_one_line(points, flags, unbuffered):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [*program("allocate"), *flags], cwd=points, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300,
            check=False, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr == "srs-allocate: cannot print to stdout: No space left on device\n"


@pytest.mark.parametrize("command", ["allocate", "train"])
def test_a_closed_stdout_is_one_line(points, command):
    line = " ".join(f"'{part}'" for part in program(command))
    process = subprocess.run(
        ["sh", "-c", f"{line} p.npz >&-"], cwd=points, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    assert process.returncode == 2
    assert process.stderr == f"srs-{command}: stdout is closed: send it somewhere, such as to /dev/null\n"


def test_an_error_that_nobody_reads_is_an_exit_code_at_least(points):
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run([*program("allocate"), "none.npz"], cwd=points, stdout=write, stderr=write, check=False)
    os.close(write)
    assert process.returncode == 2


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=map(visible, NAMES))
def test_names_of_files_are_printed_as_they_are(points, name, shown, monkeypatch, capsys):
    (points / name).mkdir(parents=True)
    monkeypatch.chdir(points)
    monkeypatch.setattr("sys.argv", ["srs-allocate", "p.npz", "--out", f"{name}/out.npz"])
    main()
    assert capsys.readouterr().out.splitlines()[-1] == f"written to {shown}/out.npz"
    monkeypatch.setattr("sys.argv", ["srs-allocate", f"{name}/none.npz", "--out", "other.npz"])
    with pytest.raises(SystemExit):
        main()
    refused = capsys.readouterr().err
    assert refused.startswith("srs-allocate: ")
    assert "none.npz" in refused
    assert refused.count("\n") == 1
    assert "\x1b" not in refused


def test_runs_and_baselines_of_any_name_are_reported(finished, tmp_path):
    name = "_[bold]:smile:$x$^_\x1b[31m" + os.fsdecode(b"\xe9")
    shown = r"_[bold]:smile:$x$^_\x1b[31m\udce9"
    shutil.copytree(finished[0] / "run", tmp_path / name)
    shutil.copyfile(tmp_path / name / "certificates.tsv", tmp_path / f"b{name}")
    process = call("report", tmp_path, name, "--out", "page", "--baseline", f"b{name}", "--tables", "markdown")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert process.stdout.lstrip().startswith(f"{shown}: certified accuracy")
    page, written = ((tmp_path / "page" / file).read_text(encoding="utf-8") for file in ("report.html", "tables.md"))
    for text in (page, MarkdownIt("commonmark").enable("table").render(written)):
        assert f'<th scope="row">b{shown}</th>' in text or f"<td>b{shown} \u2020</td>" in text
        assert "\x1b" not in text
    assert (tmp_path / "page/_-bold-smile-x-_-x1b-31m-udce9/summary.json").exists()


def test_no_encoding_stops_what_is_printed(points):
    (points / "caf\u00e9").mkdir()
    process = subprocess.run(
        [*program("allocate"), "p.npz", "--out", "caf\u00e9/out.npz"], cwd=points, capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == r"written to caf\xe9/out.npz"


def test_what_is_printable_stays_as_it_is():
    assert visible("plain, \u00e9, \u4e2d \U0001f600 [b]") == "plain, \u00e9, \u4e2d \U0001f600 [b]"
    assert visible("a\rb\x00\u202e\udcff") == r"a\rb\x00\u202e\udcff"
    assert sys.getfilesystemencoding() == "utf-8"  # what the names above are made for
