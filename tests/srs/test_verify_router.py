"""srs-verify on runs of a router: honest ones hold, forged ones are found, and what is not there is said."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from srs.evaluation import routed as evaluation
from srs.run import votes as reading
from srs.verify.background import Placed, agreed
from srs.verify.evidence import Described, Map
from srs.verify.router import Outside
from tests.srs.programs import assert_refused, call
from tests.srs.routed_runs import certify, prepare, run_in, write_router
from tests.srs.verifying import copied, edit, edit_map, edit_rows, failing, made_anew, table_of, unknown


@pytest.fixture(scope="module")
def alone(tmp_path_factory, for_router):
    """A folder that holds a run of a router without regions; it proves more than min(R_S, R_c), and less than R_c."""
    folder = run_in(tmp_path_factory.mktemp("alone"), for_router, "--classifier", "router")
    radius = {name: radii_of(folder / "run", name) for name in ("router", "router-agreeing")}
    R = [float(row["R"]) for row in table_of(folder / "run/certificates.tsv")]
    assert any(0 < low < high for low, high in zip(*radius.values(), strict=True))
    assert any(high < most - 1e-3 for high, most in zip(radius["router-agreeing"], R, strict=True))
    assert len({row["sigma"] for row in table_of(folder / "run/certificates.tsv")}) == 2
    return folder


@pytest.fixture(scope="module")
def constant(tmp_path_factory, weights):
    """A folder that holds a run of a router that names one level for every input."""
    folder = tmp_path_factory.mktemp("constant")
    prepare(folder, weights, constant=0.4)
    certify(folder, "--overlap", "sigma")
    assert not (folder / "run/router_selection.tsv").exists()
    return folder


BOTH = ("router_selection.tsv", "router_estimation.tsv")


def votes_of(file):
    """Votes for each of three levels."""
    found = [dict(pair.split(":") for pair in row["votes"].split(" ")) for row in table_of(file)]
    return [[int(votes.get(str(at), 0)) for at in range(3)] for votes in found]


def radii_of(run, rule):
    return [float(row["radius"]) for row in table_of(run / "comparison.tsv") if row["rule"] == rule]


# Honest runs.

HONEST = {
    "joint": (),
    "by the radius of n0 samples": ("--overlap", "sigma", "--rule", "max-radius"),
    "one-sided, greedy": ("--overlap", "paper", "--method", "greedy", "--bound", "top-class"),
    "anchor, alone": ("--classifier", "router", "--rule", "anchor"),
    "ladder, another alpha": ("--rungs", "50", "100", "--alpha", "0.05"),
    "many samples": ("--classifier", "router", "--n0", "99", "--n", "3000", "--bound", "top-class"),
}


@pytest.mark.parametrize("flags", HONEST.values(), ids=HONEST)
def test_honest_runs_hold(for_router, tmp_path, monkeypatch, flags):
    run_in(tmp_path, for_router, *flags)
    monkeypatch.chdir(tmp_path)
    assert failing(Path("run"), all=True) == {}
    assert unknown(Path("run"), all=True).keys() == {"other files"}


@pytest.mark.parametrize("name", ["around", "alone", "constant"])
def test_runs_that_are_forged_below_hold_before(request, tmp_path, monkeypatch, name):
    run = copied(request.getfixturevalue(name), tmp_path, monkeypatch)
    assert failing(run, all=True) == {}
    assert unknown(run, all=True).keys() == {"other files"}


def test_two_levels_need_no_bound_of_the_other(weights, tmp_path, monkeypatch):
    prepare(tmp_path, weights, sigmas=(0.2, 0.4))
    certify(tmp_path, "--classifier", "router", "--sigma-max", "0.4")
    monkeypatch.chdir(tmp_path)
    assert any(0 < radius < 0.3 for radius in radii_of(Path("run"), "router"))
    assert failing(Path("run"), all=True) == {}


def test_the_first_of_the_most_voted_levels_is_named_by_selection_votes(for_router, tmp_path, monkeypatch):
    run_in(tmp_path, for_router, "--classifier", "router", "--n0", "6")
    monkeypatch.chdir(tmp_path)
    selected, estimated = (votes_of(Path("run") / name) for name in BOTH)
    level = [votes.index(max(votes)) for votes in selected]
    assert level != [votes.index(max(votes)) for votes in estimated]
    assert any(votes.count(max(votes)) > 1 for votes in selected)
    sigma = [float(row["sigma"]) for row in table_of(Path("run/certificates.tsv"))]
    assert sigma == [(0.2, 0.4, 0.6)[at] for at in level]
    assert failing(Path("run"), all=True) == {}


class OfThreeLevels(Described):
    """What a run says about itself: its levels alone."""

    sigmas = property(lambda self: [0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    ("classes", "end"),
    [
        ([1, 1, 1], 0.4),  # min(0.5, max(0.4, 0.1), max(0.5, 0.3))
        ([1, 2, 1], 0.1),  # the second level certifies another class, and may be named from 0.1 on
        ([1, 1, 2], 0.3),
        ([1, 0, 2], 0.1),
    ],
)
def test_a_level_of_another_class_ends_the_radius_where_it_may_be_named(classes, end):
    nowhere = Map(np.zeros((1, 2)), np.zeros(1), np.array([0.2]), np.zeros(1, dtype=int), "")
    outside = Outside("router", [0], [[0.0, 0.1, 0.3]])
    placed = Placed("router-agreeing", [0], Fraction(1, 1000))
    found = agreed(object.__new__(OfThreeLevels), nowhere, placed, outside, [classes], [[0.5, 0.4, 0.5]])
    assert list(map(float, found)) == [end]


# What is not there.


def test_a_router_that_is_not_there_is_said(alone, tmp_path, monkeypatch):
    run = copied(alone, tmp_path, monkeypatch)
    Path("router.pt").rename("elsewhere.pt")
    told = unknown(run, redraw=2)
    assert "router's hash, its own noise level and its votes" in told["router"]
    assert told["router"].endswith("say where its file is now with --router")
    assert failing(run, redraw=2) == {}
    assert "router" not in unknown(run, redraw=2, router=Path("elsewhere.pt"))
    Path("model.pt").unlink()
    told = unknown(run, redraw=2)
    assert "belongs to a classifier that was not loaded" in told["router"]


def test_the_command_names_what_was_drawn_again(alone, small, tmp_path, monkeypatch):
    copied(alone, tmp_path, monkeypatch)
    Path("router.pt").rename("elsewhere.pt")
    process = call("verify", tmp_path, "run", "--redraw", "2")
    assert (process.returncode, process.stderr) == (0, "")
    assert "holds    votes         all votes but the router's of 2 images were drawn again" in process.stdout
    process = call("verify", tmp_path, "run", "--redraw", "2", "--router", "elsewhere.pt")
    assert (process.returncode, process.stderr) == (0, "")
    assert "holds    votes         all votes of 2 images were drawn again" in process.stdout
    assert "\nholds    router        it is one for this classifier" in process.stdout
    shutil.copytree(small / "run", "plain")
    process = call("verify", tmp_path, "plain", "--router", "elsewhere.pt")
    assert_refused(process, "srs-verify", "--router elsewhere.pt: the run in plain has no router; leave it out")


def test_tables_that_no_router_wrote_are_named(constant, tmp_path, monkeypatch):
    run = copied(constant, tmp_path, monkeypatch)
    (run / "router_selection.tsv").write_text("idx\n")
    assert "router_selection.tsv" in unknown(run)["other files"]


# Forged runs.


def one_vote_more(name):
    """Move one vote to the most voted level in every row of a table, and let everything follow."""

    def forge(run):
        def change(rows):
            for row in rows:
                votes = {one: int(count) for one, count in (pair.split(":") for pair in row["votes"].split(" "))}
                if len(votes) > 1:
                    best, least = max(votes, key=votes.get), min(votes, key=votes.get)
                    votes[best], votes[least] = votes[best] + 1, votes[least] - 1
                    row["votes"] = " ".join(f"{one}:{count}" for one, count in votes.items() if count)

        edit_rows(run / name, change)
        made_anew(run)

    return forge


def swapped(*names):
    """Give the smallest level the votes of the largest, and the other way round."""

    def forge(run):
        def change(rows):
            for row in rows:
                votes = {2 - int(one): count for one, count in (pair.split(":") for pair in row["votes"].split(" "))}
                row["votes"] = " ".join(f"{one}:{votes[one]}" for one in sorted(votes))

        for name in names:
            edit_rows(run / name, change)
        made_anew(run)

    return forge


def swapped_alone(run):
    """The same, with certificates as they were."""
    kept = {name: (run / name).read_bytes() for name in ("certificates.tsv", "comparison.tsv", "summary.json")}
    swapped("router_estimation.tsv")(run)
    for name, content in kept.items():
        (run / name).write_bytes(content)


def forged_by(*changes):
    """Let everything follow from the rows by a program that was changed."""

    def forge(run):
        with pytest.MonkeyPatch.context() as patch:
            for place, name, other in changes:
                patch.setattr(place, name, other)
            made_anew(run)

    return forge


def other_anchor(sigma, level, *rest):
    """A router's record in which the last image has a level that fewer selection votes name."""
    moved = np.where(np.arange(len(level)) == len(level) - 1, 0, level)
    assert (moved != level).any()
    return dataclass_of_routing(sigma, moved, *rest)


dataclass_of_routing = reading.Routing


def all_to_both(alpha, share):
    """Certify with all of alpha, and bound the router with all of it as well."""
    return alpha, alpha


def whole_radius(run):
    """Claim each image's R_c, as if levels that do not agree did no harm."""

    def change(rows):
        for row in rows:
            row["r"] = row["R"]
            row["radius"] = f"{np.floor(float(row['R']) * 1e6) / 1e6:.6f}"

    edit_rows(run / "certificates.tsv", change)


def larger(rule, of=None):
    """Let a rule certify a little more than it does, or as much as another one."""

    def forge(run):
        wanted = radii_of(run, of) if of else [radius + 1e-5 for radius in radii_of(run, rule)]

        def change(rows):
            mine = [row for row in rows if row["rule"] == rule]
            assert len(mine) == len(wanted) > 0
            for row, radius in zip(mine, wanted, strict=True):
                if row["predict"] != "-1":
                    row["radius"] = f"{radius:.6f}"

        edit_rows(run / "comparison.tsv", change)

    return forge


def without(rule):
    def forge(run):
        edit_rows(run / "comparison.tsv", lambda rows: rows.__setitem__(slice(None), [
            row for row in rows if row["rule"].partition(":")[0] != rule]))  # fmt: skip

    return forge


def share_in_summary(run):
    edit(run / "summary.json", lambda held: held["router"].update(share_of_alpha=0.25))


def wider_router(run):
    """Double the router's noise, so that all its radii double."""
    edit(run / "manifest.json", lambda held: held["router"].update(sigma=1.0))
    made_anew(run)


def noise_beyond_float64(run):
    edit(run / "manifest.json", lambda held: held["router"].update(sigma=10**400))


def other_constant(run):
    edit(run / "manifest.json", lambda held: held["router"].update(level=0.2))
    made_anew(run)


def manifests(**changes):
    return lambda run: edit(run / "manifest.json", lambda held: held["router"]["classifier"].update(changes))


def larger_region(run):
    """Make the largest region a little larger, and let the radii follow from the map."""
    edit_map(run, radii=lambda r: np.where(r == r.max(), 1.01 * r, r))


def added_region(run):
    edit_map(run, radii=lambda r: np.where(np.arange(len(r)) == 3, 0.01, r))


def of_all_inputs(run):
    sentence = "each certificate holds with probability at least 1 - 0.001, per image"
    edit(run / "summary.json", lambda held: held.update(guarantee=sentence))


def everywhere(run):
    """Say of a run with regions that the router decides for every input."""
    edit(run / "summary.json", lambda held: held.update(guarantee=held["guarantee"].removesuffix(
        " outside every region")))  # fmt: skip


def abstaining(run):
    for name in ("config.yaml", "summary.json"):
        edit(run / name, lambda held: held.get("settings", held).update(outside="abstain"))


def other_weights(run):
    held = torch.load("router.pt", weights_only=True)
    held["state_dict"]["layers.6.bias"] += 1
    torch.save(held, "router.pt")


def other_router(run):
    """A router that answers as the one level that was best for it."""
    write_router(Path("router.pt"), Path("model.pt"), constant=0.4)


def no_time(run):
    edit(run / "summary.json", lambda held: held["seconds"].pop("route"))


def other_order(run):
    edit_rows(run / "router_estimation.tsv", lambda rows: rows.reverse())


def too_few(run):
    """Leave out a vote of a row, which then no longer has n."""

    def change(rows):
        for row in rows:
            first, *rest = row["votes"].split(" ")
            one, count = first.split(":")
            row["votes"] = " ".join([f"{one}:{int(count) - 1}", *rest])

    edit_rows(run / "router_selection.tsv", change)


FORGED = {
    "one vote of the router more": ("around", one_vote_more("router_estimation.tsv"), "votes"),
    "one selection vote of the router more": ("alone", one_vote_more("router_selection.tsv"), "votes"),
    "levels swapped": ("alone", swapped(*BOTH), "votes"),
    "levels swapped in one table": ("alone", swapped_alone, "certificates"),
    "the anchor is another one": ("alone", forged_by((reading, "Routing", other_anchor)), "certificates"),
    "radii of levels that do not agree": ("alone", whole_radius, "certificates"),
    "the same, with regions": ("around", whole_radius, "certificates"),
    "all of alpha for both": ("alone", forged_by((evaluation, "split_between", all_to_both)), "certificates"),
    "the same, with regions ": ("around", forged_by((evaluation, "split_between", all_to_both)), "certificates"),
    "a part of alpha that was not chosen": ("alone", forged_by((reading, "ROUTER_SHARES", (0.5,))), "routing"),
    "a part of alpha in the summary": ("around", share_in_summary, "routing"),
    "a router under twice the noise": ("alone", wider_router, "router"),
    "min(R_S, R_c) larger": ("around", larger("router"), "comparison"),
    "min(R_S, R_c) as if levels agreed": ("alone", larger("router", "router-agreeing"), "comparison"),
    "one-sided min(R_S, R_c) larger": ("alone", larger("router:one-sided"), "comparison"),
    "levels that agree, larger": ("around", larger("router-agreeing"), "comparison"),
    "one-sided levels that agree, larger": ("alone", larger("router-agreeing:one-sided"), "comparison"),
    "one-sided regions and router, larger": ("around", larger("sigma-lp+router:one-sided"), "comparison"),
    "a rule left out": ("alone", without("router"), "comparison"),
    "regions without a router left out": ("around", without("sigma-lp"), "comparison"),
    "another constant level": ("constant", other_constant, "router"),
    "a larger region": ("around", larger_region, "map"),
    "a region where there are none": ("alone", added_region, "map"),
    "a guarantee of nobody": ("alone", of_all_inputs, "summary"),
    "a guarantee of the router alone": ("around", everywhere, "summary"),
    "nothing outside": ("around", abstaining, "files"),
    "noise of the classifier's seed": ("alone", manifests(seed=1), "routing"),
    "a router of other precision": ("alone", manifests(precision="bfloat16"), "routing"),
    "a router of more levels": ("alone", manifests(num_classes=4), "routing"),
    "another hash": ("alone", manifests(weights=64 * "0"), "router"),
    "other weights": ("alone", other_weights, "router"),
    "another kind of router": ("alone", other_router, "router"),
    "no time of the router": ("alone", no_time, "summary"),
    "noise beyond float64": ("alone", noise_beyond_float64, "files"),
    "rows in another order": ("alone", other_order, "files"),
    "a vote less": ("alone", too_few, "files"),
}  # fmt: skip


@pytest.mark.parametrize(("of", "forge", "topic"), FORGED.values(), ids=FORGED)
def test_forged_runs_are_found(request, tmp_path, monkeypatch, of, forge, topic):
    run = copied(request.getfixturevalue(of), tmp_path, monkeypatch)
    forge(run)
    assert topic in failing(run, all=topic == "votes")
