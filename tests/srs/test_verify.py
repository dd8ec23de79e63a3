"""srs-verify: honest runs of every kind hold; forged ones are found."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import regions
from srs.evaluation import evaluate as evaluation
from srs.evaluation.evaluate import evaluate
from srs.run.folder import read_description
from srs.run.votes import images_of, read_record, vote_files
from tests.srs.programs import assert_refused, call
from tests.srs.test_hostile_folders import ANY_FILE
from tests.srs.verifying import (
    LEVELS,
    PAPER,
    SMALL,
    copied,
    edit,
    edit_map,
    edit_rows,
    failing,
    made_anew,
    near_images,
    put,
    renew_images,
    table_of,
    unknown,
)


@pytest.fixture
def run(small, tmp_path, monkeypatch):
    """A copy of the small run, in the current folder."""
    return copied(small, tmp_path, monkeypatch)


# Honest runs.

RACING = ("--racing", "--n0", "300")
HONEST = {
    "joint": (),
    "joint, level outside": ("--outside", "auto"),
    "joint by the radius of n0 samples": ("--rule", "max-radius"),
    "joint, chosen only": ("--chosen-only", "--bound", "top-class"),
    "joint, raced": RACING,
    "joint, raced, anchor, chosen only": (*RACING, "--rule", "anchor", "--chosen-only"),
    "the paper's": ("--preset", "paper"),
    "sigma": ("--overlap", "sigma", "--rule", "max-radius"),
    "class": ("--overlap", "class", "--method", "greedy"),
    "greedy": ("--method", "greedy", "--order", "descending"),
    "matching": (*PAPER, "--method", "matching", "--bound", "top-class"),
    "raced, anchor": (*RACING, "--rule", "anchor", "--overlap", "paper"),
    "raced, expected, chosen only": (*RACING, "--chosen-only", "--overlap", "class"),
    "ladder": (*PAPER, "--rungs", "50", "100", "--n", "1000", "--target-loss", "0.1"),
    "sigma, level outside": ("--overlap", "sigma", "--outside", "auto"),
    "paper, named level outside": (*PAPER, "--outside", "sigma=0.4", "--bound", "top-class", "--method", "matching"),
    "joint, named level outside, greedy": ("--overlap", "joint", "--outside", "sigma=0.2", "--method", "greedy"),
    "experts, shuffled": (*PAPER, "--image-order", "shuffled", "--max", "8"),
}


@pytest.mark.parametrize("flags", HONEST.values(), ids=HONEST)
def test_honest_runs_hold(small, tmp_path, monkeypatch, flags):
    for name in ("model.pt", "near.txt"):
        shutil.copy(small / name, tmp_path)
    given = [*SMALL, *LEVELS, "--n0", "40", "--n", "200"]
    if "shuffled" in flags:  # with one classifier for each level, and images of its own
        given = [*SMALL[2:4], "--seed", "1", "--n0", "40", "--n", "200",
                 "--expert", "0.2=model.pt", "--expert", "0.5=model.pt"]  # fmt: skip
    process = call("certify", tmp_path, *given, *flags, "--out", "run")
    assert process.returncode == 0, process.stderr
    monkeypatch.chdir(tmp_path)
    assert failing(Path("run"), all=True) == {}
    assert unknown(Path("run"), all=True).keys() == {"other files"}


def test_a_run_of_several_shares_holds(small, tmp_path, monkeypatch):
    for name in ("model.pt", "near.txt"):
        shutil.copy(small / name, tmp_path)
    for share in ("2/2", "1/2"):
        assert call("certify", tmp_path, *SMALL, *PAPER, *LEVELS, "--n0", "40", "--n", "200", "--out", "run",
                    "--shard", share).returncode == 0  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert failing(Path("run"), redraw=3) == {}


def test_tables_of_six_decimals_hold(run):
    """As versions before this one wrote them: R, r and p_lower rounded down, p_upper up."""
    rows = table_of(run / "certificates.tsv")
    for row in rows:
        for name in ("R", "r", "p_lower", "p_upper"):
            up = name == "p_upper"
            row[name] = str((math.ceil if up else math.floor)(float(row[name]) * 1e6) / 1e6)
    put(run / "certificates.tsv", rows)
    assert failing(run) == {}
    rows[3]["p_upper"] = repr(float(rows[3]["p_upper"]) - 1e-6)
    put(run / "certificates.tsv", rows)
    assert "image" in failing(run)["certificates"]


def test_what_is_not_there_is_said(run, monkeypatch):
    told = unknown(run)
    assert "add --redraw 20" in told["votes"]
    (run.parent / "model.pt").unlink()
    assert "--checkpoint" in unknown(run)["classifier"]
    assert failing(run) == {}
    monkeypatch.setattr("srs.verify.verify.load_data", lambda *given, **named: (_ for _ in ()).throw(OSError("gone")))
    assert "--data-dir" in unknown(run)["data set"]
    assert failing(run) == {}


def test_the_command_says_it_and_its_exit_code_too(run, tmp_path):
    process = call("verify", tmp_path, "run", "--redraw", "2")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("run: all 14 checks hold; 1 could not be made\n")
    assert "holds    votes         all votes of 2 images were drawn again" in process.stdout
    edit_map(run, radii=lambda r: 2 * r)
    process = call("verify", tmp_path, "run")
    assert (process.returncode, process.stderr) == (1, "")
    assert "\nFAILS    map " in process.stdout
    assert "NOT verified" in process.stdout.splitlines()[-1]
    for flags, message in (
        (["nowhere"], "nowhere: no such folder"),
        (["."], ".: holds no run"),
        (["run", "--redraw", "0"], "--redraw 0: must be at least 1"),
        (["run", "--redraw", "5", "--all"], "both say which votes to draw again"),
        (["run", "--model", "own:make"], "leave it out"),
    ):
        assert_refused(call("verify", tmp_path, *flags), "srs-verify", message)
    (run / "summary.json").unlink()
    assert_refused(call("verify", tmp_path, "run"), "srs-verify", "has not come to its end")


def test_code_of_somebodys_own_is_not_run(run, monkeypatch):
    Path("own_code.py").write_text("raise SystemExit('ran')\n")
    edit(run / "config.yaml", lambda held: held.update(model="own_code:make", checkpoint=None))
    edit(run / "summary.json", lambda held: held["settings"].update(model="own_code:make", checkpoint=None))
    monkeypatch.syspath_prepend(".")
    assert "add --model own_code:make if you trust that module" in unknown(run, redraw=2)["classifier"]


# Forged runs.


def doubled(run):
    edit_map(run, radii=lambda r: 2 * r)


def doubled_everywhere(run):
    doubled(run)

    def change(rows):
        for row in rows:
            row["r"], row["R"] = repr(2 * float(row["r"])), repr(2 * float(row["R"]))
            row["radius"] = f"{2 * float(row['radius']):.6f}"

    edit_rows(run / "certificates.tsv", change)


def one_vote_more(name):
    """Move one vote to the most voted class in every row of a table, and let everything follow."""

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


def best_of_all(run):
    """Choose each image's level by the votes that certify."""
    described = read_description(run)
    sigmas = np.array(described.manifest["sigmas"])
    record = read_record(vote_files(run, described.settings, images_of(run), sigmas, 10))
    proven = evaluate(record, regions.RegionMap.load(run / "regions.npz").centres, described.settings.mode, 0.001)
    best = sigmas[proven.proofs.constant.argmax(axis=1)]

    def change(rows):
        for row, sigma in zip(rows, best.tolist(), strict=True):
            row["sigma"] = repr(sigma)

    edit_rows(run / "levels.tsv", change)
    made_anew(run)


def right_labels(run):
    predict = {row["idx"]: row["predict"] for row in table_of(run / "certificates.tsv")}

    def change(rows):
        for row in rows:
            row["label"] = str((int(predict[row["idx"]]) + 1) % 10)

    edit_rows(run / "selection.tsv", change)
    renew_images(run)
    made_anew(run)


def other_images(run):
    edit_map(run, centres=lambda x: np.where(x < 0.99, x + 0.01, x).astype(np.float32).astype(np.float64))
    renew_images(run)
    made_anew(run)


def other_seed(run):
    edit(run / "config.yaml", lambda held: held.update(seed=2))
    edit(run / "manifest.json", lambda held: (held.update(seed=2), held["classifier"].update(seed=2)))
    made_anew(run)


def smaller_alpha(run):
    edit(run / "config.yaml", lambda held: held.update(alpha=0.0001))
    sentence = "each certificate holds with probability at least 1 - 0.0001, per image"
    edit(run / "summary.json", lambda held: (held.update(alpha=0.0001, guarantee=sentence),
                                             held["settings"].update(alpha=0.0001)))  # fmt: skip


def all_at_once(run):
    sentence = "all certificates hold at once with probability at least 1 - 0.001"
    edit(run / "summary.json", lambda held: held.update(guarantee=sentence, simultaneous=True))


def other_classes(run):
    edit_map(run, classes=lambda c: np.where(c >= 0, (c + 1) % 10, -1))

    def change(rows):
        for row in rows:
            row["predict"] = str((int(row["predict"]) + 1) % 10) if row["predict"] != "-1" else "-1"

    edit_rows(run / "certificates.tsv", change)


def other_weights(run):
    weights = torch.load("model.pt", weights_only=True)
    weights["state_dict"]["layers.6.bias"] += 1
    torch.save(weights, "model.pt")


def better_clean(run):
    label = {row["idx"]: row["label"] for row in table_of(run / "selection.tsv")}

    def change(rows):
        for row in rows:
            row["clean"] = str((int(label[row["idx"]]) + 1) % 10)

    edit_rows(run / "selection.tsv", change)
    made_anew(run)


def overlapping_regions(run):
    """Give every image the whole R, as where regions may overlap."""
    rows = table_of(run / "certificates.tsv")
    R = np.array([float(row["R"]) for row in rows])
    edit_map(run, radii=lambda r: R)

    def change(rows):
        for row in rows:
            row["r"], row["region"] = row["R"], str(rows.index(row))
            row["radius"] = f"{np.floor(float(row['R']) * 1e6) / 1e6:.6f}"

    edit_rows(run / "certificates.tsv", change)


def weaker_rival(run):
    """Make a rule look bad that the run is compared with."""

    def change(rows):
        for row in rows:
            if row["rule"] == "paper-ascending":
                row["radius"] = f"{float(row['radius']) / 2:.6f}"

    edit_rows(run / "comparison.tsv", change)


def beyond_float64(run):
    """Write whole numbers that JSON holds and float64 does not."""

    def change(held):
        held["average_certified_radius"] = 10**400
        held["allocations"]["paper-lp"]["upper_bound"] = 10**400

    edit(run / "summary.json", change)


def left_out(run):
    """Leave the last image out, as if it had not been certified."""
    last = table_of(run / "levels.tsv")[-1]["idx"]
    for name in ("selection.tsv", "levels.tsv", "estimation.tsv"):
        put(run / name, [row for row in table_of(run / name) if row["idx"] != last])
    table = regions.RegionMap.load(run / "regions.npz")
    regions.RegionMap(table.centres[:-1], table.radii[:-1], table.sigma[:-1], classes=table.classes[:-1]).save(
        run / "regions.npz"
    )
    renew_images(run)
    made_anew(run)


FORGED = {
    "all radii doubled, hash renewed": (doubled, "map"),
    "all radii doubled in all files": (doubled_everywhere, "certificates"),
    "regions that overlap": (overlapping_regions, "regions"),
    "one vote more": (one_vote_more("estimation.tsv"), "votes"),
    "one selection vote more": (one_vote_more("selection.tsv"), "votes"),
    "levels chosen by the votes that certify": (best_of_all, "levels"),
    "other labels": (right_labels, "data set"),
    "other images": (other_images, "data set"),
    "an image left out": (left_out, "data set"),
    "another seed": (other_seed, "votes"),
    "a smaller alpha": (smaller_alpha, "certificates"),
    "another guarantee": (all_at_once, "summary"),
    "other classes": (other_classes, "certificates"),
    "other weights": (other_weights, "classifier"),
    "other classes without noise": (better_clean, "clean"),
    "another rule made to look bad": (weaker_rival, "summary"),
    "numbers beyond float64": (beyond_float64, "summary"),
}


@pytest.mark.parametrize(("forge", "topic"), FORGED.values(), ids=FORGED)
def test_forged_runs_are_found(run, forge, topic):
    forge(run)
    assert topic in failing(run, all=True)


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory, weights):
    """A folder that holds a small run with a level outside every region."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(weights, folder / "model.pt")
    (folder / "near.txt").write_text("\n".join(map(str, near_images(12))))
    flags = ("--n0", "40", "--n", "200", "--rule", "expected-radius", "--overlap", "sigma", "--outside", "sigma=0.2")
    process = call("certify", folder, *SMALL, *LEVELS, *flags, "--out", "run")
    assert process.returncode == 0, process.stderr
    assert (regions.RegionMap.load(folder / "run/regions.npz").radii > 0).any()
    assert any(float(row["r"]) < float(row["R"]) for row in table_of(folder / "run/certificates.tsv"))
    return folder


def other_level_outside(run):
    for name in ("config.yaml", "summary.json"):
        edit(run / name, lambda held: held.get("settings", held).update(outside="sigma=0.6"))


def no_level_outside(run):
    for name in ("config.yaml", "summary.json"):
        edit(run / name, lambda held: held.get("settings", held).update(outside="sigma=0.3"))


def map_of_other_votes(run):
    """Make the map of other numbers than selection votes give, and let everything follow from it."""
    honest = evaluation.with_background

    def with_background(points, sigmas, promised, *rest):
        return honest(points, sigmas, dataclasses.replace(promised, radius=promised.radius * 0.9), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "with_background", with_background)
        made_anew(run)


def beyond_agreement(run):
    """Claim each image's whole radius, as if levels that do not agree did no harm."""

    def change(rows):
        for row in rows:
            row["r"] = row["R"]
            row["radius"] = f"{np.floor(float(row['R']) * 1e6) / 1e6:.6f}"

    edit_rows(run / "certificates.tsv", change)


@pytest.mark.parametrize(
    ("forge", "topic"),
    [
        (doubled, "map"),
        (map_of_other_votes, "map"),
        (beyond_agreement, "certificates"),
        (other_level_outside, "comparison"),
        (no_level_outside, "certificates"),
        (one_vote_more("estimation.tsv"), "votes"),
    ],
)
def test_forged_runs_with_a_level_outside_are_found(surrounded, tmp_path, monkeypatch, forge, topic):
    shutil.copytree(surrounded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert failing(Path("run"), all=True) == {}
    forge(Path("run"))
    assert topic in failing(Path("run"), all=True)


def test_a_map_of_other_versions_is_not_judged(surrounded, tmp_path, monkeypatch):
    shutil.copytree(surrounded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    map_of_other_votes(Path("run"))
    for name in ("manifest.json", "summary.json"):
        edit(Path("run") / name, lambda held: held["versions"].update(scipy="0.1"))
    assert "map" not in failing(Path("run"))
    assert "whether selection votes alone made the map" in unknown(Path("run"))["map"]


@pytest.mark.parametrize(("cells", "topic"), [(1, "unknown"), (9, "failing")])
def test_few_votes_may_move_on_another_device(run, cells, topic):
    for name in ("manifest.json", "summary.json"):
        edit(run / name, lambda held: held.update(device="cuda"))

    def change(rows):
        several = [row for row in rows if " " in row["votes"]]
        for row in several[:cells]:
            first, second, *rest = (pair.split(":") for pair in row["votes"].split(" "))
            moved = [[first[0], str(int(first[1]) + 1)], [second[0], str(int(second[1]) - 1)], *rest]
            row["votes"] = " ".join(":".join(pair) for pair in moved if pair[1] != "0")

    edit_rows(run / "estimation.tsv", change)
    made_anew(run)
    assert "votes" not in failing(run)
    assert "votes" in (unknown if topic == "unknown" else failing)(run, all=True)


@pytest.mark.parametrize("name", ["selection.tsv", "certificates.tsv", "summary.json", "regions.npz"])
def test_whatever_stands_in_a_files_place_is_found(run, name):
    kept = (run / name).read_bytes()
    for damage in ANY_FILE.values():
        damage(name)(run)
        if (run / name).is_file() or name != "summary.json":
            assert failing(run)
        else:
            with pytest.raises(ValueError, match="has not come to its end"):
                failing(run)
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
        (run / name).write_bytes(kept)


def test_pictures_are_not_looked_at(run):
    (run / "curves.png").write_bytes(b"another picture")
    (run / "note.txt").write_text("a note")
    assert failing(run) == {}
    assert unknown(run)["other files"] == "what is in curves.png, curves.pdf, note.txt"
