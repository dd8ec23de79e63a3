"""The direction of dependencies, and what importing costs."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "regions": {"regions"},
    "smoothing": {"smoothing"},
    "training": {"training", "smoothing"},
    "srs": {"srs", "training", "smoothing", "regions"},
}
#: Folders, each of which builds on those before it.
FLOORS = {
    "regions": ("regions._arithmetic", "regions._search", "regions._methods", "regions._dense", "regions._levels"),
    "srs": (
        "srs.arrays",
        "srs.modes",
        "srs.run",
        "srs.evaluation",
        "srs.logs",
        "srs.report",
        "srs.score",
        "srs.predict",
        "srs.attack",
        "srs.verify",
        "srs.commands",
    ),
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


def module_graph():
    """Which of our modules each of them imports, wherever in the file the import stands."""
    files = {}
    for package in ALLOWED:
        for file in (ROOT / package).rglob("*.py"):
            files[".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = file
    graph = {module: set() for module in files}
    for module, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in files else node.module for name in inner]
            else:
                continue
            graph[module] |= {name for name in names if name in files and name != module}
    return graph


def test_there_are_no_circles():
    graph = networkx.DiGraph(module_graph())
    assert graph.number_of_edges() > 100
    assert not [circle for circle in networkx.strongly_connected_components(graph) if len(circle) > 1]


@pytest.mark.parametrize("order", FLOORS.values(), ids=FLOORS.keys())
def test_no_import_points_back(order):
    """Folders of a package in order: a module imports from its own folder and from those before it."""
    floor = {folder: k for k, folder in enumerate(order)}

    def floor_of(module):
        return floor.get(".".join(module.split(".")[:2]))

    pairs = [(a, b) for a, others in module_graph().items() for b in others]
    inside = [(a, b) for a, b in pairs if floor_of(a) is not None and floor_of(b) is not None]
    assert inside
    assert not [(a, b) for a, b in inside if floor_of(a) < floor_of(b)]


#: What a verification may use of the packages it checks: readers, data, the classifier itself, and exact geometry.
#: No mathematics of votes, and nothing that made what is verified.
READERS = {
    "regions",
    "regions.files",
    "smoothing",
    "smoothing.limits",
    "smoothing.machine",
    "smoothing.reading",
    "smoothing.storage",
    "srs.predict.run_classifier",
    "srs.report.card",
    "srs.run.choosing_images",
    "srs.run.folder",
    "srs.run.run_settings",
    "srs.run.settings",
    "srs.run.sources",
    "training",
}
READ_NAMES = {
    "regions": {"RegionMap", "allocate", "allocate_levels", "verify"},
    "smoothing": {"SmoothedClassifier"},
    "training": {"load_data"},
}


def test_a_verification_shares_no_mathematics_with_what_it_checks():
    files = list((ROOT / "srs/verify").glob("*.py"))
    assert len(files) > 8
    named = {}
    for file in files:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = {alias.name: set() for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = {node.module: {alias.name for alias in node.names}}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ALLOWED:
                found = {node.value.id: {node.attr}}
            else:
                continue
            for module, names in found.items():
                if module.split(".")[0] in ALLOWED and not module.startswith("srs.verify"):
                    named.setdefault(module, set()).update(names)
    assert named.keys() <= READERS
    for module, names in READ_NAMES.items():
        assert named[module] <= names


def loaded_by(statement):
    script = f"import sys; {statement}; print(*sorted(name for name in sys.modules if '.' not in name))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_regions_is_light():
    heavy = {"torch", "torchvision", "cvxpy", "networkx", "numba", "faiss", "highspy", "matplotlib", "scipy", "sklearn"}
    assert not loaded_by("import regions") & heavy


def test_import_srs_is_light():
    assert not loaded_by("import srs; srs.__version__") & {"torch", "numpy", "yaml", "regions", "smoothing"}


def test_allocating_needs_no_torch():
    loaded = loaded_by("import regions; regions.allocate([[0.0], [1.0]], [1.0, 1.0])")
    assert "highspy" in loaded
    assert not loaded & {"torch", "torchvision"}


#: Modules whose distribution has another name.
DISTRIBUTIONS = {"faiss": "faiss-cpu"}
#: What extras bring to `regions`, imported where it is used.
EXTRAS = {"cvxpy": "cvxpy", "matplotlib": "plot"}


def test_the_geometry_imports_what_the_base_distribution_brings():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(lines):
        return {re.match(r"[\w.-]+", line)[0] for line in lines}

    base = names(project["dependencies"])
    used = set()
    for file in (ROOT / "regions").rglob("*.py"):
        used |= set(imports(file)) - {"regions"} - set(sys.stdlib_module_names)
    for module, extra in EXTRAS.items():
        assert module in names(project["optional-dependencies"][extra])
    assert {DISTRIBUTIONS.get(module, module) for module in used - set(EXTRAS)} <= base


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
