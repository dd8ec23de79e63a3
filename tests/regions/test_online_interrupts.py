"""An exception may land anywhere: memory and file agree afterwards, or the object refuses to work until reopened."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from regions import OnlineAllocator
from regions._online import balls as _growing
from regions._online import store as _store
from regions._online.balls import GrowingBalls
from regions._online.nearby import BallFilter
from tests.regions import online_interruptions as interruptions
from tests.regions.online_interruptions import Landed, check, insert, refuses


@pytest.fixture
def path(tmp_path):
    return tmp_path / "regions.db"


@pytest.fixture
def small(monkeypatch):
    """Small blocks, so that every branch is taken time and again."""
    monkeypatch.setattr(_store, "_BLOCK", 3)
    monkeypatch.setattr(_growing, "_CHUNK", 4)
    monkeypatch.setattr(_growing, "_FEW", 5)
    monkeypatch.setattr(_growing, "_GROWN", 2)


@pytest.mark.parametrize(
    ("groups", "again", "operations"),
    [
        ("none", 0, ("len", "hash", "item", "iteration", "locate", "map", "opening")),
        ("none", 0, ("insert", "arrive")),
        ("sigma", 0, ("insert",)),
        ("none", 1, ("insert",)),
        ("none", 4, ("insert",)),
    ],
)
def test_at_every_line(tmp_path, groups, again, operations):
    done = subprocess.run(
        [sys.executable, interruptions.__file__, tmp_path, groups, str(again), *operations],
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # threads that wait for work would take most of the time
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["operation"] for line in found] == list(operations)
    for line in found:
        assert line["lines"] > 30
        assert line["reopened"] <= 0.05 * line["lines"]
        assert line["regions"] > 40


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", [(GrowingBalls, "add"), (BallFilter, "add"), (GrowingBalls, "near")])
@pytest.mark.parametrize("after", [False, True])
def test_before_and_after_memory_changes(path, rng, monkeypatch, kind, where, after):
    owner, name = where
    real = getattr(owner, name)

    def failing(*arguments):
        if after:
            real(*arguments)
        raise kind("once")

    with OnlineAllocator(path, 2) as online, OnlineAllocator(path, 2) as other:
        for k in range(40):
            insert(other, rng)
            if k % 2:
                monkeypatch.setattr(owner, name, failing)
                with contextlib.suppress(kind):
                    insert(online, rng)
                monkeypatch.setattr(owner, name, real)
            insert(online, rng)
        check(path, online, "none")


class Failing:
    """A connection that raises just before or just after a statement."""

    def __init__(self, connection):
        self.connection, self.statement, self.after = connection, None, False

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, statement, *arguments):
        hit = self.statement is not None and statement.startswith(self.statement)
        if hit and not self.after:
            raise Landed
        result = self.connection.execute(statement, *arguments)
        if hit:
            raise Landed
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("statement", ["BEGIN", "SELECT", "INSERT INTO regions", "UPDATE state", "COMMIT"])
def test_around_every_statement(path, statement, after):
    with OnlineAllocator(path, 2) as online, OnlineAllocator(path, timeout=0.05) as other:
        online._store._connection = connection = Failing(online._store._connection)
        stored = 0
        for k in range(10):
            connection.statement, connection.after = statement, after
            with pytest.raises(Landed):
                online.insert([k, 0.0], 0.5, 0.4)
            connection.statement = None
            stored += (statement, after) == ("COMMIT", True)
            assert len(online) == len(other) == stored  # nothing, or all of it
            stored += other.insert([k, 5.0], 0.5, 0.4).created  # no lock is left behind
            stored += online.insert([k, 9.0], 0.5, 0.4).created
        check(path, online, "none")


def test_rolling_back_is_interrupted_too(path):
    with OnlineAllocator(path, 2) as online, OnlineAllocator(path, timeout=0.05) as other:
        online._store._connection = connection = Failing(online._store._connection)
        roll_back = online._store._roll_back

        def interrupted():
            if connection.in_transaction:
                raise Landed

        for k in range(5):
            connection.statement, connection.after = "UPDATE state", True
            online._store._roll_back = interrupted
            with pytest.raises(Landed):
                online.insert([k, 0.0], 0.5, 0.4)
            connection.statement = None
            online._store._roll_back = roll_back
            with pytest.raises(TimeoutError):
                other.insert([k, 5.0], 0.5, 0.4)  # it waits for the transaction that was left open ...
            assert online.insert([k, 0.0], 0.5, 0.4).created  # ... which the next operation ends
            assert other.insert([k, 5.0], 0.5, 0.4).created
        check(path, online, "none")


def test_a_signal_handler_cannot_work_inside_an_operation(path, rng, monkeypatch):
    messages = []
    with OnlineAllocator(path, 2) as online:

        def handler(*_):
            for use in (lambda: online.insert([9.0, 9.0], 0.5, 0.4), lambda: len(online), online.region_map):
                with pytest.raises(ValueError, match="in the midst of an operation") as caught:
                    use()
                messages.append(str(caught.value))

        append = _store.Store.append

        def interrupted(*arguments):
            signal.raise_signal(signal.SIGUSR1)
            return append(*arguments)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            monkeypatch.setattr(_store.Store, "append", interrupted)
            assert online.insert([0.0, 0.0], 0.5, 0.4).created
        finally:
            signal.signal(signal.SIGUSR1, before)
        monkeypatch.undo()
        assert len(messages) == 3
        assert not any("\n" in message for message in messages)
        assert len(check(path, online, "none")) == 1


def test_closed_by_a_signal_handler_inside_an_operation(path, monkeypatch):
    online = OnlineAllocator(path, 2)
    append = _store.Store.append

    def closing(*arguments):
        online.close()
        return append(*arguments)

    monkeypatch.setattr(_store.Store, "append", closing)
    with pytest.raises(ValueError, match="was closed while it was in use: open it again"):
        online.insert([0.0, 0.0], 0.5, 0.4)
    with pytest.raises(ValueError, match="is closed: open it again"):
        len(online)
    with OnlineAllocator(path) as again:
        assert len(again) == 0


@pytest.mark.usefixtures("small")
def test_threads_go_on_where_one_of_them_fails(path, monkeypatch):
    failing = threading.local()
    add = GrowingBalls.add

    def sometimes(self, rows):
        failing.count = getattr(failing, "count", 0) + 1
        if failing.count % 5 == 0:
            raise MemoryError("once")
        add(self, rows)

    failures = []

    def work(online, seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            try:
                insert(online, rng)
            except MemoryError as error:
                failures.append(error)

    with OnlineAllocator(path, 2, synchronous="normal") as online:
        monkeypatch.setattr(GrowingBalls, "add", sometimes)
        threads = [threading.Thread(target=work, args=(online, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.setattr(GrowingBalls, "add", add)
        check(path, online, "none")
    assert failures


# Python only reports, and does not raise, what lands in a callback of its garbage collector, such as Hypothesis has.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_by_a_timer(path, rng):
    def alarm(*_):
        raise KeyboardInterrupt

    landed = 0
    online = OnlineAllocator(path, 2, synchronous="normal")
    insert(online, rng)
    insert(online, rng)  # all is loaded
    before = signal.signal(signal.SIGALRM, alarm)
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-5, 1.2e-3))
                try:
                    insert(online, rng)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                landed += 1
            if refuses(online):
                online.close()
                online = OnlineAllocator(path, synchronous="normal")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for _ in range(100):
        insert(online, rng)
    check(path, online, "none")
    online.close()
    assert landed


def test_an_interrupted_generator_ends_nothing_later(path):
    # A frame that an exception keeps alive must not roll back when it is thrown away.
    with OnlineAllocator(path, 2) as online:
        with OnlineAllocator(path) as other:
            other.insert([0.0, 0.0], 0.5, 0.4)
        connection = online._store._connection

        def fail(*_):
            raise Landed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GrowingBalls, "add", fail)
            with pytest.raises(Landed) as caught:
                len(online)
        real = online._store.append

        def append(*arguments):
            caught.__dict__.clear()  # the last reference to the frames
            return real(*arguments)

        online._store.append = append
        assert online.insert([5.0, 0.0], 0.5, 0.4).created
        assert connection.execute("SELECT count(*) FROM regions").fetchone() == (2,)
    assert sqlite3.connect(path).execute("SELECT regions FROM state").fetchone() == (2,)


#: Opens a file and uses it; fails where a loop was compiled after it was open.
USE = """
import sys
import numpy as np
from regions import OnlineAllocator, PointHeld
from regions._arithmetic import loops

compiled = [value for value in vars(loops).values() if hasattr(value, "signatures")]
with OnlineAllocator(sys.argv[1], 3, groups="sigma", synchronous="normal") as online:
    ready = [len(loop.signatures) for loop in compiled]
    assert sum(ready) >= 3
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-200):
        for _ in range(100):
            try:
                online.insert(rng.random(3) * scale, float(rng.choice([0.25, 0.5])), scale)
            except PointHeld:
                pass
            online.locate(rng.random(3) * scale)
    online.region_map()
    assert [len(loop.signatures) for loop in compiled] == ready
"""


def test_nothing_is_left_to_compile_once_a_file_is_open(tmp_path):
    # An exception that a signal handler raises while numba compiles can break numba, or end the process.
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "r.db")],
        capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
