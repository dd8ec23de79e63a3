"""Several processes at one file, and processes that are killed: nothing overlaps and nothing acknowledged is lost."""

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from regions import OnlineAllocator, verify
from tests import oracles

PROGRAM = Path(__file__).with_name("online_workers.py")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "regions.db"


def run(path, *arguments):
    command = [sys.executable, str(PROGRAM), str(path), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(path, groups, acknowledged):
    """No overlap, exactly; everything acknowledged is stored; everything certified lies in a region of its sigma."""
    with OnlineAllocator(path) as online:
        table = online.region_map()
        assert online.insert(np.full(3, 100.0), 0.5, 1.0).created
    assert verify(table.centres, table.radii, groups=table.sigma if groups == "sigma" else None)
    indices = [line["region"] for line in acknowledged if line["created"]]
    assert len(set(indices)) == len(indices)
    for line in acknowledged:
        x, radius = [float.fromhex(v) for v in line["point"]], float.fromhex(line["radius"])
        if line["region"] < 0:
            assert radius == 0
            continue
        region = line["region"]
        assert table.sigma[region] == line["sigma"]
        if line["created"]:
            assert table.centres[region].tolist() == x
            assert table.radii[region] == radius
            assert table.classes[region] == 1
        else:
            left = Fraction(float(table.radii[region])) - Fraction(radius)
            assert left >= 0
            assert oracles.squared_distance(x, table.centres[region]) <= left**2
    return table


@pytest.mark.parametrize("groups", ["none", "sigma"])
def test_processes_hammer_one_new_file(path, groups):
    acknowledged = run(path, groups, "hammer", 5, 60)
    assert len(acknowledged) == 5 * 60
    table = check(path, groups, acknowledged)
    assert len(table) == sum(line["created"] for line in acknowledged)  # not one more
    assert len(table) > 40


@pytest.mark.parametrize("groups", ["none", "sigma"])
def test_kills_at_random_moments(path, groups):
    rounds = 30
    acknowledged = run(path, groups, "kill", rounds, 5)
    table = check(path, groups, acknowledged)
    created = sum(line["created"] for line in acknowledged)
    assert created <= len(table) <= created + 2 * rounds  # a kill may come between storing and saying so
    assert len(table) > 50
    assert len(acknowledged) > 3 * rounds


KILLED = """
import os, signal, sys
from regions import OnlineAllocator
from regions._online import store as _store
class Connection:
    # Dies just before or just after one statement
    def __init__(self, connection):
        self.connection = connection
    def __getattr__(self, name):
        return getattr(self.connection, name)
    def execute(self, statement, *arguments):
        if statement.startswith(sys.argv[2]) and sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = self.connection.execute(statement, *arguments)
        if statement.startswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
connect = _store.sqlite3.connect
if sys.argv[4] == "opening":
    _store.sqlite3.connect = lambda *a, **k: Connection(connect(*a, **k))
with OnlineAllocator(sys.argv[1], 3, synchronous="normal") as online:
    online.insert([0.0, 0.0, 0.0], 0.5, 1.0)
    online._store._connection = Connection(online._store._connection)
    online.insert([5.0, 0.0, 0.0], 0.5, 1.0)
"""


def kill(path, statement, when, stage):
    done = subprocess.run([sys.executable, "-c", KILLED, path, statement, when, stage], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("statement", "when", "stored"),
    [
        ("BEGIN", "after", 1),
        ("INSERT INTO regions", "after", 1),
        ("UPDATE state", "after", 1),
        ("COMMIT", "before", 1),
        ("COMMIT", "after", 2),
    ],
)
def test_killed_while_inserting(path, statement, when, stored):
    kill(path, statement, when, "inserting")
    with OnlineAllocator(path) as online:
        assert len(online) == stored
        assert online.insert([0.0, 3.0, 0.0], 0.5, 9.0).radius == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("statement", "when"),
    [
        ("PRAGMA journal_mode", "before"),
        ("PRAGMA journal_mode", "after"),
        ("CREATE TABLE", "after"),
        ("INSERT INTO state", "after"),
        ("PRAGMA user_version = ", "after"),
        ("COMMIT", "after"),
    ],
)
def test_killed_while_creating(path, statement, when):
    kill(path, statement, when, "opening")
    with OnlineAllocator(path, 3) as online:
        assert len(online) == 0
        assert online.insert([0.0, 3.0, 0.0], 0.5, 9.0).radius == 9.0
