"""Our commands as a person runs them: programs in a folder."""

import subprocess
import sys
from pathlib import Path

from tests.programs import python

#: Flags of a run of a second: two levels, 60 images, levels and regions as in the paper.
TINY = (
    "--checkpoint", "model.pt", "--dataset", "digits", "--sigma-min", "0.2", "--sigma-max", "0.4",
    "--sigma-step", "0.2",
    "--n0", "50", "--n", "300", "--skip", "3", "--max", "60", "--seed", "1",
    "--overlap", "paper", "--rule", "max-radius",
)  # fmt: skip


#: Runs a command that does not say how far it is, however slow the machine.
_SILENT = "import srs.commands._progress as progress; progress.PAUSE = 1e6\nfrom srs.commands.{} import main; main()"


def program(command: str) -> list[str]:
    """Return how to start one of our commands."""
    return [sys.executable, "-c", _SILENT.format(command)]


def call(command: str, folder: Path, *flags: object, installed: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one of our commands in a folder, as a process of its own that need not import PyTorch first.

    `installed`: as the script that pip installs, for which the current folder is not where Python looks for modules.
    What depends on how Python starts, such as its flags and closed or full streams, takes `program`.
    """
    return python(_SILENT.format(command), *flags, folder=folder, installed=installed)


#: A program that cannot import what extras bring, and then runs a command.
_WITHOUT_EXTRAS = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nowhere())
from srs.commands.{command} import main
main()
"""
_HIDDEN = (
    "PIL", "accelerate", "cvxpy", "jinja2", "matplotlib", "mpmath", "pandas", "pyarrow", "safetensors", "sklearn",
    "tensorboard", "torch", "torchvision", "tqdm", "yaml",
)  # fmt: skip


def call_without_extras(command: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run one of our commands where only what the base distribution brings can be imported."""
    program = _WITHOUT_EXTRAS.format(hidden=_HIDDEN, command=command)
    arguments = [sys.executable, "-c", program, *flags]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)


def assert_refused(process: subprocess.CompletedProcess[str], command: str, message: str) -> None:
    """Bad input: exit code 2 and one line that says what to do, after that which says what takes seconds to begin."""
    assert process.returncode == 2, process.stderr
    said = process.stderr.removeprefix(f"{command}: loading PyTorch\n")
    assert message in said
    assert said.startswith(f"{command}: ")
    assert said.count("\n") == 1
    assert process.stdout == ""
