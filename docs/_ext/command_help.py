"""What the project's commands print for --help; needs nothing but them."""

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 76


def scripts() -> dict[str, str]:
    """Return every command and its entry point, `package.module:function`, as pyproject.toml names them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(sorted(project["scripts"].items()))


def help_of(command: str, *arguments: str) -> str:
    """Return what a command prints for --help, without colours, for a narrow screen."""
    module, _, function = scripts()[command].partition(":")
    program = f"import sys; sys.argv[0] = {command!r}; from {module} import {function}; {function}()"
    settings = {
        "COLUMNS": str(WIDTH),
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, **settings, "PYTHONIOENCODING": "utf-8"},
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", process.stdout)
    lines = (textwrap.fill(line, WIDTH) if len(line) > WIDTH else line.rstrip() for line in text.splitlines())
    return "\n".join(lines).strip()
