"""Exceptions at every line of OnlineAllocator: a program of its own, since the tests' type checks would be traced too.

python online_interruptions.py FOLDER GROUPS AGAIN OPERATION ...

Prints one JSON line for every operation, once memory, file and exact arithmetic agree.
"""

import json
import sys
from pathlib import Path

import numpy as np

import regions
from regions import OnlineAllocator, PointHeld, verify
from regions._online import balls as _growing
from regions._online import store as _store

SIGMAS = (0.25, 0.5)
OURS = str(regions.__path__[0])
_EVERY = 400  # lines from the start, of which none is left out


class Landed(BaseException):
    """What the tests raise: nothing of ours catches it by name."""


class Interruption:
    """Raises `Landed` at the lines of our code with these numbers, counted from the start of the block."""

    def __init__(self, *lines):
        self.lines, self.passed, self.where = set(lines), 0, ""

    def __enter__(self):
        sys.settrace(self._call)
        return self

    def __exit__(self, kind, error, trace):
        sys.settrace(None)
        return kind is Landed

    def _call(self, frame, event, argument):
        ours = frame.f_code.co_filename.startswith(OURS)
        return self._line if ours else None

    def _line(self, frame, event, argument):
        if event == "line":
            self.passed += 1
            if self.passed in self.lines:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                raise Landed
        return self._line


def point(rng):
    """A point of the plane, near many others."""
    return rng.random(2) * 4


def certify(rng):
    return lambda sigma: (rng.choice(SIGMAS) if sigma is None else sigma, 0.4, 1)


def insert(online, rng):
    try:
        return online.insert(point(rng), rng.choice(SIGMAS), 0.4)
    except PointHeld:
        return None


OPERATIONS = {
    "len": lambda online, rng: len(online),
    "hash": lambda online, rng: online.content_hash,
    "item": lambda online, rng: online[-1],
    "iteration": lambda online, rng: next(iter(online)),
    "locate": lambda online, rng: online.locate(point(rng)),
    "insert": insert,
    "arrive": lambda online, rng: online.arrive(point(rng), certify(rng)),
    "map": lambda online, rng: online.region_map(),
}


def check(path, online, groups):
    """Memory is the file, and no two conflicting regions overlap, with zero tolerance."""
    with OnlineAllocator(path, read_only=True) as other:
        stored, digest = other.region_map(), other.content_hash
    mine = online.region_map()
    for name in ("centres", "radii", "sigma", "classes"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(stored, name))
    assert online.content_hash == digest
    checked = verify(stored.centres, stored.radii, groups=stored.sigma if groups == "sigma" else None)
    assert checked, checked.status
    for k in range(0, len(stored), 7):  # what is looked up is what is stored
        assert online.locate(stored.centres[k]).held
    return stored


OPERATIONS["opening"] = lambda online, rng: OnlineAllocator(online._store.path, synchronous="normal").close()


def refuses(online):
    """Whether the object says that it is in the midst of an operation; whatever else it says is an error."""
    try:
        len(online)
    except ValueError as error:
        if "open the file again" not in str(error):
            raise
        return True
    return False


def sweep(path, groups, again, name):
    """Interrupt the operation at its first line, at its second, and so on, and go on with the same object each time.

    `again`: so many lines later a second exception lands, in what the first one set off; 0: none.
    """
    rng = np.random.default_rng(0)
    online = OnlineAllocator(path, 2, groups=groups, synchronous="normal")
    caught, reopened, refused = [], 0, set()
    with OnlineAllocator(path, synchronous="normal") as other:
        line = 0
        while True:
            line += 1 if line < _EVERY else line // 10  # a map has lines for each region
            insert(other, rng)
            insert(other, rng)  # there is something to read
            with Interruption(line, *([line + again] if again else [])) as landing:
                try:
                    OPERATIONS[name](online, rng)
                except Landed as error:
                    caught.append(error)  # its frames live on
                    raise
            if landing.passed < line:
                break
            if refuses(online):
                reopened += 1
                refused.add(landing.where)
                online.close()
                online = OnlineAllocator(path, synchronous="normal")
            insert(other, rng)  # no transaction is left open
            insert(online, rng)
            if len(caught) % 20 == 0:
                check(path, online, groups)
    stored = check(path, online, groups)
    online.close()
    return {
        "operation": name,
        "lines": len(caught),
        "reopened": reopened,
        "refused": sorted(refused),
        "regions": len(stored),
    }


def main(folder, groups, again, *names):
    """Sweep, with blocks so small that every branch is taken time and again."""
    _store._BLOCK, _growing._CHUNK, _growing._FEW, _growing._GROWN = 3, 4, 5, 2
    for name in names or OPERATIONS:
        print(json.dumps(sweep(Path(folder) / f"{name}.db", groups, int(again), name)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
