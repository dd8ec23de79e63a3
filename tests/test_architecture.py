"""The direction of dependencies, and what importing costs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "regions": {"regions"},
    "smoothing": {"smoothing"},
    "training": {"training", "smoothing"},
    "srs": {"srs", "training", "smoothing", "regions"},
}
NEVER = {"regions": {"torch", "torchvision"}}


def imports(file):
    """Top-level names of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_point_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        names = set(imports(file))
        ours = names & set(ALLOWED)
        assert ours <= ALLOWED[package], f"{file} imports {sorted(ours - ALLOWED[package])}"
        assert not names & NEVER.get(package, set()), f"{file} imports {sorted(names & NEVER[package])}"


def loaded_by(statement):
    script = f"import sys; {statement}; print(*sorted(name for name in sys.modules if '.' not in name))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_regions_is_light():
    heavy = {"torch", "torchvision", "cvxpy", "networkx", "numba", "faiss", "highspy", "matplotlib", "scipy", "sklearn"}
    assert not loaded_by("import regions") & heavy


def test_allocating_needs_no_torch():
    loaded = loaded_by("import regions; regions.allocate([[0.0], [1.0]], [1.0, 1.0])")
    assert "highspy" in loaded
    assert not loaded & {"torch", "torchvision"}


def test_the_judge_runs_the_readme_s_line_in_a_folder_of_its_own(tmp_path):
    (tmp_path / ".ci").mkdir()
    for name in (".ci/run", "README.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv").mkdir()
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python3"
    python.write_text('#!/bin/sh\necho "$@" >called\nexit 1\n')  # so nothing that follows is run
    python.chmod(0o755)
    path = f"{python.parent}:{os.environ['PATH']}"
    judged = subprocess.run(["bash", str(tmp_path / ".ci/run")], env={**os.environ, "PATH": path}, check=False)
    assert judged.returncode != 0
    assert (tmp_path / "called").read_text() == "-m venv .venv-ci\n"
    assert (tmp_path / ".venv").is_dir()
