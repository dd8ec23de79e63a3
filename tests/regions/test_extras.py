"""Extras of the distribution: which distributions they bring, and what is said where one is missing."""

import sys
from importlib import metadata

import pytest

from regions.extras import MissingExtra, distributions, need

REQUIRES = [
    "numpy>=1.26",
    'torch>=2.4; extra == "certify"',
    'srs-certify[plot,tables]; extra == "certify"',
    'tensor.board-x>=2; extra == "certify"',
    'triton>=3; sys_platform == "none" and extra == "certify"',
    'srs-certify[certify]; extra == "test"',
    'pytest[all]>=8 ; extra == "test"',
    "matplotlib>=3.8; extra == 'plot'",
]


@pytest.fixture
def requires(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES if name == "srs-certify" else None)


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("certify", ["torch", "matplotlib", "tensor.board-x"]),
        ("plot", ["matplotlib"]),
        ("test", ["torch", "matplotlib", "tensor.board-x", "pytest"]),
        ("none", []),
    ],
)
@pytest.mark.usefixtures("requires")
def test_an_extra_brings_what_it_names_and_what_its_extras_bring(extra, names):
    assert list(distributions(extra)) == names


@pytest.mark.usefixtures("requires")
def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    def distribution(name):
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    monkeypatch.setattr(sys, "executable", "/my venv/bin/python")
    with pytest.raises(MissingExtra) as missing:
        need("certify", "this command")
    assert str(missing.value) == (
        "this command needs matplotlib, which is not installed: "
        "'/my venv/bin/python' -m pip install 'srs-certify[certify]'"
    )
    monkeypatch.setattr(metadata, "distribution", lambda name: None)
    need("certify", "this command")
