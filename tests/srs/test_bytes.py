"""A run over very many 8-bit images keeps them in bytes: smaller radii by what that costs, and nothing else changes."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import regions
import srs
from smoothing import images as streams
from smoothing import make_sampler
from srs.commands.certify import certify
from srs.evaluation import rules
from srs.geometry import allocate, allocate_levels, centre_error, region_map
from srs.report.finished_run import load_run
from srs.run import inputs as module
from srs.run.settings import CertifySettings
from srs.verify.settings import VerifySettings
from srs.verify.verify import verify
from training import build, save_checkpoint

FLAGS = {
    "sigmas": (0.2, 0.4),
    "n0": 20,
    "n": 100,
    "image_size": None,
    "max": 30,
    "device": "cpu",
    "batch": 32,
    "overlap": "paper",
}


def squared(first, second):
    return sum((Fraction(int(a), 255) - Fraction(int(b), 255)) ** 2 for a, b in zip(first, second, strict=True))


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from(["lp", "matching", "greedy"]))
def test_regions_around_bytes_keep_apart_exactly_and_within_their_bounds(n, d, seed, method):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, rng.choice([3, 256]), (n, d), dtype=np.uint8)
    points.flags.writeable = False
    R = rng.uniform(0, 1.5, n) * rng.integers(0, 2, n)
    found = allocate(points, R, method=method)
    assert (found.radii <= R).all()
    assert found.upper_bound is None or found.objective <= found.upper_bound
    for i in range(n):
        for j in range(i):
            together = Fraction(found.radii[i]) + Fraction(found.radii[j])
            if found.radii[i] > 0 and found.radii[j] > 0:
                assert together**2 <= squared(points[i], points[j])
    assert region_map(points, found.radii, np.ones(n)).first_overlap() is None
    floats = regions.allocate(points / 255, R, method=method)
    assert found.objective == pytest.approx(floats.objective, abs=1e-5 * n)


@given(st.integers(0, 255), st.integers(1, 1 << 20))
def test_an_image_is_no_farther_from_its_centre_than_is_taken_off(byte, d):
    seen = np.float32(byte) / np.float32(255)
    off = abs(Fraction(float(seen)) - Fraction(byte, 255))
    error = centre_error(np.broadcast_to(np.uint8(byte), (1, d)))
    assert Fraction(error) ** 2 >= off**2 * d
    assert centre_error(np.zeros((1, d))) == 0


def test_levels_are_those_of_the_same_points_as_floats(rng):
    points = rng.integers(0, 256, (40, 5), dtype=np.uint8)
    radii = rng.uniform(0, 1, (40, 3))
    sigmas = np.array([0.1, 0.2, 0.3])
    expected = regions.allocate_levels(points / 255, sigmas, radii).level
    np.testing.assert_array_equal(allocate_levels(points, sigmas, radii), expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network, and thirty images in pairs that are close, so that regions have to share the space."""
    folder = tmp_path_factory.mktemp("bytes")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (15, 1, 8, 8), dtype=np.uint8).repeat(2, axis=0)
    pixels[1::2, 0, 3, 3] ^= 64  # a quarter away
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, values in (("images-idx3", pixels[:, 0]), ("labels-idx1", np.arange(30, dtype=np.uint8) % 10)):
        head = bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4) for size in values.shape)
        (raw / f"t10k-{name}-ubyte").write_bytes(head + values.tobytes())
    model = build("digits_cnn", 10, seed=0)
    with torch.no_grad():
        for parameter in model.layers[-1].parameters():
            parameter.mul_(20)
    save_checkpoint(folder / "model.pt", model, arch="digits_cnn")
    return folder


def run(folder, out, **flags):
    settings = {"checkpoint": folder / "model.pt", "dataset": "mnist", "data_dir": folder / "data", "out": folder / out}
    certify(CertifySettings(**(FLAGS | settings | flags)))
    return folder / out


@pytest.fixture(scope="module")
def runs(folder):
    """The same run with its images in bytes, read anew each time, and as ever."""
    with pytest.MonkeyPatch.context() as patch:
        floats = run(folder, "floats")
        patch.setattr(module, "MOST_FLOATS", 0)
        patch.setattr(streams, "HELD", 0)
        patch.setattr(streams, "_TOGETHER", 64 * 7)
        return run(folder, "bytes"), floats


def test_the_map_holds_bytes_and_says_so(runs):
    in_bytes, floats = runs
    table = regions.RegionMap.load(in_bytes / "regions.npz", mmap_mode="r")
    assert (table.centres.dtype, table.divisor) == (np.uint8, 255)
    assert not table.centres.flags.writeable
    manifests = [json.loads((one / "manifest.json").read_text())["data"] for one in runs]
    assert manifests[0].pop("centres") == "uint8"
    assert manifests[0] == manifests[1]
    assert not [file.name for file in in_bytes.iterdir() if file.name not in {one.name for one in floats.iterdir()}]


def test_votes_and_levels_are_the_same_and_radii_no_larger_than_what_is_proved(runs):
    rows = [[line.split("\t") for line in (one / "certificates.tsv").read_text().splitlines()] for one in runs]
    names = rows[0][0]
    columns = [{name: [row[k] for row in table[1:]] for k, name in enumerate(names)} for table in rows]
    for name in ("idx", "label", "sigma", "R", "counts", "n", "p_lower"):
        assert columns[0][name] == columns[1][name]
    radius, R, r = (np.array(list(map(float, columns[0][name]))) for name in ("radius", "R", "r"))
    assert (radius > 0).sum() > 10
    assert (r < R - 0.01).any()  # regions had to share
    error = centre_error(np.zeros((1, 64), np.uint8))
    assert (radius <= np.maximum(np.minimum(R, r) - error, 0)).all()
    assert np.allclose(radius, list(map(float, columns[1]["radius"])), atol=2e-5)


def test_a_certified_ball_around_the_image_that_the_network_saw_lies_in_its_region(runs, rng):
    """The farthest points of certified balls are held by the region, by exact arithmetic."""
    table = regions.RegionMap.load(runs[0] / "regions.npz")
    run = load_run(runs[0])
    answers = run.evaluate().answers
    seen = np.asarray(run.images).reshape(len(table), -1).astype(np.float64)
    for j in np.flatnonzero(answers.radius > 0).tolist():
        away = rng.standard_normal((20, 64))
        away = np.concatenate([away, seen[j : j + 1] - table.centres[j] / 255])
        away[-1] = np.where(away[-1], away[-1], 1e-9)
        ends = seen[j] + answers.radius[j] * (1 - 1e-9) * away / np.linalg.norm(away, axis=1)[:, None]
        for end in ends:
            far = sum((Fraction(x) - Fraction(int(c), 255)) ** 2 for x, c in zip(end, table.centres[j], strict=True))
            assert far < Fraction(table.radii[j]) ** 2


def test_the_run_is_read_verified_and_asked(runs):
    in_bytes, floats = runs
    stored, other = load_run(in_bytes), load_run(floats)
    assert stored.disagreement(stored.evaluate()) is None
    np.testing.assert_array_equal(np.asarray(stored.images), other.images)
    findings = verify(VerifySettings(in_bytes, all=True))
    assert findings.failed == 0, [one.text for one in findings.found]
    assert {one.topic for one in findings.found if one.holds is None} == {"other files"}
    G = srs.load_run(in_bytes, seed=1)
    there = G.predict(stored.images[np.arange(5)], n=50)
    assert (there.region == np.where(stored.evaluate().radii[:5] > 0, np.arange(5), -1)).all()
    nearest = srs.load_run(in_bytes, seed=1, outside="nearest-region").predict(1 - stored.images[np.arange(3)], n=50)
    expected = srs.load_run(floats, seed=1, outside="nearest-region").predict(1 - other.images[:3], n=50)
    np.testing.assert_array_equal(nearest.sigma, expected.sigma)


def test_a_run_in_bytes_goes_on(runs, folder, monkeypatch, capsys):
    monkeypatch.setattr(module, "MOST_FLOATS", 0)
    for name in ("estimation.tsv", "summary.json"):
        (runs[0] / name).rename(folder / name)
    run(folder, "bytes", resume=True)
    again = (runs[0] / "summary.json").read_text()
    assert json.loads(again)["regions"] == json.loads((folder / "summary.json").read_text())["regions"]
    monkeypatch.setattr(module, "MOST_FLOATS", 2**27)
    with pytest.raises(ValueError, match="belongs to a run with another data centres"):
        run(folder, "bytes", resume=True)


@pytest.mark.parametrize("sampler", ["gaussian", "discrete"])
def test_where_certificates_rely_on_other_regions_these_stay_within_their_own_certificates(
    folder, tmp_path, monkeypatch, sampler
):
    # An input in region i is up to `lost` farther from the image that was certified than from the region's centre.
    monkeypatch.setattr(module, "MOST_FLOATS", 0)
    out = run(folder, tmp_path / "run", overlap="class", sampler=sampler, n=2000)
    found = load_run(out).evaluate()
    lost = Fraction(centre_error(found.points)) + Fraction(make_sampler(sampler).lookup_error(found.points.shape[1]))
    some = found.answers.r > 0
    assert some.any()
    for r, R in zip(found.answers.r[some], found.answers.R[some], strict=True):
        assert Fraction(r) + lost <= Fraction(R)
    assert not verify(VerifySettings(out, all=True)).failed


@pytest.mark.parametrize("sampler", ["gaussian", "discrete"])
def test_verify_finds_regions_that_reach_beyond_what_others_rely_on(folder, tmp_path, monkeypatch, sampler):
    monkeypatch.setattr(module, "MOST_FLOATS", 0)
    monkeypatch.setattr(rules, "bounds", lambda mode, R, lost: R)
    out = run(folder, tmp_path / "run", overlap="class", sampler=sampler, n=2000)
    findings = verify(VerifySettings(out))
    assert findings.failed
    assert "others rely on this region" in str(findings.found)


def test_a_region_that_leaves_nothing_of_its_certificate_is_empty():
    points, R = np.array([[0.0], [1.0], [2.0]]), np.array([1e-6, 0.25, 2e-6])
    found = rules.emptied(regions.allocate(points, R), 1e-6)
    assert found.radii.tolist() == [0.0, 0.25, 2e-6]
    assert found.objective == 0.25 + 2e-6
    whole = regions.allocate(points, R)
    assert rules.emptied(whole, 0.0) is whole


def test_a_map_in_another_unit_is_refused(runs, tmp_path):
    broken = shutil.copytree(runs[0], tmp_path / "run")
    table = regions.RegionMap.load(broken / "regions.npz")
    changed = regions.RegionMap(table.centres / 255, table.radii, table.sigma, classes=table.classes)
    changed.save(broken / "regions.npz")
    with pytest.raises(ValueError, match="is another run's: its centres are in another unit"):
        load_run(broken)
    assert verify(VerifySettings(broken)).failed
    regions.RegionMap(table.centres, table.radii, table.sigma, classes=table.classes, divisor=254).save(
        broken / "regions.npz"
    )
    with pytest.raises(ValueError, match="its centres are in another unit"):
        load_run(broken)
    assert verify(VerifySettings(broken)).failed


def test_verify_finds_a_radius_that_takes_nothing_off(runs, tmp_path):
    forged = shutil.copytree(runs[0], tmp_path / "run")
    file = forged / "certificates.tsv"
    lines = [line.split("\t") for line in file.read_text().splitlines()]
    names = lines[0]
    for row in lines[1:]:
        if row[names.index("predict")] != "-1":
            least = min(float(row[names.index("R")]), float(row[names.index("r")]))
            row[names.index("radius")] = f"{int(least * 1e6) / 1e6:.6f}"
    file.write_text("\n".join("\t".join(row) for row in lines) + "\n")
    findings = verify(VerifySettings(forged))
    assert any("is not min(R, r)" in one.text for one in findings.found if one.holds is False)


def test_no_region_is_registered_beside_bytes(runs, tmp_path):
    G = srs.load_run(runs[0])
    with pytest.raises(ValueError, match="keeps its many images in bytes, beside which no region can be registered"):
        G.register(np.zeros((1, 1, 8, 8), np.float32), tmp_path / "state.db")


def test_images_off_the_grid_stay_floats(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_FLOATS", 0)
    out = run(folder, "digits", dataset="digits", data_dir=None)
    assert "centres" not in json.loads((out / "manifest.json").read_text())["data"]
    assert regions.RegionMap.load(out / "regions.npz").centres.dtype == np.float64
