"""Every public function that takes a path takes a str as well: nobody should have to import pathlib."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import regions
import smoothing
import srs.logs
import srs.logs.images
import srs.logs.read
import srs.report.finished_run
import srs.report.svg
import srs.run.folder
import training

#: Annotations that a str does not satisfy.
ONLY_A_PATH = re.compile(r"(?<![\w.])(?:pathlib\.)?Path\b")

PUBLIC = [getattr(package, name) for package in (regions, smoothing, training) for name in package.__all__]
PUBLIC += [
    srs.logs.read.read_logs,
    srs.logs.read.read_log,
    srs.logs.read.sigma_of,
    srs.logs.images.log_points,
    srs.report.finished_run.load_run,
]
PUBLIC += [srs.run.folder.read_description, srs.report.svg.save]


def functions():
    """Return functions and methods that people call, by name. Settings are checked below."""
    for item in PUBLIC:
        if inspect.isclass(item) and item is not training.TrainSettings:
            for name, method in inspect.getmembers(item, lambda x: inspect.isfunction(x) or inspect.ismethod(x)):
                if not name.startswith("_") or name == "__init__":
                    yield f"{item.__name__}.{name}", method
        elif inspect.isfunction(item):
            yield item.__name__, item


def test_no_public_function_insists_on_a_path():
    found = dict(functions())
    assert {"read_certificates", "RegionMap.load", "load_checkpoint", "OnlineAllocator.__init__"} <= set(found)
    for name, function in found.items():
        for parameter in inspect.signature(function).parameters.values():
            annotation = parameter.annotation
            text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            assert not ONLY_A_PATH.search(text.replace("PathLike", "")), f"{name}({parameter})"


def test_training_settings_take_a_str():
    """In a process of its own: here the types of arguments are checked, there they are not."""
    code = "import training; s = training.TrainSettings(data_dir='here', out='there'); print(s.data_dir / s.out)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == [str(Path("here") / "there")]


def test_tables_are_read_and_written_by_a_str(tmp_path):
    table = smoothing.CertificateTable(*(one_row(kind) for kind in (int, int, int, float, int, float)))
    smoothing.write_certificates(str(tmp_path / "x.tsv"), table)
    assert smoothing.read_certificates(str(tmp_path / "x.tsv")).radius.tolist() == [1.0]
    with pytest.raises(FileNotFoundError):
        smoothing.read_certificates(str(tmp_path / "y.tsv"))


def one_row(kind):
    return np.ones(1, dtype=np.int64 if kind is int else np.float64)
