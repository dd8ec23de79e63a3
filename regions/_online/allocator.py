"""Algorithm 2 of the paper: points arrive one at a time, and their regions are stored in one SQLite file."""

from __future__ import annotations

import operator
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, SupportsFloat, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from regions import _validate
from regions._map import Location, RegionMap
from regions._online.balls import GrowingBalls
from regions._online.clearance import Surroundings, survey
from regions._online.results import Arrival, PointHeld, Region
from regions._online.store import Store, StoredRegions

Certify = Callable[[float | None], tuple[float, float, int]]
"""certify(sigma) -> (sigma, R, class). Given None, it chooses sigma itself (Eq. 7)."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = Callable[Concatenate["OnlineAllocator", _P], _T]


def _one_at_a_time(method: _Method[_P, _T]) -> _Method[_P, _T]:
    """Let one thread at a time run the method, after memory and file have been brought into agreement.

    An operation that a signal handler begins inside another one is refused, because it would end the transaction of the
    outer one. `_busy` marks a running operation. If an exception from outside strikes just before the mark is removed,
    the mark stays, and all later operations are refused as well.
    """

    @wraps(method)
    def operation(self: OnlineAllocator, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._lock:
            if self._busy:
                raise ValueError(
                    f"{self._store.path} is in the midst of an operation, which a signal handler or an exception "
                    "interrupted: let that operation end, or open the file again"
                )
            try:
                self._busy = True
                self._agree()
                return method(self, *args, **kwargs)
            finally:
                self._busy = False

    return operation


class OnlineAllocator:
    """Regions that grow with every point that arrives (Algorithm 2), in one file that processes may share.

    Parameters
    ----------
    path : str or path-like
        The file. It is created if it does not exist and `dimension` is given.
    dimension : int, default=None
        Number of coordinates of a point. None: the number that the file has.
    groups : {"none", "sigma"}, default=None
        Which regions conflict. "none": every pair (the paper). "sigma": only pairs of different sigma, so that regions
        of one sigma may overlap. None: what the file says; "none" for a new file.
    read_only : bool, default=False
        Only look points up, and never write. Without permission to write in the folder, the file is read as it is when
        it is opened.
    synchronous : {"full", "normal"}, default="full"
        "full": a region that was returned survives a power failure; every insertion waits for the disk once. "normal":
        it survives the end of every process, also by SIGKILL, but may be lost in a power failure. Another region could
        then get the same space.
    timeout : float, default=30.0
        Seconds to wait for another process that writes.

    Raises
    ------
    ValueError
        If an argument is wrong, or if the file is damaged, belongs to another program, or has another version,
        dimension or `groups`.
    OSError
        If the file cannot be opened, read or written. `TimeoutError` if other processes keep it busy.

    Notes
    -----
    *Guarantee.* The following holds whatever several processes do at the same time, and wherever they are killed. No
    two conflicting regions overlap, in exact arithmetic on their float64 numbers. Every region that was returned is
    stored. A stored region never changes, so its certificate stays valid. If an operation raises an error, it has
    stored nothing; only if the machine failed or an exception came from outside while a region was being stored, that
    region may be in the file, and then it conflicts with no other.

    Exceptions from outside, such as KeyboardInterrupt, may strike at any moment. The next operation then brings memory
    and file into agreement, or refuses to work until the file is opened again. An operation that a signal handler
    begins inside another one is refused.

    A region of radius 0 is empty and is not stored. Regions of one certified class still conflict here: to let them
    overlap, every certificate would have to hold at level alpha / n, and n is unknown.

    Every process that may insert points can take space from points that arrive later, but never from regions that
    exist.

    *Cost.* Memory: 8 bytes for each coordinate of each region. An insertion compares the point with a float32
    projection of all regions, and measures few of them exactly. A copy of the file is complete only while no process
    has it open; `region_map` returns all regions at any time.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, OnlineAllocator(f"{folder}/regions.db", dimension=1) as online:
    ...     first = online.insert([0.0], sigma=0.5, R=2.0)
    ...     second = online.insert([3.0], sigma=0.25, R=2.0)  # stays clear of the first
    ...     third = online.arrive([1.5], lambda sigma: (sigma, 2.0, -1))  # inside the first: takes its sigma
    >>> first.radius, round(second.radius, 9), third.region, third.sigma, round(third.radius, 9)
    (2.0, 1.0, 0, 0.5, 0.5)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dimension: int | None = None,
        *,
        groups: str | None = None,
        read_only: bool = False,
        synchronous: str = "full",
        timeout: float = 30.0,
    ) -> None:
        if dimension is not None and not 1 <= _validate.as_count(dimension, "dimension") <= _validate.MOST_COORDINATES:
            raise ValueError(f"dimension = {dimension}: expected 1 to {_validate.MOST_COORDINATES} coordinates")
        self._store = Store(
            path,
            None if dimension is None else int(dimension),
            None if groups is None else _validate.as_choice(groups, ("none", "sigma"), "groups"),
            read_only=read_only,
            synchronous=_validate.as_choice(synchronous, ("full", "normal"), "synchronous"),
            timeout=_validate.as_number(timeout, "timeout"),
        )
        self._balls = GrowingBalls(self._store.dimension)
        self._lock = threading.RLock()
        self._busy = False
        self._process: int | None = os.getpid()
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @_one_at_a_time
    def _prepare(self) -> None:
        """Compile the loops and build the filter, so that the first operation does not have to wait for that."""
        with _signals_wait():  # an exception that a signal handler raises during compilation breaks the compiler
            for unit in (1.0, 1e-200):  # tiny lengths use a compiled loop of their own
                balls = GrowingBalls(1)
                balls.add(StoredRegions(np.array([[0.0]]), np.array([unit]), np.array([1.0]), np.array([-1])))
                survey(balls, np.array([unit]), unit)
        self._balls.prepare()

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return self._store.dimension

    @property
    def groups(self) -> str:
        """Which regions conflict: "none" or "sigma"."""
        return self._store.groups

    @property
    @_one_at_a_time
    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of the dimension, `groups` and all regions so far, in order of arrival."""
        return self._store.digest.hex()

    @_one_at_a_time
    def __len__(self) -> int:
        """Number of regions, including those that other processes have stored."""
        return len(self._balls)

    def __iter__(self) -> Iterator[Region]:
        """Regions in order of arrival, as many as there are when the iteration begins."""
        for k in range(len(self)):
            yield self[k]

    @_one_at_a_time
    def __getitem__(self, index: int) -> Region:
        """Return the region of this index. A negative index counts from the end."""
        balls, n = self._balls, len(self._balls)
        if not -n <= index < n:
            raise IndexError(f"region {index} of {n}")
        k = index % n
        centre = balls.centres(np.array([k]))[0]
        return Region(k, centre, float(balls.radii[k]), float(balls.sigma[k]), int(balls.classes[k]))

    @_one_at_a_time
    def locate(self, point: ArrayLike) -> Location[int, float]:
        """Find the region that holds a point.

        Certify the point at the sigma of that region, or, if no region holds it, at a sigma of your choice (Eq. 7).
        """
        return survey(self._balls, _validate.as_point(point, self.dimension), 0.0).place

    @_one_at_a_time
    def insert(
        self, point: ArrayLike, sigma: SupportsFloat, R: SupportsFloat, *, class_: SupportsIndex = -1
    ) -> Arrival:
        """Give a radius to a point certified at `sigma` with radius `R`, and a region of its own if possible.

        Parameters
        ----------
        point : array-like, shape (d,) or any that flattens to it
        sigma : float
            Noise level of the certificate. If a region holds the point, it must be the sigma of that region.
        R : float
            Certified radius, in the units of the points; 0 if the classifier abstained.
        class_ : int, default=-1
            Certified class, which is stored with the region.

        Returns
        -------
        Arrival
            If no region holds the point: a new region of radius min(R, distance to the nearest conflicting region),
            Eq. 8. If a region of the same sigma holds it: the radius min(R, distance to the region's boundary), Eq. 6,
            and no new region. With `groups="sigma"`, regions of one sigma may overlap; the point then gets a new region
            nevertheless if that has a larger radius.

        Raises
        ------
        PointHeld
            If a region of another sigma holds the point; another process may have stored it since you called `locate`.
            The exception's `place` says which region. Nothing was stored.
        ValueError, OSError
            As for the class.
        """
        x = _validate.as_point(point, self.dimension)
        level = _validate.as_number(sigma, "sigma", positive=True)
        R = _validate.as_number(R, "R")
        label = int(_validate.as_classes([operator.index(class_)], 1, "class_")[0])
        harmless = level if self.groups == "sigma" else None
        seen = len(self._balls)
        around = survey(self._balls, x, R, harmless)  # before the file is locked: stored regions never change

        def store() -> Arrival | None:
            nonlocal around
            self._read()
            around = around.joined(survey(self._balls, x, R, harmless, start=seen))
            if not _deserves_region(around, level, R, harmless):
                return None
            region = self._store.append(x, around.room, level, label)
            return Arrival(region, level, around.room, label, created=True)

        if not around.place.held or harmless is not None:
            arrival = self._store.write(store)
            if arrival is not None:
                return arrival
        place = around.place
        if place.held and place.sigma != level:
            raise PointHeld(place)
        return Arrival(place.region, level, min(R, place.margin), label, created=False)

    def arrive(self, point: ArrayLike, certify: Certify) -> Arrival:
        """One step of Algorithm 2: look the point up, certify it, and insert it.

        Parameters
        ----------
        point : array-like, shape (d,) or any that flattens to it
        certify : callable
            certify(sigma) -> (sigma, R, class), with fresh samples at every call. If a region holds the point, it is
            given the region's sigma and must use it. Otherwise it is given None and chooses sigma itself (Eq. 7). If
            another process stores a region of another sigma around the point meanwhile, the first certificate is
            discarded, and `certify` is called a second time.

        Returns
        -------
        Arrival
            As `insert` returns it.
        """
        place = self.locate(point)
        while True:
            required = place.sigma if place.held else None
            sigma, R, class_ = certify(required)
            if required is not None and sigma != required:
                raise ValueError(
                    f"certify returned sigma = {sigma} for a point in a region of sigma = {required}: use the one given"
                )
            try:
                return self.insert(point, sigma, R, class_=class_)
            except PointHeld as held:  # that region never changes, so the second certificate is at the right sigma
                place = held.place

    @_one_at_a_time
    def region_map(self) -> RegionMap:
        """All regions so far as a frozen table, which can locate many points at once and can be saved."""
        balls = self._balls
        return RegionMap(balls.centres(np.arange(len(balls))), balls.radii, balls.sigma, classes=balls.classes)

    def close(self) -> None:
        """Close the file. Every region that was returned is stored already."""
        with self._lock:
            if self._process == os.getpid():
                self._store.close()
            self._process = None

    def __enter__(self) -> OnlineAllocator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _agree(self) -> None:
        """Bring memory into agreement with the file, whatever state the last operation has left."""
        if self._process is None:
            raise ValueError(f"{self._store.path} is closed: open it again")
        if self._process != os.getpid():
            raise ValueError(f"{self._store.path} was opened before this process was forked: open it again in here")
        self._store.settle()
        if self._store.count != len(self._balls):  # an exception struck after regions were added, before they counted
            self._balls = GrowingBalls(self.dimension)
            self._store.rewind()
        self._read()

    def _read(self) -> None:
        """Add the regions that this and other processes have stored since the last call."""
        self._store.read(self._balls.add)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Block signals to this thread until the block ends, on systems that can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deserves_region(around: Surroundings, sigma: float, R: float, harmless: float | None) -> bool:
    """Whether the point gets a region of its own.

    It does if the radius would be larger than what an existing region gives it, and if no conflicting region holds it.
    """
    place = around.place
    if place.held and (harmless is None or place.sigma != sigma):
        return False
    return around.room > min(R, place.margin)
