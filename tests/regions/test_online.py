"""OnlineAllocator against Algorithm 2 in exact arithmetic, step by step."""

import math
import pickle
import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions import OnlineAllocator, PointHeld, RegionMap, allocate, verify
from tests import oracles, strategies

SIGMAS = (0.25, 0.5, 1.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "regions.db"


def holders(x, centres, radii):
    """Indices of the open balls that hold x, exactly."""
    return [k for k, c in enumerate(centres) if oracles.squared_distance(x, c) < Fraction(float(radii[k])) ** 2]


def check_step(before, x, sigma, R, arrival, groups):
    """`arrival` is what Algorithm 2 gives x among the regions of the map `before`: never more, hardly less."""
    held = holders(x, before.centres, before.radii)
    conflicting = [k for k in range(len(before)) if groups == "none" or before.sigma[k] != sigma]
    distance = [math.sqrt(oracles.squared_distance(x, c)) for c in before.centres]
    slack = 1e-12 * (R + max(distance, default=0.0) + before.radii.max(initial=0.0))
    inherited = min(R, max((before.radii[k] - distance[k] for k in held), default=0.0))
    room = max(0.0, min([R, *(distance[k] - before.radii[k] for k in conflicting)]))
    assert arrival.sigma == sigma
    assert 0 <= arrival.radius <= R
    if arrival.created:
        assert arrival.region == len(before)
        assert groups == "sigma" or not held
        assert arrival.radius == pytest.approx(room, abs=slack)
        assert arrival.radius > 0
        for k in conflicting:  # disjoint, exactly
            reach = Fraction(arrival.radius) + Fraction(float(before.radii[k]))
            assert reach**2 <= oracles.squared_distance(x, before.centres[k])
    else:
        assert arrival.radius == pytest.approx(inherited, abs=slack)
        assert held or (arrival.region, arrival.radius) == (-1, 0.0)
        assert held or room <= slack
        if held:  # the ball lies in the region, exactly
            assert arrival.region in held
            left = Fraction(float(before.radii[arrival.region])) - Fraction(arrival.radius)
            assert left >= 0
            assert oracles.squared_distance(x, before.centres[arrival.region]) <= left**2
        if groups == "sigma":
            assert room <= inherited + slack


@settings(max_examples=60)
@given(
    strategies.instances(max_points=9, max_dimension=3), st.sampled_from(["none", "sigma"]), st.integers(0, 2**32 - 1)
)
def test_every_step_is_algorithm_2(tmp_path_factory, instance, groups, seed):
    points, R = instance
    if not len(R):
        return
    sigma = np.random.default_rng(seed).choice(SIGMAS, size=len(R))
    file = tmp_path_factory.mktemp("online") / "regions.db"
    with OnlineAllocator(file, points.shape[1], groups=groups, synchronous="normal") as online:
        for x, own, bound in zip(points, sigma, R, strict=True):
            before = online.region_map()
            asked = []

            def certify(required, own=own, bound=bound, asked=asked):
                asked.append(required)
                return (own if required is None else required), bound, 3

            arrival = online.arrive(x, certify)
            held = holders(x, before.centres, before.radii)
            assert asked == [before.sigma[held[0]] if held else None]
            check_step(before, x, own if asked == [None] else asked[0], bound, arrival, groups)
        after = online.region_map()
    labels = after.sigma if groups == "sigma" else None
    assert verify(after.centres, after.radii, groups=labels)
    assert not oracles.overlaps(after.centres, after.radii, [] if labels is None else [labels])


@pytest.mark.parametrize("groups", ["none", "sigma"])
def test_the_same_as_greedy_in_order_of_arrival(path, rng, groups):
    points, R, sigma = rng.random((300, 3)), rng.random(300) * 0.3, rng.choice(SIGMAS, size=300)
    expected = allocate(points, R, "greedy", order="arrival", groups=sigma if groups == "sigma" else None).radii
    got = np.zeros(300)
    with OnlineAllocator(path, 3, groups=groups, synchronous="normal") as online:
        for k in range(300):
            try:
                arrival = online.insert(points[k], sigma[k], R[k])
            except PointHeld:
                continue  # greedy leaves such a point nothing
            if arrival.created:
                got[k] = arrival.radius
            else:  # a ball inside one of its own sigma
                assert arrival.radius >= expected[k] * (1 - 1e-12)
                got[k] = expected[k]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert (expected > 0).sum() > 100


def test_two_phases(path):
    with OnlineAllocator(path, 2) as online:
        place = online.locate([0.0, 0.0])
        assert (place.held, place.region, place.margin) == (False, -1, 0.0)
        assert math.isnan(place.sigma)
        first = online.insert([0.0, 0.0], 0.5, 2.0, class_=7)
        assert (first.region, first.sigma, first.radius, first.class_, first.created) == (0, 0.5, 2.0, 7, True)
        place = online.locate([1.5, 0.0])
        assert (place.held, place.region, place.sigma) == (True, 0, 0.5)
        assert place.margin == pytest.approx(0.5)
        assert place.margin <= 0.5
        inside = online.insert([1.5, 0.0], 0.5, 0.1)
        assert (inside.region, inside.radius, inside.created) == (0, 0.1, False)
        beside = online.insert([3.0, 0.0], 0.25, 5.0)
        assert (beside.region, beside.created) == (1, True)
        assert beside.radius == pytest.approx(1.0)
        assert len(online) == 2
        assert not online.locate([2.0, 0.0]).held  # on both boundaries


def test_a_region_of_another_sigma_is_not_passed_over(path):
    with OnlineAllocator(path, 1) as online:
        online.insert([0.0], 0.5, 2.0)
        with pytest.raises(PointHeld, match=r"region 0 of sigma = 0.5 holds this point: certify it at that") as caught:
            online.insert([1.0], 0.25, 0.1)
        assert caught.value.place == online.locate([1.0])
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.place) == (str(caught.value), caught.value.place)
        assert len(online) == 1


def test_a_region_that_appears_between_look_and_insertion(path):
    with OnlineAllocator(path, 1) as online, OnlineAllocator(path) as other:
        asked = []

        def certify(sigma):
            asked.append(sigma)
            if len(asked) == 1:
                other.insert([0.5], 0.25, 1.0)
            return sigma or 0.5, 3.0, 1

        arrival = online.arrive([0.0], certify)
        assert asked == [None, 0.25]
        assert (arrival.region, arrival.sigma, arrival.created) == (0, 0.25, False)
        assert arrival.radius == pytest.approx(0.5)
        other.insert([10.0], 1.0, 2.0)
        assert online.insert([13.0], 0.5, 9.0).radius == pytest.approx(1.0)


@pytest.mark.parametrize("groups", ["none", "sigma"])
def test_a_region_of_the_same_sigma_that_appears_meanwhile(path, groups):
    with OnlineAllocator(path, 1, groups=groups) as online, OnlineAllocator(path) as other:

        def certify(sigma):
            assert sigma is None
            other.insert([0.5], 0.5, 1.0)
            return 0.5, 3.0, 1

        arrival = online.arrive([0.0], certify)
        assert arrival.created == (groups == "sigma")
        assert arrival.radius == pytest.approx(3.0 if groups == "sigma" else 0.5)


def test_the_required_sigma_must_be_used(path):
    with OnlineAllocator(path, 1) as online:
        online.insert([0.0], 0.5, 2.0)
        with pytest.raises(ValueError, match=r"certify returned sigma = 0.25 for a point in a region of sigma = 0.5"):
            online.arrive([1.0], lambda sigma: (0.25, 1.0, 0))


def test_empty_regions_constrain_nobody(path):
    with OnlineAllocator(path, 1) as online:
        abstained = online.insert([0.0], 0.5, 0.0)
        assert (abstained.region, abstained.radius, abstained.created) == (-1, 0.0, False)
        assert online.insert([0.5], 0.25, 3.0).radius == 3.0
        touching = online.insert([3.5], 0.5, 1.0)  # on the boundary: outside, and nothing is left
        assert (touching.region, touching.radius, touching.created) == (-1, 0.0, False)
        assert len(online) == 1


def test_overlapping_regions_of_one_sigma(path):
    with OnlineAllocator(path, 1, groups="sigma") as online:
        online.insert([0.0], 0.5, 2.0)
        assert online.insert([1.0], 0.5, 0.5).created is False  # inside: nothing to add
        assert online.insert([1.0], 0.5, 3.0).radius == 3.0  # reaches from -2 to 4
        assert online.locate([1.5]).region == 1  # its boundary is farther away
        assert online.locate([-1.0]).region == 0
        assert online.insert([5.0], 0.25, 9.0).radius == pytest.approx(1.0)
        assert online.region_map().locate([[1.5]]).sigma == [0.5]


@pytest.mark.parametrize("groups", ["none", "sigma"])
def test_the_map_agrees_with_locate(path, rng, groups):
    with OnlineAllocator(path, 4, groups=groups, synchronous="normal") as online:
        for x in rng.random((200, 4)):
            online.arrive(x, lambda sigma: (sigma or float(rng.choice(SIGMAS)), float(rng.random() * 0.4), 0))
        table = online.region_map()
        queries = rng.random((200, 4))
        where = table.locate(queries)
        for k, query in enumerate(queries):
            place = online.locate(query)
            assert place.held == (where.region[k] >= 0)
            assert place.margin >= where.margin[k]
            np.testing.assert_equal(place.sigma, where.sigma[k])
            if groups == "none":
                assert (place.region, place.margin) == (where.region[k], where.margin[k])
    assert (where.region >= 0).sum() > 20


def test_everything_is_there_again_bit_for_bit(path, rng):
    points = np.concatenate([rng.normal(size=(50, 3)) * 1e3, [[-0.0, 5e-324, 1e150]]])
    with OnlineAllocator(path, 3) as online:
        for k, x in enumerate(points):
            online.insert(x, 0.1 * (1 + k % 3), rng.random() * 0.7, class_=k - 2)
        table, digest = online.region_map(), online.content_hash
    with OnlineAllocator(path) as again:
        assert again.content_hash == digest
        assert again.region_map().content_hash == table.content_hash
        assert (again.dimension, again.groups, len(again)) == (3, "none", len(table))
        for k, region in enumerate(again):
            assert region.index == k
            assert region.centre.tobytes() == table.centres[k].tobytes()
            assert (region.radius, region.sigma) == (table.radii[k], table.sigma[k])
            assert region.class_ == table.classes[k]
        assert again[-1].class_ == 48
        with pytest.raises(IndexError, match=f"region {len(table)} of {len(table)}"):
            again[len(table)]
    np.testing.assert_array_equal(table.centres[-1], points[-1])
    assert [file.name for file in path.parent.iterdir()] == ["regions.db"]


def test_the_hash_depends_on_order_and_settings(tmp_path):
    def digest(name, points, dimension=1, **options):
        with OnlineAllocator(tmp_path / name, dimension, **options) as online:
            for x in points:
                online.insert(x, 0.5, 0.25)
            return online.content_hash

    same = [digest(name, [[0.0], [1.0]]) for name in ("a", "b")]
    assert same[0] == same[1]
    others = [digest("c", [[1.0], [0.0]]), digest("d", [[0.0]]), digest("e", []), digest("f", [], 2)]
    assert len({same[0], *others, digest("g", [], groups="sigma")}) == 6


def test_images_of_any_type(path):
    with OnlineAllocator(path, 4) as online:
        image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
        online.insert(image, np.float32(0.5), np.float64(1.0), class_=np.int64(3))
        assert online.locate(image.astype(np.float32)).held
        assert online[0].centre.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_read_only(path):
    with OnlineAllocator(path, 1) as writer:
        writer.insert([0.0], 0.5, 1.0)
        with OnlineAllocator(path, read_only=True) as reader:
            writer.insert([5.0], 0.25, 1.0)
            assert reader.locate([5.5]).sigma == 0.25
            assert reader.insert([5.5], 0.25, 0.25).radius == 0.25  # stores nothing
            with pytest.raises(PermissionError, match=r"was opened with read_only=True: open it without to insert"):
                reader.insert([9.0], 0.25, 1.0)
            assert isinstance(reader.region_map(), RegionMap)
            assert len(reader) == 2


def test_threads_share_one_allocator(path, rng):
    points = rng.random((80, 2))
    with OnlineAllocator(path, 2, synchronous="normal") as online:

        def work(part):
            for x in part:
                online.arrive(x, lambda sigma: (sigma or 0.5, 0.2, 0))

        threads = [threading.Thread(target=work, args=(points[k::4],)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        table = online.region_map()
    assert len(table) > 5
    assert verify(table.centres, table.radii)


CASES = {
    "nan": (lambda o: o.insert([np.nan], 0.5, 1.0), r"point\[0, 0\] = nan: coordinates must be finite"),
    "dimension": (lambda o: o.locate([0.0, 1.0]), r"point has shape \(2,\): expected 1 coordinates"),
    "no array": (lambda o: o.locate([[0.0], [1.0, 2.0]]), r"point cannot be read as an array"),
    "text": (lambda o: o.locate(["x"]), r"point has dtype <U1: expected real numbers"),
    "zero sigma": (lambda o: o.insert([0.0], 0.0, 1.0), r"sigma = 0.0: expected a number > 0"),
    "nan sigma": (lambda o: o.insert([0.0], np.nan, 1.0), r"sigma = nan: expected a number > 0"),
    "negative R": (lambda o: o.insert([0.0], 0.5, -1.0), r"R = -1.0: expected a number >= 0"),
    "infinite R": (lambda o: o.insert([0.0], 0.5, np.inf), r"R = inf: expected a number >= 0, at most 1e\+150"),
    "true R": (lambda o: o.insert([0.0], 0.5, True), r"R = True: expected a number"),
    "class": (lambda o: o.insert([0.0], 0.5, 1.0, class_=2**70), r"class_ has dtype object: expected integers"),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES)
def test_bad_arguments(path, call, message):
    with OnlineAllocator(path, 1) as online:
        with pytest.raises(ValueError, match=message):
            call(online)
        assert len(online) == 0


def test_after_closing(path):
    online = OnlineAllocator(path, 1)
    online.close()
    online.close()
    for use in (lambda: online.locate([0.0]), lambda: online.insert([0.0], 0.5, 1.0), lambda: len(online)):
        with pytest.raises(ValueError, match=r"is closed: open it again"):
            use()
