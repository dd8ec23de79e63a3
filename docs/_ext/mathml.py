"""Formulas as MathML, which browsers draw by themselves: no script is fetched, and pages need no network."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def visit_math(translator: Any, node: nodes.math) -> None:
    """Write a formula in the text."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula."""
    text = re.sub(r"\\tag\{(\w+)\}", r"\\qquad\\text{(\1)}", node.astext())
    translator.body.append(f'<div style="margin: 1em 0">{convert(text, display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Make this the way that HTML shows formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True}
