"""What the documentation shows runs: the Python blocks of README and guide, and the examples in docstrings."""

import doctest
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import regions

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("guide", "training", "smoothing", "samplers"))]
MODULES = ["regions", *(module.name for module in pkgutil.walk_packages(regions.__path__, "regions."))]


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and source of every block marked as Python."""
    text = page.read_text(encoding="utf-8")
    matches = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in matches]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_one_after_the_other(page: Path, tmp_path, monkeypatch):
    blocks = python_blocks(page)
    assert blocks, f"{page.name} shows no Python at all"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for line, source in blocks:
        exec(compile("\n" * line + source, str(page), "exec"), names)  # line numbers are those of the page
    assert not list(tmp_path.iterdir()), f"{page.name} leaves files behind"


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module: str):
    # testmod would pass over functions that jaxtyping has wrapped: their globals are not the module's
    members = vars(import_module(module))
    public = {name: member for name, member in members.items() if getattr(member, "__module__", None) == module}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name, member in public.items():
        for example in finder.find(member, name, module=False, globs=dict(members)):
            runner.run(example)
    assert runner.failures == 0
    if module == "regions._allocate":
        assert runner.tries > 0, "the example of regions.allocate was not found"


def test_links_to_files_lead_somewhere():
    for page in (*PAGES, ROOT / "docs" / "index.md"):
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
