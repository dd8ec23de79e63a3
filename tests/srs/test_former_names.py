"""Names that the documentation of the last version used still lead somewhere, and say where."""

import importlib

import pytest

FORMER = {
    "srs.predictor": ("srs.predict.predictor", ("Answers", "OUTSIDE", "Predictor")),
    "srs.from_logs": ("srs.logs.compare", ("choose", "compare")),
    "srs.rounding": ("srs.logs.recover_votes", ("Votes", "lower", "recover_votes")),
}


@pytest.mark.parametrize("old", FORMER)
def test_a_former_name_leads_to_the_present_one(old):
    new, names = FORMER[old]
    with pytest.warns(DeprecationWarning, match=rf"{old} is now {new}: import from there"):
        former = importlib.import_module(old)
    for name in names:
        assert getattr(former, name) is getattr(importlib.import_module(new), name)


def test_what_logs_prove_is_found_by_its_former_name():
    with pytest.warns(DeprecationWarning, match="srs.from_logs is now"):
        former = importlib.reload(importlib.import_module("srs.from_logs"))
    assert former.bounds_from is importlib.import_module("srs.logs.compare").proofs_from_logs


def test_logs_are_read_by_the_name_they_always_had():
    assert importlib.import_module("srs.logs").read_logs.__module__ == "srs.logs.read"
