"""What the documentation shows runs: the Python blocks of README and guide, and the examples in docstrings."""

import doctest
import importlib.util
import pkgutil
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import regions

ROOT = Path(__file__).parent.parent
RUN = ("guide", "gallery", "training", "router", "denoise", "smoothing", "samplers", "logs", "predict", "score")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in RUN)]
TEXTS = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/results").glob("*.md")])
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
    for page in (ROOT / "README.md", *TEXTS):
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_every_page_is_in_the_table_of_contents():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (ROOT / "docs/index.md").read_text(), re.MULTILINE | re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert sorted([*listed, "index"]) == sorted(str(page.relative_to(ROOT / "docs").with_suffix("")) for page in TEXTS)


@pytest.mark.parametrize("page", [ROOT / "README.md", *TEXTS], ids=lambda page: page.name)
def test_benchmarks_that_are_named_exist(page):
    for script in re.findall(r"\bbenchmarks/\w+\.py\b", page.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), f"{page.name} names {script}, which does not exist"


def flags_in(text: str) -> list[tuple[str, list[str]]]:
    """Every command of ours in a shell block of a page, and the flags that it is shown with."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].split() for block in blocks for line in block.splitlines()]
    return [
        (word, [flag for flag in line[k:] if flag.startswith("--")])
        for line in lines
        for k, word in enumerate(line)
        if word.startswith("srs-")
    ]


@pytest.fixture(scope="module")
def help_of():
    """What a command prints for --help, as the documentation's reference shows it."""
    spec = importlib.util.spec_from_file_location("command_help", ROOT / "docs/_ext/command_help.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    presets = {"srs-train": ["digits"]}
    return {command: module.help_of(command, *presets.get(command, [])) for command in module.scripts()}


def test_the_reference_shows_every_command(help_of):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert help_of.keys() == project["scripts"].keys()
    for command, text in help_of.items():
        assert f"usage: {command}" in text
        assert "--help" in text
        assert "\x1b" not in text


@pytest.mark.parametrize("page", [ROOT / "README.md", *TEXTS], ids=lambda page: page.name)
def test_commands_are_shown_with_flags_that_they_have(page, help_of):
    for command, flags in flags_in(page.read_text(encoding="utf-8")):
        assert command in help_of, f"{page.name} shows {command}, which does not exist"
        for flag in flags:
            assert re.search(rf"{flag}\b", help_of[command]), f"{page.name}: {command} has no flag {flag}"
