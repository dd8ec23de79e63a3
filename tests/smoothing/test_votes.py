"""Votes as tables keep them: written and read without loss, and refused where they cannot be votes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing.votes import Tally, Votes, read_votes

#: Images, levels, classes and rounds of votes, and the seed that they are drawn with.
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5), st.integers(1, 3), st.integers(0, 2**32))


def tally_of(sizes):
    """Votes of a few images at a few levels, after rounds that not all of them reach."""
    n, k, classes, rounds, seed = sizes
    rng = np.random.default_rng(seed)
    rungs = np.cumsum(rng.integers(1, 50, size=rounds))
    p = rng.dirichlet(np.full(classes, 0.3), size=(n, k))
    fresh = [rng.multinomial(size, p) for size in np.diff(rungs, prepend=0)]
    return Tally(tuple(rungs.tolist()), np.cumsum(fresh, axis=0), rng.integers(1, rounds + 1, size=(n, k)))


def read(tally):
    n, k = tally.reached.shape
    text = [tally.text(i, j) for i in range(n) for j in range(k)]
    return read_votes(tally.rungs, tally.votes.shape[3], k, *zip(*text, strict=True), refused)


def refused(row, reason):
    return ValueError(f"row {row}: {reason}")


def known(tally):
    """Votes, 0 in rounds that were not drawn."""
    drawn = np.arange(len(tally.rungs))[:, None, None] < tally.reached
    return tally.votes * drawn[..., None]


def assert_same(tally, other):
    np.testing.assert_array_equal(known(tally), known(other))
    np.testing.assert_array_equal(tally.reached, other.reached)
    assert tally.rungs == other.rungs


@given(SIZES)
def test_what_is_written_is_read(sizes):
    tally = tally_of(sizes)
    votes, classes = read(tally), tally.votes.shape[3]
    assert_same(votes.dense(slice(0, None), classes), tally)
    image = len(tally.reached) - 1
    assert_same(
        votes.dense(slice(image, image + 1), classes),
        Tally(tally.rungs, tally.votes[:, image:], tally.reached[image:]),
    )


@given(SIZES, st.integers(0, 2**32))
def test_bounds_see_the_same_counts_in_both(sizes, seed):
    tally = tally_of(sizes)
    classes = np.random.default_rng(seed).integers(0, tally.votes.shape[3], size=tally.reached.shape)
    for counts in (tally.counted(classes), read(tally).counted(classes)):
        for m, i, k in np.ndindex(counts.n.shape):
            drawn = m < tally.reached[i, k]
            row = tally.votes[m, i, k].tolist() if drawn else [0] * tally.votes.shape[3]
            own = row.pop(classes[i, k])
            assert (counts.n[m, i, k], counts.own[m, i, k]) == (tally.rungs[m] if drawn else 0, own)
            assert counts.other[m, i, k] == max(row, default=0)
        np.testing.assert_array_equal(counts.drawn, np.array(tally.rungs)[tally.reached - 1])
        level = np.arange(len(classes)) % classes.shape[1]
        at = counts.at(level)
        np.testing.assert_array_equal(at.last[:, 0], counts.last[np.arange(len(level)), level])


@given(SIZES, SIZES, st.integers(0, 2**32))
def test_tables_are_joined_and_put_in_order(one, two, seed):
    first, second = tally_of(one), tally_of(two)
    k, classes = min(first.reached.shape[1], second.reached.shape[1]), 5
    rungs = (1000,)
    parts = []
    for tally in (first, second):
        votes = np.zeros((1, len(tally.reached), k, classes), dtype=np.int64)
        votes[..., 0] = 1000 - tally.votes[0, :, :k, -1]
        votes[..., 1] = tally.votes[0, :, :k, -1]
        parts.append(Tally(rungs, votes, np.ones((len(votes[0]), k), dtype=np.int64)))
    both = np.concatenate([part.votes for part in parts], axis=1)
    order = np.random.default_rng(seed).permutation(both.shape[1])[:-1]
    joined = Votes.joined(rungs, k, [read(part) for part in parts]).take(order)
    np.testing.assert_array_equal(joined.dense(slice(0, None), classes).votes, both[:, order])
    assert Votes.joined(rungs, k, []).reached.shape == (0, k)


def test_votes_at_one_level_are_those_of_a_grid():
    tally = Tally((10,), np.array([[[[10, 0]], [[3, 7]]]]), np.ones((2, 1), dtype=np.int64))
    spread = read(tally).spread(np.array([2, 0]), 3)
    assert spread.reached.tolist() == [[0, 0, 1], [1, 0, 0]]
    counts = spread.counted(np.zeros((2, 3), dtype=np.int64))
    assert counts.own.tolist() == [[[0, 0, 10], [3, 0, 0]]]
    assert counts.other.tolist() == [[[0, 0, 0], [7, 0, 0]]]


@pytest.mark.parametrize(
    ("size", "votes", "message"),
    [
        ("100", "0:99", r"must be from 1 on and add up to 100"),
        ("100", "0:100 2:1", "add up to 100"),
        ("100", "0:100 2:0", "add up to 100"),
        ("100", "2:50 0:50", "classes must increase, from 0 to 2"),
        ("100", "0:50 0:50", "classes must increase"),
        ("100", "3:100", "classes must increase, from 0 to 2"),
        ("100", "", "are not written as class:count pairs"),
        ("100", "0:-1 1:101", "are not written as"),
        ("100", "0:1_00", "are not written as"),
        ("100", "0:\u0661\u0660\u0660", "are not written as"),
        ("100", "0:100 ", "are not written as"),
        ("100", "0:" + "9" * 5000, "are not written as"),
        ("50", "0:50", "n = 50: must be the first of 100, 1000 in this run"),
        ("1000", "0:1000", "n = 1000: must be the first of 100, 1000"),
        ("100,1000,5000", "0:100,0:1000,0:5000", "must be the first of"),
        ("1_00", "0:100", "must be the first of"),
        ("", "0:100", "must be the first of"),
        ("100,1000", "0:100", "must have one part for each number in n = 100,1000"),
        ("100,1000", "0:99 1:1,0:1000", "are fewer than after fewer samples"),
    ],
)
def test_what_cannot_be_votes_is_refused(size, votes, message):
    with pytest.raises(ValueError, match=f"^row 1: .*{message}") as caught:
        read_votes((100, 1000), 3, 1, ["100", size], ["0:100", votes], refused)
    assert len(str(caught.value)) < 200
