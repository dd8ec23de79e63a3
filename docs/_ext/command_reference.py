"""Directive `command-reference`: a section for every command of the project, with the help that its parser prints."""

from typing import Any

from command_help import help_of, scripts
from docutils import nodes
from docutils.parsers.rst import Directive


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
