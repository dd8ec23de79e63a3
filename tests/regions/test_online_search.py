"""The search behind OnlineAllocator misses nothing, and looks at little."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions import OnlineAllocator, allocate
from regions._online.balls import GrowingBalls
from regions._online.clearance import survey
from regions._online.nearby import BallFilter
from regions._online.store import StoredRegions
from tests import oracles


def grown(centres, radii, parts=1):
    balls = GrowingBalls(centres.shape[1])
    for part in np.array_split(np.arange(len(radii)), parts):
        labels = np.zeros(part.size, dtype=np.int64)
        balls.add(StoredRegions(centres[part], radii[part], np.full(part.size, 0.5), labels))
        balls.prepare()
    return balls


def check(balls, centres, radii, x, reach, start=0):
    """Every ball within reach is found, and no lower bound exceeds what it bounds; return how many were found."""
    found, slack = balls.near(x, reach, start)
    assert (found >= start).all()
    assert np.unique(found).size == found.size
    assert (slack[1:] >= slack[:-1]).all()
    length = np.max(np.abs(centres - x), axis=1, initial=0.0)
    unit = np.where(length > 0, length, 1.0)
    distance = unit * np.linalg.norm((centres - x) / unit[:, None], axis=1)
    slack_of = np.full(len(radii), np.inf)
    slack_of[found] = slack
    assert (slack <= distance[found] * (1 + 1e-13) - radii[found]).all()
    sure = distance < (radii + reach) * (1 - 1e-12)
    open_question = ~sure & (distance < (radii + reach) * (1 + 1e-12))
    for k in np.flatnonzero(open_question):
        limit = oracles.Fraction(float(radii[k])) + oracles.Fraction(reach)
        sure[k] = oracles.squared_distance(x, centres[k]) < limit**2
    near = np.flatnonzero(sure)
    assert np.isin(near[near >= start], found).all()
    return found.size


@settings(max_examples=60)
@given(
    st.sampled_from([1, 3, 40, 127, 128, 200]),
    st.integers(65, 150),
    st.sampled_from([1.0, 1e-6, 1e6, 1e-140, 1e120]),
    st.sampled_from([0.0, 1.0, 1e4]),
    st.integers(0, 2**32 - 1),
)
def test_nothing_is_missed(d, n, scale, shift, seed):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(4, size=n)[:, None]  # a cloud, copies of one point, far clusters, a thin line
    cloud = rng.normal(size=(n, d))
    centres = np.where(kinds == 0, cloud, np.where(kinds == 1, cloud[:1], 300.0 * np.sign(cloud) + 1e-6 * cloud))
    centres = np.where(kinds == 3, rng.normal(size=(n, 1)) * cloud[:1], centres)
    centres = (centres + shift) * scale
    pairs = np.linalg.norm((centres[rng.permutation(n)] - centres) / scale, axis=1) * scale
    radii = np.abs(pairs * rng.choice([0.3, 1.0, 1e-7], size=n)) + 1e-9 * scale
    balls = grown(centres, radii, parts=3)
    for _ in range(5):
        k = rng.integers(n)
        direction = rng.normal(size=d)
        reach = float(rng.choice([0.0, 1e-6, 0.5, 3.0]) * scale)
        # just inside the reach of ball k, or just outside, or anywhere
        far = float(rng.choice([1 - 1e-9, 1 + 1e-9, rng.random() * 3])) * (radii[k] + reach)
        x = centres[k] + direction / np.linalg.norm(direction) * far
        check(balls, centres, radii, x, reach)
        check(balls, centres, radii, x, reach, start=5)
        check(balls, centres, radii, centres[k], reach)


@pytest.mark.parametrize("d", [6, 300])
def test_margins_cover_float32(d, rng):
    """Tiny balls far from the mean, with points just inside their reach: without margins, float32 would lose them."""
    centres = np.sign(rng.normal(size=(400, d))) * 100 + rng.normal(size=(400, d)) * 1e-3
    radii = np.full(400, 1e-4)
    balls = grown(centres, radii)
    for k in range(400):
        direction = rng.normal(size=d)
        x = centres[k] + direction / np.linalg.norm(direction) * 1.1e-4 * (1 - 1e-7)
        assert k in balls.near(x, 1e-5)[0]


@pytest.mark.parametrize("d", [2, 150])
def test_lengths_that_float32_cannot_hold(d, rng):
    centres = rng.normal(size=(200, d))
    radii = np.full(200, 0.1)
    far = np.vstack([np.full(d, 1e149), np.full(d, -1e60), np.full(d, 1e25)])
    centres, radii = np.vstack([centres, far, centres[:1]]), np.append(radii, [1e148, 1e-3, 1e10, 1e149])
    balls = grown(centres, radii)
    late = GrowingBalls(d)  # made for the near ones only
    for part in (slice(0, 150), slice(150, None)):
        k = radii[part].size
        late.add(StoredRegions(centres[part], radii[part], np.full(k, 0.5), np.zeros(k, dtype=np.int64)))
        late.prepare()
    for x in (*centres[[0, 5]], *far, far[0] * 0.99, far[1] + 1e44, np.zeros(d)):
        for reach in (0.0, 1.0, 1e100):
            check(balls, centres, radii, x, reach)
            check(late, centres, radii, x, reach)


def test_few_are_looked_at(rng):
    """On data with some structure, the projection tells nearly all balls apart."""
    mixing = rng.normal(size=(20, 300))
    centres = rng.normal(size=(3000, 20)) @ mixing + 0.1 * rng.normal(size=(3000, 300))
    radii = np.full(3000, 5.0)
    balls = grown(centres, radii)
    looked_at = [check(balls, centres, radii, x, 5.0) for x in centres[:50] + 1.0]
    assert np.mean(looked_at) < 10


def test_the_filter_is_seldom_made_anew(monkeypatch, rng):
    made, mapped = [], []
    init, add = BallFilter.__init__, BallFilter.add
    monkeypatch.setattr(BallFilter, "__init__", lambda self, sample: (made.append(len(sample)), init(self, sample))[1])
    monkeypatch.setattr(BallFilter, "add", lambda self, c, r: (mapped.append(len(r)), add(self, c, r))[1])
    balls = GrowingBalls(4)
    for x in rng.normal(size=(3000, 1, 4)):
        balls.add(StoredRegions(x, np.ones(1), np.ones(1), np.zeros(1, dtype=np.int64)))
        balls.near(x[0], 0.1)
    assert made == [65, 520]
    assert sum(mapped) == (519) + 3000


def test_survey_of_many_overlapping_balls(rng):
    """All 400 balls hold the point: the one with the farthest boundary counts, and nothing is left."""
    centres, radii = rng.normal(size=(400, 3)) * 0.1, np.full(400, 5.0)
    around = survey(grown(centres, radii), np.zeros(3), 1.0)
    distance = np.linalg.norm(centres, axis=1)
    assert around.place.region == distance.argmin()
    assert around.place.margin == pytest.approx(5.0 - distance.min())
    assert around.room == 0.0
    assert survey(grown(centres, radii), np.zeros(3), 1.0, sigma=0.5).room == 1.0
    nowhere = survey(grown(centres, radii), np.full(3, 50.0), 1.0)
    assert not nowhere.place.held
    assert math.isnan(nowhere.place.sigma)


@pytest.mark.parametrize("d", [3, 160])
def test_a_thousand_arrivals_are_greedy_in_order_of_arrival(tmp_path, rng, d):
    points = rng.normal(size=(40, d))[rng.integers(40, size=1000)] + 0.3 * rng.normal(size=(1000, d))
    R = rng.exponential(0.25 * math.sqrt(d), size=1000)
    expected = allocate(points, R, "greedy", order="arrival").radii
    with OnlineAllocator(tmp_path / "regions.db", d, synchronous="normal") as online:
        arrivals = [online.insert(x, 0.5, bound) for x, bound in zip(points, R, strict=True)]
    np.testing.assert_allclose([a.radius if a.created else 0.0 for a in arrivals], expected, rtol=1e-12)
    assert np.count_nonzero(expected) > 200
