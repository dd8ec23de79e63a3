"""Every command says its version."""

import importlib
from importlib.metadata import version

import pytest

from tests.srs.programs import call


@pytest.mark.parametrize("command", ["allocate", "attack", "certify", "predict", "report", "score", "train", "verify"])
def test_every_command_says_its_version(command, tmp_path):
    done = call(command, tmp_path, "--version")
    assert done.returncode == 0
    assert done.stdout == f"srs-{command} {version('srs-certify')}\n"
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["regions", "smoothing", "training", "srs"])
def test_every_package_says_its_version(package):
    assert importlib.import_module(package).__version__ == version("srs-certify")
