"""Directive `command-reference`: a section for every command of the project, with the help that its parser prints."""

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

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


class CommandReference(Directive):
    """Takes further command lines as content, one a line: `srs-train digits` shows that preset's flags as well."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return one section for every command."""
        further = [line.split() for line in self.content if line.strip()]
        document = self.state.document
        sections: list[nodes.Node] = []
        for command in scripts():
            section = nodes.section(ids=[command])
            section += nodes.title("", "", nodes.literal(text=command))
            for call in [[command], *(line for line in further if line[0] == command)]:
                section += nodes.paragraph("", "", nodes.literal(text=" ".join([*call, "--help"])))
                section += nodes.literal_block(text=help_of(*call), language="text")
            document.note_explicit_target(section)
            sections.append(section)
        return sections


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}
