"""Maps whose centres are kept as they are, in bytes and divided: the answers are those of the exact coordinates."""

import hashlib
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions import RegionMap, _validate, allocate, overlap_graph
from regions._arithmetic import scaled
from regions._search import pairs

DTYPES = (np.uint8, np.float32, np.float64)


def squared(x, centre, divisor):
    """The squared distance between x and centre / divisor, exactly."""
    return sum(
        ((Fraction(float(p)) - Fraction(float(q)) / divisor) ** 2 for p, q in zip(x, centre, strict=True)), Fraction()
    )


def mapped(folder, values):
    """The same values as a read-only memory map."""
    np.save(folder / "centres.npy", values)
    return np.load(folder / "centres.npy", mmap_mode="r")


@st.composite
def divided(draw):
    """(centres, radii, divisor, queries): bytes or other numbers, and queries on boundaries, up to one rounding."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    divisor = draw(st.sampled_from([1, 3, 4, 255, 2**24 - 1, 2**24]))
    centres = rng.integers(256 if draw(st.booleans()) else 4, size=(n, d)).astype(draw(st.sampled_from(DTYPES)))
    if centres.dtype != np.uint8 and draw(st.booleans()):
        centres = rng.normal(scale=100, size=(n, d)).astype(centres.dtype)
    scale = draw(st.sampled_from([0.5, 20.0, 300.0])) / divisor
    on_lattice = draw(st.booleans())
    radii = (rng.integers(1, 5, size=n) / divisor) if on_lattice else rng.exponential(scale, size=n)
    radii[rng.random(n) < 0.2] = 0
    queries = rng.normal(size=(8, d)) * scale + centres[rng.integers(n, size=8)] / divisor
    step = np.zeros((n, d))
    step[:, 0] = radii
    queries = np.concatenate([queries, centres / divisor, centres / divisor + step, centres / divisor - step])
    queries = queries.astype(draw(st.sampled_from([np.float64, np.float32])))
    if draw(st.booleans()):  # radii that are the distances to queries, rounded up or down: ties, but for one rounding
        radii = np.array([float(squared(queries[0], centre, divisor)) ** 0.5 for centre in centres])
        radii = np.maximum(np.nextafter(radii, rng.choice([0.0, np.inf], size=n)), 0.0)
    return centres, radii, divisor, queries


@given(divided())
def test_locate_is_exact(instance):
    centres, radii, divisor, queries = instance
    where = RegionMap(centres, radii, np.ones(len(radii)), divisor=divisor).locate(queries)
    for x, region, margin in zip(queries, where.region, where.margin, strict=True):
        apart = [squared(x, centre, divisor) for centre in centres]
        inside = [k for k in range(len(radii)) if apart[k] < Fraction(float(radii[k])) ** 2]
        assert region == (inside[0] if inside else -1)
        if not inside:
            assert margin == 0
            continue
        assert margin >= 0
        assert apart[region] <= (Fraction(float(radii[region])) - Fraction(float(margin))) ** 2
        size = float(max(1.0, np.abs(x).max()))
        assert margin >= radii[region] - float(apart[region]) ** 0.5 - 1e-12 * size


@given(divided(), st.integers(0, 2**32 - 1))
def test_surroundings_are_on_the_safe_side(instance, seed):
    centres, radii, divisor, queries = instance
    rng = np.random.default_rng(seed)
    levels = np.array([0.1, 0.2, 0.3])
    sigma = rng.choice(levels, len(radii))
    table = RegionMap(centres, radii, sigma, divisor=divisor)
    reach = rng.choice([0.0, 0.5, 3.0], len(queries)) * (radii.max() + 1.0 / divisor)
    found = table.surroundings(queries, levels, reach)
    where = table.locate(queries)
    same = table.same_sigma(queries, where)
    for j, x in enumerate(queries):
        apart = [squared(x, centre, divisor) for centre in centres]
        size = float(max(1.0, radii.max(), np.abs(x).max(), np.abs(centres).max() / divisor))
        for k, clear in enumerate(found.clearance[j].tolist()):
            balls = np.flatnonzero((sigma == levels[k]) & (radii > 0))
            assert 0 <= clear <= reach[j]
            for i in balls:  # exact: no point of the ball lies nearer than `clear`
                assert clear == 0 or apart[i] >= (Fraction(float(radii[i])) + Fraction(clear)) ** 2
            nearest = min((max(0.0, float(apart[i]) ** 0.5 - radii[i]) for i in balls), default=np.inf)
            assert clear == pytest.approx(min(reach[j], nearest), abs=1e-12 * size)
        depth = Fraction(float(found.exit[j]))
        assert not depth or any(
            radii[i] >= depth and apart[i] <= (Fraction(float(radii[i])) - depth) ** 2 for i in range(len(radii))
        )
        own = where.region[j]
        for i in range(own):  # exact: regions that decide before the point's own, at another sigma
            if radii[i] > 0 and sigma[i] != sigma[own] and same[j] > 0:
                assert apart[i] >= (Fraction(float(radii[i])) + Fraction(float(same[j]))) ** 2
        assert 0 <= same[j] <= where.margin[j]


@given(divided())
def test_overlaps_are_exact(instance):
    centres, radii, divisor, _ = instance
    found = RegionMap(centres, radii, np.ones(len(radii)), divisor=divisor).first_overlap()
    overlaps = {
        (i, j)
        for j in range(len(radii))
        for i in range(j)
        if radii[i] and radii[j]
        and squared(centres[i], centres[j], 1) < (Fraction(radii[i]) + Fraction(radii[j])) ** 2 * divisor**2
    }  # fmt: skip
    assert found in overlaps if overlaps else found is None


@pytest.mark.parametrize("up", [False, True])
def test_touching_regions_of_which_rounding_makes_overlapping_ones(up):
    # 1/3 is rounded down and 2/3 is rounded down: the sum of radii is less than 1 = the distance of 0 / 3 and 3 / 3
    radii = np.array([1 / 3, np.nextafter(2 / 3, 1.0) if up else 2 / 3])
    assert (Fraction(radii[0]) + Fraction(radii[1]) > 1) == up
    table = RegionMap(np.array([[0], [3]], dtype=np.uint8), radii, [0.5, 0.5], divisor=3)
    assert table.first_overlap() == ((0, 1) if up else None)
    # a product of 3 and either radius is rounded to a whole number
    assert (radii[0] * 3, radii[1] * 3) == (1.0, 2.0) or up


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("divisor", [1, 256])
@pytest.mark.parametrize("projected", [False, True])
def test_the_answers_are_those_of_the_divided_centres(rng, tmp_path, monkeypatch, dtype, divisor, projected):
    # 256 divides without rounding
    pixels = rng.integers(256, size=(300, 40), dtype=np.uint8)
    pixels[150:] = pixels[:150] ^ rng.integers(8, size=(150, 40), dtype=np.uint8)
    coordinates = pixels / divisor
    radii = allocate(coordinates, rng.uniform(1, 30, size=300) / divisor).radii
    sigma = rng.choice([0.25, 0.5], 300)
    queries = coordinates + rng.normal(size=coordinates.shape) / divisor
    queries[::2] = (coordinates + rng.normal(size=coordinates.shape) * 5 / divisor)[::2]
    reference = RegionMap(coordinates, radii, sigma)
    expected = reference.locate(queries)
    assert 50 < expected.held.sum() < 290
    if projected:
        monkeypatch.setattr(pairs, "_HELD", 0)
    for centres in (pixels.astype(dtype), mapped(tmp_path, pixels.astype(dtype))):
        table = RegionMap(centres, radii, sigma, divisor=divisor)
        where = table.locate(queries)
        assert (table._index._frame.basis is not None) == projected
        np.testing.assert_array_equal(where.region, expected.region)
        np.testing.assert_allclose(where.margin, expected.margin, rtol=1e-9, atol=1e-12)
        around = table.surroundings(queries, [0.25, 0.5], np.full(300, 20.0 / divisor))
        other = reference.surroundings(queries, [0.25, 0.5], np.full(300, 20.0 / divisor))
        np.testing.assert_allclose(around.clearance, other.clearance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(around.exit, other.exit, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            table.same_sigma(queries, where), reference.same_sigma(queries, expected), rtol=1e-9, atol=1e-12
        )
        assert table.first_overlap() is None
        assert RegionMap(centres, radii * 1.01, sigma, divisor=divisor).first_overlap() is not None


def test_blocks_of_queries_do_not_change_the_answers(rng, monkeypatch):
    pixels = rng.integers(256, size=(50, 12), dtype=np.uint8)
    table = RegionMap(pixels, np.full(50, 0.3), rng.choice([0.25, 0.5], 50), divisor=255)
    queries = pixels[rng.integers(50, size=70)] / 255 + rng.normal(scale=0.08, size=(70, 12))
    answers = []
    for coordinates in (1 << 22, 24):
        monkeypatch.setattr(scaled, "_COORDINATES", coordinates)
        where, around = table.locate(queries), table.surroundings(queries, [0.25, 0.5], np.full(70, 0.2))
        answers.append([where.region, where.margin, around.clearance, around.exit, table.same_sigma(queries, where)])
    for first, second in zip(*answers, strict=True):
        np.testing.assert_array_equal(first, second)
    assert 5 < where.held.sum() < 65


def test_products_are_exact(rng):
    values = np.ldexp(rng.random(2000), rng.integers(-1100, 400, size=2000))  # subnormal ones among them
    for divisor in (1, 3, 255, 2**24 - 1, 2**24):
        a, b = scaled.multiples(values, divisor)
        for value, p, q in zip(values.tolist(), a.tolist(), b.tolist(), strict=True):
            assert Fraction(value) * divisor == Fraction(p) + Fraction(q)


def test_products_and_quotients_are_rounded_in_the_safe_direction(rng):
    values = np.append(np.ldexp(rng.random(2000), rng.integers(-1074, 400, size=2000)), [0.0, 5e-324])
    for divisor in (3, 255, 2**24 - 1):
        below, above = scaled.multiples_below(values, divisor), scaled.multiples_above(values, divisor)
        quotient = scaled.divided_below(values, divisor)
        for value, low, high, part in zip(*(x.tolist() for x in (values, below, above, quotient)), strict=True):
            assert Fraction(low) <= Fraction(value) * divisor <= Fraction(high)
            assert Fraction(part) <= Fraction(value) / divisor
            assert (low, high, part) == pytest.approx((value * divisor, value * divisor, value / divisor), rel=1e-15)
        assert above[-2] == 0  # an empty region stays empty


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_read_only_map_is_not_copied(rng, tmp_path, dtype):
    values = rng.integers(256, size=(60, 2, 8)).astype(dtype)
    on_disk = mapped(tmp_path, values)
    values.flags.writeable = False
    for array in (on_disk, values):
        table = RegionMap(array, np.ones(60), np.ones(60), divisor=255)
        assert np.shares_memory(table.centres, array)
        assert table.centres.dtype == dtype
        assert table.centres.shape == (60, 16)
        assert not table.centres.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            table.centres[0, 0] = 1


def test_what_can_be_written_to_is_copied(rng, tmp_path):
    values = rng.integers(1, 256, size=(5, 4), dtype=np.uint8)
    view = values.view()
    view.flags.writeable = False  # but not the array it looks at
    foreign = np.frombuffer(memoryview(bytearray(values)).toreadonly(), dtype=np.uint8).reshape(5, 4)
    np.save(tmp_path / "written.npy", values)
    for array in (values, view, np.load(tmp_path / "written.npy", mmap_mode="r+")):
        table = RegionMap(array, np.ones(5), np.ones(5), divisor=255)
        assert table.centres.dtype == np.uint8
        assert not np.shares_memory(table.centres, array)
        before = table.content_hash
        (values if array is view else array)[:] ^= 1
        assert RegionMap(table.centres, table.radii, table.sigma, divisor=255).content_hash == before
    assert np.shares_memory(RegionMap(foreign, np.ones(5), np.ones(5)).centres, foreign)  # it says nobody writes


def test_memory_does_not_grow_with_the_map(rng, tmp_path):
    # NumPy reports its arrays to tracemalloc; it writes files through a buffer of 16 MiB
    n, d = 20_000, 2_000
    centres = mapped(tmp_path, rng.integers(256, size=(n, d), dtype=np.uint8))
    tracemalloc.start()
    table = RegionMap(centres, np.zeros(n), np.ones(n), divisor=255)
    assert len(table.content_hash) == 64
    table.save(tmp_path / "map.npz")
    loaded = RegionMap.load(tmp_path / "map.npz", mmap_mode="r")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert loaded.content_hash == table.content_hash
    assert peak < n * d / 2


def test_lookups_do_not_hold_all_coordinates(rng, tmp_path, monkeypatch):
    n, d = 3000, 4000
    centres = rng.integers(100, 110, size=(n, d), dtype=np.uint8)
    centres += (
        (10 * rng.standard_normal((n, 8)) @ rng.standard_normal((8, d))).clip(-100, 100).astype(np.int8).view("u1")
    )
    table = RegionMap(mapped(tmp_path, centres), np.full(n, 0.2), np.ones(n), divisor=255)
    queries = centres[::100] / 255 + rng.normal(scale=0.15 / d**0.5, size=(30, d))
    expected = np.arange(n)[::100]
    table.locate(queries)  # compiles
    monkeypatch.setattr(pairs, "_HELD", 1 << 20)
    monkeypatch.setattr(pairs, "SAMPLE", 64)
    fresh = RegionMap(table.centres, table.radii, table.sigma, divisor=255)
    tracemalloc.start()
    where = fresh.locate(queries)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(where.region, expected)
    assert peak < n * d  # the mapped balls alone would take four times as much in float32


@pytest.mark.parametrize("n", [1, 5, 40])
def test_few_centres_of_many_coordinates_are_projected(rng, monkeypatch, n):
    monkeypatch.setattr(pairs, "_HELD", 0)
    centres = rng.integers(256, size=(n, 50), dtype=np.uint8)
    centres[n // 2 :] = centres[0]  # copies: fewer directions than a projection has
    table = RegionMap(centres, np.full(n, 0.5), np.ones(n), divisor=255)
    where = table.locate(np.concatenate([centres / 255, centres / 255 + 1.0]))
    first = [int(np.flatnonzero((centres == centre).all(axis=1))[0]) for centre in centres]
    assert where.region.tolist() == first + [-1] * n


class TestFiles:
    @pytest.fixture
    def table(self, rng):
        centres = rng.integers(256, size=(40, 9), dtype=np.uint8)
        return RegionMap(centres, rng.random(40), np.ones(40), classes=rng.integers(5, size=40), divisor=255)

    @pytest.mark.parametrize("mmap_mode", [None, "r"])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("divisor", [1, 255])
    def test_a_round_trip_keeps_everything(self, tmp_path, table, mmap_mode, dtype, divisor):
        table = RegionMap(table.centres.astype(dtype), table.radii, table.sigma, divisor=divisor)
        table.save(tmp_path / "map.npz")
        loaded = RegionMap.load(tmp_path / "map.npz", mmap_mode=mmap_mode)
        assert loaded.centres.dtype == dtype
        assert loaded.divisor == divisor
        assert type(loaded.divisor) is int
        assert loaded.content_hash == table.content_hash
        queries = table.centres[::3] / divisor
        assert loaded.locate(queries) == table.locate(queries)
        assert loaded.locate(queries).held.any()

    def test_mapped_centres_stay_in_the_file(self, tmp_path, table):
        table.save(tmp_path / "map.npz")
        memory = RegionMap.load(tmp_path / "map.npz", mmap_mode="r").centres
        while isinstance(memory, np.ndarray):
            is_map = isinstance(memory, np.memmap)
            memory = memory.base
        assert is_map

    def test_an_empty_map(self, tmp_path):
        RegionMap(np.zeros((0, 3), np.uint8), [], [], divisor=255).save(tmp_path / "map.npz")
        assert RegionMap.load(tmp_path / "map.npz", mmap_mode="r").centres.shape == (0, 3)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_hash_and_file_of_a_float_map_are_those_of_earlier_versions(self, rng, tmp_path, dtype):
        centres, radii, sigma = rng.random((6, 3)).astype(dtype), rng.random(6), np.ones(6)
        digest = hashlib.sha256(b"srs-region-map-1")  # what the first version hashed, and wrote
        for array in (centres.astype(np.float64), radii, sigma):
            digest.update(str(array.shape).encode() + array.astype("<f8").tobytes())
        digest.update(b"none")
        table = RegionMap(centres, radii, sigma)
        assert table.content_hash == digest.hexdigest()
        np.savez(
            tmp_path / "old.npz",
            format=np.array("srs-region-map-1"),
            content_hash=np.array(digest.hexdigest()),
            centres=centres.astype(np.float64),
            radii=radii,
            sigma=sigma,
        )
        table.save(tmp_path / "new.npz")
        for mmap_mode in (None, "r"):
            old = RegionMap.load(tmp_path / "old.npz", mmap_mode=mmap_mode)
            np.testing.assert_array_equal(old.centres, centres)
            assert old.divisor == 1
        with np.load(tmp_path / "old.npz") as before, np.load(tmp_path / "new.npz") as after:
            assert before.files == after.files
            assert str(after["format"]) == "srs-region-map-1"

    def test_the_hash_sees_divisor_and_dtype(self, table):
        arrays = table.radii, table.sigma
        tables = [
            RegionMap(table.centres.astype(dtype), *arrays, divisor=divisor)
            for dtype, divisor in [(np.uint8, 1), (np.uint8, 255), (np.uint8, 254), (np.float64, 255), (np.float64, 1)]
        ]
        assert len({one.content_hash for one in tables}) == 5
        assert RegionMap(table.centres.astype(np.float32), *arrays, divisor=255).content_hash == tables[3].content_hash

    @pytest.mark.parametrize("mmap_mode", [None, "r"])
    @pytest.mark.parametrize("seed", range(40))
    def test_any_altered_byte_is_noticed(self, tmp_path, table, seed, mmap_mode):
        path = tmp_path / "map.npz"
        table.save(path)
        data = bytearray(path.read_bytes())
        data[np.random.default_rng(seed).integers(len(data))] ^= 0xFF
        path.write_bytes(data)
        try:
            assert RegionMap.load(path, mmap_mode=mmap_mode).content_hash == table.content_hash
            return  # a byte of a date, or the like
        except ValueError as caught:
            complaint = str(caught)
        assert "map.npz" in complaint
        assert "\n" not in complaint

    @pytest.mark.parametrize("mmap_mode", [None, "r"])
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"divisor": np.array(0)}, "divisor = 0: expected an integer from 1"),
            ({"divisor": np.array(254)}, "content hash differs"),
            ({"divisor": np.array(255.0)}, r"divisor = 255\.0: expected an integer"),
            ({"divisor": np.array([255, 255])}, "divisor = .*expected an integer"),
            ({"divisor": np.array("255")}, "divisor = '255': expected an integer"),
            ({"format": np.array("srs-region-map-1")}, "content hash differs"),
            ({"format": np.array("srs-region-map-3")}, "is not a region map of format"),
            ({"centres": np.zeros((40, 9))}, "content hash differs"),
            ({"centres": np.zeros(40, np.uint8)}, "expected"),
            ({"radii": np.ones(3)}, "expected"),
            ({"centres": np.zeros((9, 40), np.uint8).T}, "is damaged|content hash differs"),
        ],
    )
    def test_forged_arrays(self, tmp_path, table, change, message, mmap_mode):
        path = tmp_path / "map.npz"
        table.save(path)
        with np.load(path) as stored:
            np.savez(path, **{**stored, **change})
        with pytest.raises(ValueError, match=message) as caught:
            RegionMap.load(path, mmap_mode=mmap_mode)
        assert "map.npz" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_compressed_centres_are_not_mapped(self, tmp_path, table):
        path = tmp_path / "map.npz"
        table.save(path)
        with np.load(path) as stored:
            np.savez_compressed(path, **stored)
        assert RegionMap.load(path).content_hash == table.content_hash
        with pytest.raises(ValueError, match=r"map\.npz is damaged, or not a plain array file, or compressed"):
            RegionMap.load(path, mmap_mode="r")

    @pytest.mark.parametrize("shape", ["(9999999999999999999, 9)", "(-40, -9)", "(40, 8)", "(40, 10)"])
    def test_a_header_that_lies_about_the_shape(self, tmp_path, table, shape):
        path = tmp_path / "map.npz"
        table.save(path)
        data = path.read_bytes()
        at = data.index(b"'shape': (40, 9), ")
        forged = f"'shape': {shape}, ".encode()
        spare = len(forged) - len(b"'shape': (40, 9), ")
        end = data.index(b"\n", at)
        header = data[at:end].replace(b"'shape': (40, 9), ", forged)
        header = header[: len(header) - spare] if spare > 0 else header + b" " * -spare
        path.write_bytes(data[:at] + header + data[end:])
        with pytest.raises(ValueError, match=r"map\.npz is damaged, or not a plain array file"):
            RegionMap.load(path, mmap_mode="r")

    def test_a_mode_that_writes_is_refused(self, tmp_path, table):
        table.save(tmp_path / "map.npz")
        with pytest.raises(ValueError, match=r"mmap_mode = 'r\+': choose 'r' or None"):
            RegionMap.load(tmp_path / "map.npz", mmap_mode="r+")


class TestBadInput:
    @pytest.mark.parametrize("divisor", [0, -1, 2**24 + 1, True])
    def test_divisors(self, divisor):
        with pytest.raises(ValueError, match=r"divisor = .*: expected an integer from 1 to 16777216"):
            RegionMap([[0.0]], [1.0], [1.0], divisor=divisor)

    @pytest.mark.parametrize("divisor", [2.5, 255.0, "255", None, np.array([255])])
    def test_divisors_of_other_types(self, divisor):
        with pytest.raises(ValueError, match=r"divisor = .*: expected an integer from 1 to 16777216"):
            _validate.as_divisor(divisor)

    def test_bytes_are_not_looked_up_in_another_unit(self):
        table = RegionMap(np.zeros((1, 2), np.uint8), [1.0], [1.0], divisor=255)
        with pytest.raises(ValueError, match="points are uint8, in another unit than regions: give points / 255"):
            table.locate(np.zeros((1, 2), np.uint8))

    def test_numbers_whose_products_would_overflow(self):
        table = RegionMap(np.zeros((1, 1), np.uint8), [1.0], [1.0], divisor=2**24)
        with pytest.raises(ValueError, match=r"coordinates must not exceed 5\.96046e\+142"):
            table.locate([[1e143]])
        with pytest.raises(ValueError, match=r"radii must not exceed 5\.96046e\+142"):
            RegionMap(np.zeros((1, 1), np.uint8), [1e143], [1.0], divisor=2**24)
        assert table.locate([[5.9e142]]).region.tolist() == [-1]


def test_repr_names_the_divisor():
    table = RegionMap(np.zeros((1, 2), np.uint8), [1.0], [1.0], divisor=255)
    assert repr(table).startswith("RegionMap(n=1, d=2, divisor=255, non-empty=1, hash=")
    assert overlap_graph(table.centres, table.radii).n_edges == 0
