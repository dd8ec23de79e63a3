"""Votes as a run keeps them: for every image and noise level, how many samples voted for which class.

A table writes the votes of one image at one level as `class:count` pairs, `3:990 5:10`, classes increasing, those
without a vote left out. Where samples were drawn in several rounds, the votes after each round are kept, separated by
commas: `n` is then `100,1000` and `votes` is `3:98 5:2,3:990 5:10`. Every bound, at every alpha, follows from these.
"""

import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Int32, Int64

_ROUND = re.compile(r"[0-9]{1,7}:[0-9]{1,10}(?: [0-9]{1,7}:[0-9]{1,10})*", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Tally:
    """Votes of n images at k levels after each round of drawing, with a number for every class.

    Attributes
    ----------
    rungs : tuple of int
        Samples drawn in all after each of m rounds, increasing.
    votes : int array of shape (m, n, k, num_classes)
        Votes after each round; those of a round that an image did not reach at a level say nothing.
    reached : int array of shape (n, k)
        How many of the rounds were drawn; 0 where there was none.
    """

    rungs: tuple[int, ...]
    votes: Int64[np.ndarray, "m n k classes"]
    reached: Int64[np.ndarray, "n k"]

    def text(self, image: int, level: int) -> tuple[str, str]:
        """Return `n` and `votes` of an image at a level, as a table writes them."""
        rounds = int(self.reached[image, level])
        sizes = ",".join(map(str, self.rungs[:rounds]))
        return sizes, ",".join(_text(self.votes[i, image, level]) for i in range(rounds))

    def counted(self, classes: Int64[np.ndarray, "n k"]) -> "Counts":
        """Return what the bounds for these classes are computed from."""
        at = np.broadcast_to(classes[None, ..., None], (*self.votes.shape[:3], 1))
        own = np.take_along_axis(self.votes, at, axis=3)[..., 0]
        rest = others(self.votes, at)
        return _counts(self.rungs, self.reached, own, rest.max(axis=3), rest.argmax(axis=3))


@dataclass(frozen=True, eq=False)
class Counts:
    """What bounds are computed from: votes after each of m rounds, for n images at k levels.

    Attributes
    ----------
    n : int array of shape (m, n, k)
        Samples drawn, 0 in rounds that were not drawn.
    own : int array of shape (m, n, k)
        Votes for the class that is certified.
    other : int array of shape (m, n, k), optional
        Most votes of any other class. None in runs of earlier versions, which did not keep them.
    runner_up : int array of shape (n, k)
        That class, after the last round that was drawn; -1 where no other class has a vote, or none is known to.
    """

    n: Int64[np.ndarray, "m n k"]
    own: Int64[np.ndarray, "m n k"]
    other: Int64[np.ndarray, "m n k"] | None
    runner_up: Int64[np.ndarray, "n k"]

    @property
    def drawn(self) -> Int64[np.ndarray, "n k"]:
        """Samples of every image at every level, all rounds together."""
        return np.asarray(self.n.max(axis=0))

    @property
    def last(self) -> Int64[np.ndarray, "n k"]:
        """Votes for the class that is certified, among all of `drawn`."""
        return np.asarray(self.own.max(axis=0))  # votes after each round never fall

    @property
    def last_other(self) -> Int64[np.ndarray, "n k"]:
        """Votes of the runner-up, among all of `drawn`; 0 where they are not known."""
        return np.zeros_like(self.runner_up) if self.other is None else np.asarray(self.other.max(axis=0))

    def take(self, images: Int64[np.ndarray, " p"]) -> "Counts":
        """Return the counts of some of the images."""
        return Counts(
            self.n[:, images],
            self.own[:, images],
            None if self.other is None else self.other[:, images],
            self.runner_up[images],
        )

    def at(self, level: Int64[np.ndarray, " n"]) -> "Counts":
        """Return the counts of each image at one level, as at a grid of one."""
        one = np.arange(len(level))[:, None], level[:, None]
        where = slice(None), *one
        return Counts(
            self.n[where],
            self.own[where],
            None if self.other is None else self.other[where],
            self.runner_up[one],
        )


def others(
    votes: Int64[np.ndarray, "*shape classes"], classes: Int64[np.ndarray, "*shape one"]
) -> Int64[np.ndarray, "*shape classes"]:
    """Return votes with -1 in the place of these classes."""
    rest = votes.copy()
    np.put_along_axis(rest, classes, -1, axis=-1)
    return rest


def _counts(
    rungs: Sequence[int],
    reached: Int64[np.ndarray, "n k"],
    own: Int64[np.ndarray, "m n k"],
    other: Int64[np.ndarray, "m n k"],
    rival: Int64[np.ndarray, "m n k"],
) -> Counts:
    """Return counts with 0 in the rounds that were not drawn; `rival` is the class with most votes but one."""
    drawn = np.arange(len(rungs))[:, None, None] < reached
    sizes = np.array(rungs, dtype=np.int64)[:, None, None]
    last = np.maximum(reached - 1, 0)[None]
    most = np.take_along_axis(np.where(drawn, other, 0), last, axis=0)[0]
    runner_up = np.where(most > 0, np.take_along_axis(rival, last, axis=0)[0], -1)
    return Counts(np.where(drawn, sizes, 0), np.where(drawn, own, 0), np.where(drawn, other, 0), runner_up)


@dataclass(frozen=True, eq=False)
class Votes:
    """A `Tally` as it was read from a table: only classes that got a vote take memory.

    Attributes
    ----------
    rungs : tuple of int
        Samples drawn in all after each of m rounds, increasing.
    reached : int array of shape (n, k)
        How many of the rounds were drawn.
    round, image, level, classes, counts : int32 arrays of shape (entries,)
        For each class with votes: in which round, for which image, at which level, which class, and its votes.
    """

    rungs: tuple[int, ...]
    reached: Int64[np.ndarray, "n k"]
    round: Int32[np.ndarray, " entries"]
    image: Int32[np.ndarray, " entries"]
    level: Int32[np.ndarray, " entries"]
    classes: Int32[np.ndarray, " entries"]
    counts: Int32[np.ndarray, " entries"]

    @classmethod
    def joined(cls, rungs: tuple[int, ...], k: int, parts: Sequence["Votes"]) -> "Votes":
        """Return the votes of several tables, one after the other; of no image where there is no table."""
        starts = np.cumsum([0, *(len(part.reached) for part in parts)]).tolist()
        columns = {
            name: np.concatenate([np.zeros(0, np.int32), *(getattr(part, name) for part in parts)])
            for name in ("round", "level", "classes", "counts")
        }
        image = [part.image + np.int32(start) for part, start in zip(parts, starts, strict=False)]
        return cls(
            rungs,
            np.concatenate([np.zeros((0, k), np.int64), *(part.reached for part in parts)]),
            image=np.concatenate([np.zeros(0, np.int32), *image]),
            **columns,
        )

    def take(self, images: Int64[np.ndarray, " p"]) -> "Votes":
        """Return the votes of some of the images, each at most once, in this order."""
        number = np.full(len(self.reached), -1, dtype=np.int32)
        number[images] = np.arange(len(images), dtype=np.int32)
        kept = number[self.image] >= 0
        columns = {name: getattr(self, name)[kept] for name in ("round", "level", "classes", "counts")}
        return Votes(self.rungs, self.reached[images], image=number[self.image[kept]], **columns)

    def spread(self, level: Int64[np.ndarray, " n"], k: int) -> "Votes":
        """Return votes at one level of each image as votes on the grid of k levels that it belongs to."""
        reached = np.zeros((len(level), k), dtype=np.int64)
        reached[np.arange(len(level)), level] = self.reached[:, 0]
        return replace(self, reached=reached, level=level.astype(np.int32)[self.image])

    def dense(self, images: slice, num_classes: int) -> Tally:
        """Return the votes of some images with a number for every class."""
        start, stop, _ = images.indices(len(self.reached))
        some = (start <= self.image) & (self.image < stop)
        votes = np.zeros((len(self.rungs), stop - start, self.reached.shape[1], num_classes), dtype=np.int64)
        where = self.round[some], self.image[some] - start, self.level[some], self.classes[some]
        votes[where] = self.counts[some]
        return Tally(self.rungs, votes, self.reached[images])

    def counted(self, classes: Int64[np.ndarray, "n k"]) -> Counts:
        """Return what the bounds for these classes are computed from."""
        mine = self.classes == classes[self.image, self.level]
        own, other = np.zeros((2, len(self.rungs), *self.reached.shape), dtype=np.int64)
        own[self.round[mine], self.image[mine], self.level[mine]] = self.counts[mine]
        cells = self.round[~mine], self.image[~mine], self.level[~mine]
        np.maximum.at(other, cells, self.counts[~mine])
        rival = np.full(other.shape, np.iinfo(np.int64).max)
        most = self.counts[~mine] == other[cells]
        np.minimum.at(rival, tuple(axis[most] for axis in cells), self.classes[~mine][most])
        return _counts(self.rungs, self.reached, own, other, rival)


def read_votes(
    rungs: tuple[int, ...],
    num_classes: int,
    k: int,
    sizes: Sequence[str],
    votes: Sequence[str],
    error: Callable[[int, str], Exception],
) -> Votes:
    """Read the columns `n` and `votes` of a table that may come from somebody else.

    Parameters
    ----------
    rungs : tuple of int
        The sample sizes that the run's settings allow; a row holds the first few of them.
    num_classes, k : int
        Classes, and rows for each image.
    sizes, votes : sequences of str
        The text of both columns, in rows that k by k are one image's.
    error : callable
        error(row, reason) makes the exception that is raised.

    Raises
    ------
    Exception
        What `error` returned, where the text is no such votes: a size that is not one of the rungs, classes that do
        not exist or do not increase, votes that fall or do not add up to the size.
    """
    reached = np.zeros(len(sizes), dtype=np.int64)
    columns = [array("i") for _ in range(5)]
    for row, (size, text) in enumerate(zip(sizes, votes, strict=True)):
        try:
            rounds = _rounds(rungs, num_classes, size, text)
        except ValueError as reason:
            raise error(row, str(reason)) from None
        reached[row] = len(rounds)
        image, level = divmod(row, k)
        for number, pairs in enumerate(rounds):
            for pair in pairs:
                for column, value in zip(columns, (number, image, level, *pair), strict=True):
                    column.append(value)
    return Votes(rungs, reached.reshape(-1, k), *(np.frombuffer(column, np.int32) for column in columns))


def _rounds(rungs: tuple[int, ...], num_classes: int, sizes: str, votes: str) -> list[list[tuple[int, int]]]:
    """Read one row's votes: for every round its pairs of class and count."""
    found = sizes.split(",")
    if not all(_SIZE.fullmatch(size) for size in found) or tuple(map(int, found)) != rungs[: len(found)]:
        wanted = ", ".join(map(str, rungs))
        raise ValueError(f"n = {sizes[:40]}: must be the first of {wanted} in this run")
    texts = votes.split(",")
    if len(texts) != len(found):
        raise ValueError(f"votes = {votes[:40]!r}: must have one part for each number in n = {sizes[:40]}")
    rounds: list[list[tuple[int, int]]] = []
    before: dict[int, int] = {}
    for size, text in zip(rungs, texts, strict=False):
        if not _ROUND.fullmatch(text):
            raise ValueError(f"votes = {text[:40]!r} are not written as class:count pairs")
        pairs = [(int(one), int(count)) for one, _, count in (pair.partition(":") for pair in text.split(" "))]
        classes = [one for one, _ in pairs]
        if classes[-1] >= num_classes or any(low >= high for low, high in pairwise(classes)):
            raise ValueError(f"votes = {text[:40]!r}: classes must increase, from 0 to {num_classes - 1}")
        now = dict(pairs)
        if sum(now.values()) != size or 0 in now.values():
            raise ValueError(f"votes = {text[:40]!r}: must be from 1 on and add up to {size}")
        if any(now.get(one, 0) < count for one, count in before.items()):
            raise ValueError(f"votes = {text[:40]!r}: are fewer than after fewer samples")
        before = now
        rounds.append(pairs)
    return rounds


def _text(votes: Int64[np.ndarray, " classes"]) -> str:
    classes = np.flatnonzero(votes)
    return " ".join(f"{one}:{count}" for one, count in zip(classes.tolist(), votes[classes].tolist(), strict=True))
