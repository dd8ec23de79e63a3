"""What commands say while they work, before PyTorch is there and where no bar can be drawn."""

import re
import subprocess
import sys

import pytest

from smoothing.progress import Counter
from srs.commands import _progress
from srs.commands._progress import Teller
from tests.programs import python
from tests.srs.programs import TINY

#: Runs a command that says how far it is every millisecond.
TALKING = """
import srs.commands._progress as progress
progress.PAUSE = 0.001
from srs.commands.{command} import main
main()
"""


def lines_of(command, folder, *flags):
    """What a command writes to stderr, where that is no terminal, without its numbers."""
    process = python(TALKING.format(command=command), *flags, folder=folder)
    assert process.returncode == 0, process.stderr
    assert "\r" not in process.stderr
    lines = process.stderr.splitlines()
    assert all(re.fullmatch(rf"srs-{command}: .*, after \d+ s", line) for line in lines)
    return {re.sub(r"\d+(,\d{3})*", "N", line) for line in lines}


def test_without_a_terminal_lines_say_how_far_a_command_is(folder):
    assert lines_of("certify", folder, *TINY, "--out", "run") >= {
        "srs-certify: select, N of N, after N s",
        "srs-certify: certify, N of N, after N s",
        "srs-certify: sizing regions and comparing rules, after N s",
    }
    assert "srs-certify: sizing regions and comparing rules, after N s" in lines_of(
        "certify", folder, "--out", "run", "--resume"
    )
    assert lines_of("report", folder, "run") == {
        "srs-report: reading run and sizing its regions, after N s",
        "srs-report: drawing figures, after N s",
    }
    assert "srs-verify: votes drawn again, of images, N of N, after N s" in lines_of("verify", folder, "run", "--all")


def test_training_says_which_epoch_it_is_in(tmp_path):
    said = lines_of("train", tmp_path, "digits", "--out", "run", "--train-images", "300", "--epochs", "2",
                    "--finetune-epochs", "1")  # fmt: skip
    assert {"srs-train: pretrain N/N, N of N, after N s", "srs-train: finetune N/N, N of N, after N s"} <= said


def test_a_phase_is_over_when_it_ends_and_nothing_is_said_after(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "PAUSE", 0.001)
    said = ""

    def wait_for(text):
        nonlocal said
        while text not in said:
            said += capsys.readouterr().err

    with Teller("srs-x") as teller:
        with teller.phase("first"):
            wait_for("srs-x: first, after 0 s\n")
            with teller.phase("second"):
                wait_for("srs-x: second, after 0 s\n")
            said = ""
            wait_for("srs-x: first, after 0 s\n")
        teller.tell("third", 1000, 2000)
        wait_for("srs-x: third, 1,000 of 2,000, after 0 s\n")
        assert teller.progress == teller.tell  # stderr is no terminal
        teller.tell("third", 2000, 2000)
    capsys.readouterr()
    with Teller("srs-x") as teller:
        teller.tell("done", 3, 3)
        with teller.phase("last"):
            wait_for("srs-x: last")
    assert "done" not in said + capsys.readouterr().err


def test_nobody_who_reads_is_no_error(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    _progress._write("said to nobody\n")
    monkeypatch.setattr(sys, "stderr", None)
    _progress._write("said to nobody\n")
    with Teller("srs-x") as teller:
        assert teller.progress == teller.tell


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_command_says_something_before_it_imports_pytorch(tmp_path, rank, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    program = (
        "import sys\nfrom srs.commands.certify import main\nwrite = sys.stderr.write\n"
        "def told(text): write(f\"{'torch' in sys.modules} {text}\")\nsys.stderr.write = told\nmain()"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, "--device", "abacus"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    first, *rest = process.stderr.splitlines()
    assert process.returncode == 2
    if rank == "0":
        assert first == "False srs-certify: loading PyTorch"
        first, *rest = rest
    assert first.startswith("True srs-certify: --device abacus cannot be used")
    assert rest == []


def test_a_counter_moves_a_bar_or_tells_a_function_or_does_nothing(capsys):
    told = []
    with Counter(lambda *now: told.append(now), "select", 10, 3) as counter:
        counter.advance(4)
        counter.note(loss="0.1")
        counter.advance(3)
    assert told == [("select", 3, 10), ("select", 7, 10), ("select", 10, 10)]
    with Counter(False, "select", 10) as counter:
        counter.advance(10)
    assert capsys.readouterr().err == ""
    with Counter(True, "select", 10, 3) as counter:
        counter.advance(4)
    assert "select:" in capsys.readouterr().err
