"""Where samples sit: each exactly once, in an order that the question alone decides, in batches that are used."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from smoothing._voting.noise import BLOCK
from smoothing._voting.places import SMALLEST, USED, Segments, batches


@given(
    wanted=st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(lambda shape: arrays.arrays(bool, shape)),
    start=st.integers(0, 300),
    count=st.integers(1, 400),
    size=st.integers(1, 500),
    one_size=st.booleans(),
    workers=st.integers(1, 5),
)
def test_every_sample_sits_at_one_place(wanted, start, count, size, one_size, workers):
    segments = Segments.of(wanted, start, start + count)
    assert segments.total == wanted.sum() * count
    seen = []
    for batch in batches(segments.total, size, one_size=one_size, workers=workers):
        at = 0
        for piece in segments.pieces(batch):
            assert piece.at == at
            at += piece.count
            samples = range(piece.first, piece.first + piece.count)
            assert samples[0] // BLOCK == samples[-1] // BLOCK
            assert piece.drawn.start <= samples[0] <= samples[-1] < piece.drawn.stop
            assert len({sample // BLOCK for sample in piece.drawn}) == 1
            seen.extend((piece.row, piece.level, sample) for sample in samples)
        assert at == batch.end - batch.begin <= batch.size
    expected = [(row, level, s) for row, level in np.argwhere(wanted) for s in range(start, start + count)]
    assert sorted(seen) == expected


@given(total=st.integers(0, 10**5), size=st.integers(1, 4096), workers=st.integers(1, 16))
def test_batches_are_used_but_for_the_smallest(total, size, workers):
    found = batches(total, size, one_size=False, workers=workers)
    assert [batch.begin for batch in found] == [0, *(batch.end for batch in found)][:-1]
    assert sum(batch.end - batch.begin for batch in found) == total
    assert all(batch.size <= size for batch in found)
    for batch in found[:-1]:
        assert batch.end - batch.begin == batch.size
    if found:
        last = found[-1]
        assert last.end - last.begin >= USED * last.size or last.size <= SMALLEST


@given(total=st.integers(1, 10**5), size=st.integers(1, 4096), workers=st.integers(1, 16))
def test_a_model_of_one_size_gets_no_other(total, size, workers):
    found = batches(total, size, one_size=True, workers=workers)
    assert {batch.size for batch in found} == {size}
    assert len(found) == -(-total // size)


@given(total=st.integers(200, 10**5), size=st.integers(64, 4096), workers=st.integers(2, 4))
def test_every_worker_has_a_batch(total, size, workers):
    assert len(batches(total, size, one_size=False, workers=workers)) >= workers


def test_levels_of_an_image_follow_each_other_block_by_block_and_share_what_is_drawn():
    segments = Segments.of(np.array([[True, True], [False, True]]), 100, 300)
    pieces = [piece for batch in batches(segments.total, 64, one_size=False) for piece in segments.pieces(batch)]
    drawn = [(piece.row, piece.drawn) for piece in pieces]
    blocks = [range(100, 128), range(128, 256), range(256, 300)]
    once = [key for key, _ in itertools.groupby(key for key in drawn if key[0] == 0)]
    assert once == [(0, block) for block in blocks]  # so a worker draws each block once, for both levels
    assert [piece.level for piece in pieces if piece.row == 0 and piece.drawn == blocks[0]] == [0, 1]
    for piece in pieces:
        if piece.row == 1:  # of one level: what a batch has no place for is not drawn for it
            assert piece.drawn == range(piece.first, piece.first + piece.count)
    assert [piece.row for piece in pieces] == sorted(piece.row for piece in pieces)


@pytest.mark.parametrize(
    ("total", "sizes"),
    [
        (1024, [1024]),
        (922, [1024]),  # nine tenths
        (921, [512, 256, 128, 32]),  # 921 = 512 + 256 + 128 + 25
        (1100, [1024, 64, 32]),  # 76 = 64 + 12
        (30, [32]),
        (1, [32]),
    ],
)
def test_a_batch_of_which_nine_tenths_are_used_is_not_cut(total, sizes):
    assert [batch.size for batch in batches(total, 1024, one_size=False)] == sizes
