"""Algorithm 2 of the paper with a memory that lasts: points arrive one at a time, regions live in one SQLite file."""

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
"""certify(sigma) -> (sigma, R, class): at the sigma given, or at one of its own choice (Eq. 7) where that is None."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = Callable[Concatenate["OnlineAllocator", _P], _T]


def _one_at_a_time(method: _Method[_P, _T]) -> _Method[_P, _T]:
    """Let one thread in at a time, with memory and file in agreement.

    An operation inside another one is refused: that of a signal handler would end the transaction of the outer one. So
    is any operation after an exception has come between the end of one and saying so.
    """

    @wraps(method)
    def operation(self: OnlineAllocator, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._lock:
            if self._busy:
                raise ValueError(
                    f"{self._store.path} is in the midst of an operation, which an exception or a signal handler "
                    "interrupted: let it end, or open the file again"
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
        The file; created if it does not exist and `dimension` is given.
    dimension : int, default=None
        Number of coordinates of a point; None: what the file says.
    groups : {"none", "sigma"}, default=None
        Which regions conflict. "none", for new files the default: every pair (the paper). "sigma": pairs of different
        sigma only, so that regions of one sigma may overlap. None: what the file says.
    read_only : bool, default=False
        Look points up and never write. In a folder that may not be written, the file is read as it is now.
    synchronous : {"full", "normal"}, default="full"
        "full": a region that was returned outlives a power failure, at the price of one wait for the disk each.
        "normal": it outlives the end of every process, SIGKILL included, but perhaps not a power failure, after which
        the same space could be given away again.
    timeout : float, default=30.0
        Seconds to wait while another process writes.

    Raises
    ------
    ValueError
        If the file is damaged, of another program, dimension, version or kind of `groups`, or an argument is wrong.
    OSError
        If it cannot be opened, read or written; `TimeoutError` where other processes keep it busy.

    Notes
    -----
    *Guarantee.* Whatever processes do at the same time, and wherever they are killed: no two conflicting regions
    overlap, in exact arithmetic on their float64 numbers; what was returned is stored; what is stored never changes, so
    a certificate never becomes wrong. If an error is raised, no region was stored, or (where the machine failed or an
    exception came from outside while it was being stored) one that conflicts with nobody.

    Exceptions from outside, such as KeyboardInterrupt, may come at any moment. The next operation brings memory and
    file together again, or refuses to work until the file is opened anew. Operations inside another one, as a signal
    handler might begin, are refused.

    A region of radius 0 would be empty and is not stored. Certified classes do not relax conflicts here: that would
    take certificates at level alpha / n, and n is unknown.

    Every process that may register points can take space from those that come later, though never from those before.

    Memory: 8 bytes a coordinate and region. An insertion looks at a float32 projection of all regions and measures few
    of them. A copy of the file is complete only while no process has it open; `region_map` gives one at any time.

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
        """Build and compile what the first look would have to wait for."""
        with _signals_wait():  # what a handler raised in the midst of a compilation would break the compiler for good
            for unit in (1.0, 1e-200):  # tiny lengths have a loop of their own
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
        """SHA-256 in hexadecimal over dimension, `groups` and all regions so far, in order of arrival."""
        return self._store.digest.hex()

    @_one_at_a_time
    def __len__(self) -> int:
        """Number of regions, those of other processes included."""
        return len(self._balls)

    def __iter__(self) -> Iterator[Region]:
        """Regions in order of arrival, as many as there are now."""
        for k in range(len(self)):
            yield self[k]

    @_one_at_a_time
    def __getitem__(self, index: int) -> Region:
        """Return the region of this index, which may count from the end."""
        balls, n = self._balls, len(self._balls)
        if not -n <= index < n:
            raise IndexError(f"region {index} of {n}")
        k = index % n
        centre = balls.centres(np.array([k]))[0]
        return Region(k, centre, float(balls.radii[k]), float(balls.sigma[k]), int(balls.classes[k]))

    @_one_at_a_time
    def locate(self, point: ArrayLike) -> Location[int, float]:
        """Find the region that holds a point: certify at its sigma, or where none does at one you choose (Eq. 7)."""
        return survey(self._balls, _validate.as_point(point, self.dimension), 0.0).place

    @_one_at_a_time
    def insert(
        self, point: ArrayLike, sigma: SupportsFloat, R: SupportsFloat, *, class_: SupportsIndex = -1
    ) -> Arrival:
        """Give a point that was certified at `sigma` with radius `R` what it can have.

        Parameters
        ----------
        point : array-like, shape (d,) or any that flattens to it
        sigma : float
            Noise level of the certificate: that of the region that holds the point, if one does.
        R : float
            Certified radius, in the units of the points; 0 if the classifier abstained.
        class_ : int, default=-1
            Certified class, kept with the region.

        Returns
        -------
        Arrival
            Outside every region: a new one of radius min(R, distance to the nearest conflicting region), Eq. 8. Inside
            one of the same sigma: radius min(R, distance to its boundary), Eq. 6; with `groups="sigma"` a new region
            around the point if that reaches farther, because it may overlap those of its sigma.

        Raises
        ------
        PointHeld
            If a region of another sigma holds the point, which another process may have stored since you looked; its
            `place` says which. Nothing was stored.
        ValueError, OSError
            As for the class.
        """
        x = _validate.as_point(point, self.dimension)
        level = _validate.as_number(sigma, "sigma", positive=True)
        R = _validate.as_number(R, "R")
        label = int(_validate.as_classes([operator.index(class_)], 1, "class_")[0])
        harmless = level if self.groups == "sigma" else None
        seen = len(self._balls)
        around = survey(self._balls, x, R, harmless)  # regions never change: this is done before others must wait

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
            certify(sigma) -> (sigma, R, class), with fresh samples at every call. Given a sigma, that of the region
            that holds the point, it must use it; given None it chooses (Eq. 7). It is called a second time, and its
            first certificate discarded, only if another process took the point's place meanwhile.

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
            except PointHeld as held:  # for good: regions never change, so the next certificate is at its sigma
                place = held.place

    @_one_at_a_time
    def region_map(self) -> RegionMap:
        """All regions so far as a frozen table, to look many points up at once or to save."""
        balls = self._balls
        return RegionMap(balls.centres(np.arange(len(balls))), balls.radii, balls.sigma, classes=balls.classes)

    def close(self) -> None:
        """Close the file. Every region that was returned is in it already."""
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
        """Make memory what the file says now, whatever the last operation has left behind."""
        if self._process is None:
            raise ValueError(f"{self._store.path} is closed: open it again")
        if self._process != os.getpid():
            raise ValueError(f"{self._store.path} was opened before this process was forked: open it again in here")
        self._store.settle()
        if self._store.count != len(self._balls):  # it was interrupted between taking rows in and counting them
            self._balls = GrowingBalls(self.dimension)
            self._store.rewind()
        self._read()

    def _read(self) -> None:
        """Take in the regions that this and other processes have stored since the last look."""
        self._store.read(self._balls.add)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals to this thread wait until the block ends, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deserves_region(around: Surroundings, sigma: float, R: float, harmless: float | None) -> bool:
    """Whether a region around the point would hold more than the one that holds the point already."""
    place = around.place
    if place.held and (harmless is None or place.sigma != sigma):
        return False
    return around.room > min(R, place.margin)
