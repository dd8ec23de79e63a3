import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions import RegionMap, allocate, overlap_graph
from tests import oracles, strategies


@pytest.fixture
def region_map(rng):
    points = rng.random((300, 5))
    radii = allocate(points, rng.random(300) * 0.4).radii
    return RegionMap(points, radii, rng.choice([0.25, 0.5, 1.0], size=300), classes=rng.integers(10, size=300))


@given(strategies.instances(max_points=8, max_dimension=3), st.integers(0, 2**32 - 1))
def test_locate_is_exact(instance, seed):
    points, radii = instance
    if not len(radii):
        return
    rng = np.random.default_rng(seed)
    # centres, points exactly on boundaries (axis steps by the radius on lattices) and points anywhere
    step = np.zeros_like(points)
    step[:, 0] = radii
    queries = np.concatenate(
        [points, points + step, points - step, points + rng.normal(size=points.shape) * radii.max()]
    )
    location = RegionMap(points, radii, np.arange(1.0, len(radii) + 1)).locate(queries)
    for x, region, sigma, margin in zip(queries, location.region, location.sigma, location.margin, strict=True):
        inside = [
            k
            for k in range(len(radii))
            if oracles.squared_distance(x, points[k]) < oracles.Fraction(float(radii[k])) ** 2
        ]
        assert region == (inside[0] if inside else -1)
        if not inside:
            assert np.isnan(sigma)
            assert margin == 0
        else:
            assert sigma == region + 1
            true = oracles.squared_distance(x, points[region])
            left = oracles.Fraction(float(radii[region])) - oracles.Fraction(float(margin))
            assert margin >= 0
            assert true <= left**2  # the margin is never too large
            assert margin >= (radii[region] - float(true) ** 0.5) - 1e-12 * radii[region]


@pytest.mark.parametrize(
    ("centres", "radius", "query", "region"),
    [
        ([[0.1]] * 3, 0.5, [0.2], 0),  # copies of one centre: their mean is off by rounding
        ([[0.1]] * 3, 0.5, [0.7], -1),
        ([[0.0]], 1e16, [9e15], 0),
        ([[0.0]], 1e150, [1e140], 0),
        ([[0.0], [1e-300]], 1e-301, [1e10], -1),
        ([[0.0], [1e-3]], 1e9, [9e8], 0),
        ([[0.0], [1e-3]], 1e9, [1.1e9], -1),
    ],
)
def test_radii_far_beyond_the_spread_of_the_centres(centres, radius, query, region):
    held = RegionMap(centres, [radius] * len(centres), [1.0] * len(centres))
    assert held.locate([query]).region.tolist() == [region]


def test_copies_of_one_image(rng):
    image = rng.random(64)
    query = np.clip(image + 0.15, 0, 1)
    assert RegionMap(np.tile(image, (3, 1)), [2.0] * 3, [0.5] * 3).locate([query]).region.tolist() == [0]


def test_centres_lie_in_their_own_region(region_map):
    location = region_map.locate(region_map.centres)
    filled = region_map.radii > 0
    np.testing.assert_array_equal(location.region[filled], np.flatnonzero(filled))
    np.testing.assert_array_equal(location.sigma[filled], region_map.sigma[filled])
    np.testing.assert_allclose(location.margin[filled], region_map.radii[filled], rtol=1e-12)
    assert filled.sum() > 250


def test_an_empty_region_holds_not_even_its_centre():
    location = RegionMap([[0.0], [3.0]], [0.0, 1.0], [np.nan, 0.5]).locate([[0.0], [3.0], [4.0], [2.0000000000000004]])
    assert location.region.tolist() == [-1, 1, -1, 1]


def test_overlapping_regions_give_the_smallest_index():
    location = RegionMap([[0.0], [0.5]], [1.0, 1.0], [0.25, 0.25]).locate([[0.4], [-0.9], [1.2]])
    assert location.region.tolist() == [0, 0, 1]


def test_far_away_and_no_queries(region_map):
    assert region_map.locate(np.full((1, 5), 1e140)).region.tolist() == [-1]
    assert region_map.locate(np.vstack([np.full((1, 5), -1e140), region_map.centres[7]])).region.tolist()[0] == -1
    assert region_map.locate(np.zeros((0, 5))).region.shape == (0,)
    assert RegionMap(np.zeros((0, 5)), [], []).locate(np.zeros((2, 5))).region.tolist() == [-1, -1]


def test_another_dimension_is_refused(region_map):
    with pytest.raises(ValueError, match="points have 4 coordinates: this map's regions have 5"):
        region_map.locate(np.zeros((1, 4)))


@pytest.mark.parametrize("with_classes", [True, False])
def test_save_and_load(tmp_path, region_map, with_classes):
    if not with_classes:
        region_map = RegionMap(region_map.centres, region_map.radii, region_map.sigma)
    path = tmp_path / "map.npz"
    region_map.save(path)
    loaded = RegionMap.load(path)
    for name in ("centres", "radii", "sigma", "classes"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(region_map, name))
    assert loaded.content_hash == region_map.content_hash
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]


def test_hash_sees_every_array(region_map):
    arrays = {
        "centres": region_map.centres,
        "radii": region_map.radii,
        "sigma": region_map.sigma,
        "classes": region_map.classes,
    }
    hashes = {region_map.content_hash, RegionMap(arrays["centres"], arrays["radii"], arrays["sigma"]).content_hash}
    for name, array in arrays.items():
        changed = array.copy()
        changed[-1] = changed[-1] * 2 + 1
        hashes.add(RegionMap(**{**arrays, name: changed}).content_hash)
    assert len(hashes) == 6
    assert RegionMap(**arrays).content_hash == region_map.content_hash


def test_the_map_is_frozen(region_map):
    with pytest.raises(ValueError, match="read-only"):
        region_map.radii[0] = 1.0
    with pytest.raises(AttributeError):
        region_map.radii = region_map.radii


def test_it_does_not_freeze_or_share_the_arrays_it_was_given():
    centres, radii = np.zeros((1, 2)), np.ones(1)
    held = RegionMap(centres, radii, [0.5])
    centres[0, 0] = radii[0] = 9.0
    assert held.centres[0, 0] == 0.0
    assert held.radii[0] == 1.0


class TestDamagedFiles:
    @pytest.fixture
    def path(self, tmp_path, region_map):
        region_map.save(tmp_path / "map.npz")
        return tmp_path / "map.npz"

    def test_truncated(self, path):
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"map.npz is damaged, or not a plain array file"):
            RegionMap.load(path)

    @pytest.mark.parametrize("seed", range(60))
    def test_any_altered_byte_is_noticed(self, path, seed):
        data = bytearray(path.read_bytes())
        data[np.random.default_rng(seed).integers(len(data))] ^= 0xFF
        path.write_bytes(data)
        try:
            assert len(RegionMap.load(path)) == 300  # a byte of a date, or the like
            return
        except ValueError as caught:
            complaint = str(caught)
        assert "map.npz" in complaint
        assert "\n" not in complaint

    def test_empty(self, path):
        path.write_bytes(b"")
        with pytest.raises(ValueError, match="is damaged, or not a plain array file"):
            RegionMap.load(path)

    def test_foreign(self, path):
        np.savez(path, centres=np.zeros((1, 2)))
        with pytest.raises(ValueError, match="is not a region map of format srs-region-map-1"):
            RegionMap.load(path)

    def test_pickled_objects_are_not_loaded(self, path):
        np.savez(path, centres=np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="is damaged, or not a plain array file"):
            RegionMap.load(path)

    def test_changed_content(self, path):
        stored = dict(np.load(path))
        stored["radii"] = stored["radii"] * 1.001
        np.savez(path, **stored)
        with pytest.raises(ValueError, match="content hash differs"):
            RegionMap.load(path)

    def test_missing_array(self, path):
        stored = {name: value for name, value in np.load(path).items() if name != "sigma"}
        np.savez(path, **stored)
        with pytest.raises(ValueError, match="lacks centres, radii or sigma"):
            RegionMap.load(path)

    def test_a_failed_save_leaves_the_old_file(self, path, region_map, monkeypatch):
        before = path.read_bytes()

        def disk_full(*args, **kwargs):
            raise OSError("no space left on device")

        monkeypatch.setattr(zipfile.ZipFile, "open", disk_full)
        with pytest.raises(OSError, match="no space left"):
            region_map.save(path)
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == ["map.npz"]

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            RegionMap.load(tmp_path / "none.npz")


@pytest.mark.parametrize("d", [1, 3, 12])
def test_balls_of_one_sigma_agree_with_brute_force(d, rng):
    centres, radii = rng.random((60, d)), rng.random(60) * np.sqrt(d) / 2
    radii[::9] = 0
    sigma = rng.choice([0.1, 0.2, 0.3], 60)
    table = RegionMap(centres, radii, sigma)
    points = np.concatenate([centres, centres + rng.normal(scale=0.05, size=centres.shape)])
    where = table.locate(points)
    cut = 0
    for k, radius in enumerate(table.same_sigma(points, where)):
        i = where.region[k]
        earlier = np.flatnonzero((np.arange(60) < i) & (sigma != sigma[i]) & (radii > 0))
        gaps = np.linalg.norm(centres[earlier] - points[k], axis=1) - radii[earlier]
        free = max(0.0, min(where.margin[k], gaps.min(initial=np.inf)))
        assert radius <= free + 1e-14
        assert radius == pytest.approx(free, abs=1e-9)
        cut += free < where.margin[k]
    assert cut > 5
    overlaps = overlap_graph(centres, radii, groups=sigma)
    i, j = table.first_overlap(sigma)
    assert (i, j) in set(zip(overlaps.i.tolist(), overlaps.j.tolist(), strict=True))
    assert RegionMap(centres, allocate(centres, radii, groups=sigma).radii, sigma).first_overlap(sigma) is None


def test_arrays_that_unpack_beyond_measure_are_not_unpacked(tmp_path, monkeypatch):
    from regions import files

    monkeypatch.setattr(files, "_LARGE", 10**5)
    np.savez_compressed(tmp_path / "bomb.npz", centres=np.zeros((1000, 1000)))
    np.savez(tmp_path / "plain.npz", centres=np.zeros((1000, 100)))
    with pytest.raises(ValueError, match=r"bomb\.npz is damaged, or not a plain array file"):
        files.read_arrays(tmp_path / "bomb.npz")
    assert files.read_arrays(tmp_path / "plain.npz")["centres"].shape == (1000, 100)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "map.npz")
    with pytest.raises(ValueError, match=r"map\.npz is no regular file"):
        RegionMap.load(tmp_path / "map.npz")


@given(strategies.instances(max_points=8, max_dimension=3), st.integers(0, 2**32 - 1))
def test_nobody_within_the_clearance_is_held_by_the_level(instance, seed):
    points, radii = instance
    if not len(radii):
        return
    rng = np.random.default_rng(seed)
    levels = np.array([0.1, 0.2, 0.3, 0.4])
    sigma = rng.choice(levels[:3], len(radii))  # no region has the last
    queries = np.concatenate([points, points + rng.normal(size=points.shape) * (radii.max() + 1e-3)])
    reach = rng.choice([0.0, 0.5, 3.0], len(queries)) * (radii.max() + np.ptp(points) + 1e-3)
    found = RegionMap(points, radii, sigma).surroundings(queries, levels, reach)
    for x, row, depth, far in zip(queries, found.clearance, found.exit, reach, strict=True):
        distance = [oracles.squared_distance(x, centre) for centre in points]
        deepest = 0.0
        for k, clear in enumerate(row.tolist()):
            assert 0 <= clear <= far
            nearest = np.inf
            for i in np.flatnonzero((sigma == levels[k]) & (radii > 0)):
                # exact: no point of the ball lies nearer than `clear`
                apart = oracles.Fraction(float(radii[i])) + oracles.Fraction(clear)
                assert clear == 0 or distance[i] >= apart**2
                nearest = min(nearest, max(0.0, float(distance[i]) ** 0.5 - radii[i]))
                deepest = max(deepest, radii[i] - float(distance[i]) ** 0.5)
            size = max(1.0, radii.max(), np.abs(points).max(), np.abs(x).max())
            assert clear == pytest.approx(min(far, nearest), abs=1e-12 * size)  # and nothing is given away
        assert depth == pytest.approx(max(0.0, deepest), abs=1e-12 * size)
        assert any(
            depth == 0 or distance[i] <= (oracles.Fraction(float(radii[i])) - oracles.Fraction(float(depth))) ** 2
            for i in range(len(radii))
            if radii[i] >= depth
        )


@pytest.mark.parametrize("far", [1e3, 1e12, 1e16, 1e25, 1e140])
def test_clearance_of_points_far_away(far):
    # float32 holds none of these: the balls are 1 wide, and the point is `far` away from them
    table = RegionMap([[0.0, 0.0], [5.0, 0.0]], [1.0, 1.0], [0.25, 0.5])
    found = table.surroundings([[far, 0.0]] * 3, [0.25, 0.5], [0.0, far - 4.5, 2 * far])
    np.testing.assert_array_equal(found.clearance[0], 0)
    np.testing.assert_allclose(found.clearance[1], [far - 4.5, min(far - 4.5, far - 6)], rtol=1e-12)
    np.testing.assert_allclose(found.clearance[2], [far - 1, far - 6], rtol=1e-12)
    assert (found.clearance[2] <= [far - 1, far - 6]).all()
    np.testing.assert_array_equal(found.exit, 0)


def test_clearance_without_regions_and_of_no_points():
    table = RegionMap([[0.0]], [0.0], [np.nan])
    np.testing.assert_array_equal(table.surroundings([[1.0]], [0.5], [3.0]).clearance, [[3.0]])
    assert table.surroundings(np.zeros((0, 1)), [0.5], []).clearance.shape == (0, 1)


def test_clearance_of_levels_that_do_not_fit(region_map):
    with pytest.raises(ValueError, match="levels must increase, and regions have no other noise levels"):
        region_map.surroundings(region_map.centres, [0.25, 0.5], np.ones(300))
    with pytest.raises(ValueError, match="levels must increase"):
        region_map.surroundings(region_map.centres, [0.5, 0.25, 1.0], np.ones(300))
    with pytest.raises(ValueError, match="reach"):
        region_map.surroundings(region_map.centres, [0.25, 0.5, 1.0], np.full(300, -1.0))
    with pytest.raises(ValueError, match="3 coordinates: this map's regions have 5"):
        region_map.surroundings(np.zeros((1, 3)), [0.25, 0.5, 1.0], [1.0])
