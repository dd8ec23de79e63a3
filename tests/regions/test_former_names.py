"""Names of the version before still work, and say what replaces them."""

import pytest

import regions


def test_place_is_now_location():
    with pytest.warns(DeprecationWarning, match=r"regions\.Place is now regions\.Location: use that name"):
        assert regions.Place is regions.Location
    with pytest.warns(DeprecationWarning, match="use that name"):  # every time, not only once
        from regions import Place
    assert Place(-1, float("nan"), 0.0) == regions.Location(-1, float("nan"), 0.0)
    assert "Place" not in regions.__all__


def test_levels_and_seconds_of_allocate_levels_are_now_sigmas_and_time_limit():
    points, R = [[0.0], [1.0]], [[1.0, 0.9], [0.7, 0.8]]
    with pytest.warns(DeprecationWarning, match=r"(levels= is now sigmas|seconds= is now time_limit)=") as caught:
        former = regions.allocate_levels(points, levels=[0.25, 0.5], R=R, seconds=60.0)
    assert len(caught) == 2
    present = regions.allocate_levels(points, sigmas=[0.25, 0.5], R=R, time_limit=60.0)
    assert (former.level == present.level).all()
    assert former.objective == present.objective
    with pytest.raises(TypeError, match=r"levels= is the former name of sigmas=: give sigmas= alone"):
        regions.allocate_levels(points, levels=[0.25, 0.5], sigmas=[0.25, 0.5], R=R)


def test_one_location_and_many_are_of_one_type(tmp_path):
    with regions.OnlineAllocator(tmp_path / "regions.db", 1) as online:
        online.insert([0.0], 0.5, 2.0)
        one, nowhere = online.locate([1.0]), online.locate([5.0])
        many = online.region_map().locate([[1.0], [5.0]])
    assert type(one) is type(many) is regions.Location
    assert (one.held, nowhere.held, many.held.tolist()) == (True, False, [True, False])
    assert (one.region, one.sigma, one.margin) == (many.region[0], many.sigma[0], many.margin[0])
    assert many == copied(many)
    assert one != many
    assert one != "a location"


def copied(where):
    return regions.Location(where.region.copy(), where.sigma.copy(), where.margin.copy())
