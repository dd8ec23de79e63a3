"""Files that are not what they should be, disks that are full: one clear line, and nothing is harmed."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from regions import OnlineAllocator, verify
from regions._online import store as _store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "regions.db"


@pytest.fixture
def filled(path, rng):
    """A closed file with 40 regions of 60 coordinates, and their table."""
    with OnlineAllocator(path, 60, synchronous="normal") as online:
        for x in rng.random((40, 60)):
            online.insert(x, 0.5, 0.8, class_=1)
        return online.region_map()


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


def change(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# --- files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"idx\tlabel\tpredict\n", "is no file of regions"),
        (os.urandom(5000), "is no file of regions"),
        (b"SQLite format 3\0" + bytes(3000), "is damaged: restore a copy"),
        (b"SQLite format 3\0", "is damaged: restore a copy"),
        (b"", "holds no regions yet: give dimension= to create it"),
    ],
)
def test_not_such_a_file(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        OnlineAllocator(path)
    assert str(path) in one_line(caught)
    assert path.read_bytes() == content


def test_the_database_of_another_program(path):
    change(
        path, "CREATE TABLE regions (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO regions VALUES (1, 'Bavaria')"
    )
    content = path.read_bytes()
    for options in ({}, {"dimension": 3}, {"read_only": True}):
        with pytest.raises(ValueError, match="is a SQLite file of another program: give another path") as caught:
            OnlineAllocator(path, **options)
        one_line(caught)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["regions.db"]


def test_a_newer_schema(path, filled):
    change(path, "PRAGMA user_version = 2")
    with pytest.raises(ValueError, match="has schema version 2, and this program reads version 1: use the program"):
        OnlineAllocator(path)


def test_other_settings_than_the_file_has(path, filled):
    with pytest.raises(ValueError, match="holds regions of 60 coordinates, not dimension = 784"):
        OnlineAllocator(path, 784)
    with pytest.raises(ValueError, match="was made with groups = 'none', not 'sigma': give another path"):
        OnlineAllocator(path, groups="sigma")
    for options, message in (
        ({"groups": "class"}, "groups = 'class': choose 'none', 'sigma'"),
        ({"dimension": 0}, "dimension = 0: expected 1 to 1048576 coordinates"),
        ({"synchronous": "off"}, "synchronous = 'off': choose 'full', 'normal'"),
        ({"timeout": -1.0}, "timeout = -1.0: expected a number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            OnlineAllocator(path.with_name("new.db"), **{"dimension": 3, **options})
    assert not path.with_name("new.db").exists()
    with OnlineAllocator(path, 60, groups="none") as online:
        assert len(online) == 40


def test_paths_that_lead_nowhere(path):
    with pytest.raises(ValueError, match="does not exist: give dimension= to create it"):
        OnlineAllocator(path)
    with pytest.raises(FileNotFoundError, match="does not exist: nothing to read"):
        OnlineAllocator(path, 3, read_only=True)
    with pytest.raises(FileNotFoundError, match="create this folder first"):
        OnlineAllocator(path / "deeper" / "regions.db", 3)
    with pytest.raises(ValueError, match="is a folder: give the path of a file"):
        OnlineAllocator(path.parent, 3)
    assert not list(path.parent.iterdir())


def test_odd_names(tmp_path):
    path = tmp_path / "a?b#c d%20.db"
    OnlineAllocator(path, 3).close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with OnlineAllocator(str(path)) as online:
        assert online.dimension == 3


@pytest.mark.parametrize("left", [10, 100, 4000, 8192, 40000, -8192, -1])
def test_truncated(path, filled, left):
    content = path.read_bytes()
    path.write_bytes(content[:left])
    with pytest.raises(ValueError, match=r"is damaged|is no file of regions") as caught:
        OnlineAllocator(path)
    one_line(caught)


def test_flipped_bytes_are_noticed_or_do_not_matter(path, filled, rng):
    content = path.read_bytes()
    messages = []
    for _ in range(150):
        changed = bytearray(content)
        changed[rng.integers(len(content)) if rng.random() < 0.8 else rng.integers(200)] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            with OnlineAllocator(path, read_only=True) as online:
                table = online.region_map()
        except (ValueError, OSError) as error:
            messages.append(str(error))
        else:
            for name in ("centres", "radii", "sigma", "classes"):
                np.testing.assert_array_equal(getattr(table, name), getattr(filled, name))
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


TAMPERING = {
    "radius": "UPDATE regions SET radius = radius * 1.5 WHERE id = 7",
    "sigma": "UPDATE regions SET sigma = 1.0 WHERE id = 7",
    "class": "UPDATE regions SET class = 2 WHERE id = 40",
    "centre": "UPDATE regions SET centre = zeroblob(480) WHERE id = 7",
    "short centre": "UPDATE regions SET centre = zeroblob(8) WHERE id = 7",
    "text": "UPDATE regions SET centre = 'text' WHERE id = 7",
    "first row": "DELETE FROM regions WHERE id = 1",
    "last row": "DELETE FROM regions WHERE id = 40",
    "order": "UPDATE regions SET id = 41 WHERE id = 7",
    "one more": "INSERT INTO regions SELECT 41, radius, sigma, class, centre, digest FROM regions WHERE id = 1",
    "no state": "DELETE FROM state",
    "state of another type": "UPDATE state SET regions = 'many'",
    "dimension": "UPDATE state SET dimension = 30",
    "conflicts": "UPDATE state SET conflicts = 'sigma'",
    "no table": "DROP TABLE regions",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
def test_rows_changed_by_others_are_noticed(path, filled, statement):
    change(path, statement)
    with pytest.raises(ValueError, match=r"is damaged .*: restore a copy") as caught:
        OnlineAllocator(path)
    one_line(caught)


FOREIGN = {
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON regions BEGIN DELETE FROM regions WHERE id = 1; END", "trigger t"),
    "view": ("CREATE VIEW v AS SELECT * FROM regions", "view v"),
    "index": ("CREATE INDEX i ON regions (radius)", "index i"),
    "table": ("CREATE TABLE more (x)", "table more"),
    "column": ("ALTER TABLE regions ADD COLUMN more", "table regions"),
    "generated column": ("ALTER TABLE state ADD COLUMN twice AS (regions * 2)", "table state"),
    "statistics": ("ANALYZE", "table sqlite_stat1"),
    "other words": ("ALTER TABLE state RENAME COLUMN conflicts TO groups", "table state"),
}


@pytest.mark.parametrize(("statement", "what"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"dimension": 60}])
def test_what_the_program_did_not_make_is_refused(path, filled, statement, what, options):
    change(path, statement)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=f"holds a '{what}' that this program does not write") as caught:
        OnlineAllocator(path, **options)
    one_line(caught)
    assert path.read_bytes() == content


def test_a_view_in_place_of_a_table(path, filled):
    change(path, "ALTER TABLE regions RENAME TO kept", "CREATE VIEW regions AS SELECT * FROM kept")
    with pytest.raises(ValueError, match="that this program does not write"):
        OnlineAllocator(path)


def forged(path, *, dimension=3, groups="none", radius=1.0, sigma=0.5, class_=0, centre=None, count=1):
    """A file with one region whose digests fit: whoever writes it on purpose can make them so."""
    OnlineAllocator(path, 3).close()
    blob = np.zeros(3).astype("<f8").tobytes() if centre is None else centre
    digest = _store._seed(dimension if isinstance(dimension, int) else 3, groups)
    values = [value if isinstance(value, (int, float)) else 0 for value in (radius, sigma, class_)]
    digest = _store._digest(digest, 1, float(values[0]), float(values[1]), int(values[2]), blob)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("INSERT INTO regions VALUES (1, ?, ?, ?, ?, ?)", (radius, sigma, class_, blob, digest))
    settings = (dimension, groups, count, digest)
    connection.execute("UPDATE state SET dimension = ?, conflicts = ?, regions = ?, digest = ?", settings)
    connection.commit()
    connection.close()


def test_a_forged_file_may_be_right(path):
    forged(path)
    with OnlineAllocator(path) as online:
        assert online[0].radius == 1.0


def coordinates(*values):
    return np.array(values).astype("<f8").tobytes()


FORGED = {
    "endless radius": {"radius": np.inf},
    "negative radius": {"radius": -1.0},
    "zero radius": {"radius": 0.0},
    "huge radius": {"radius": 1e160},
    "endless sigma": {"sigma": np.inf},
    "negative sigma": {"sigma": -0.5},
    "text for a class": {"class_": "cat"},
    "not a number": {"centre": coordinates(0.0, np.nan, 0.0)},
    "endless centre": {"centre": coordinates(0.0, 0.0, -np.inf)},
    "huge centre": {"centre": coordinates(0.0, 0.0, 1e200)},
    "no dimension": {"dimension": 0, "centre": b""},
    "negative dimension": {"dimension": -3},
    "huge dimension": {"dimension": 1 << 40},
    "one too many": {"dimension": (1 << 20) + 1},
    "text for a dimension": {"dimension": "three"},
    "other conflicts": {"groups": "class"},
    "huge count": {"count": (1 << 63) - 1},
    "negative count": {"count": -1},
    "huge blob": {"centre": bytes(20_000_000)},
}


@pytest.mark.parametrize("values", FORGED.values(), ids=FORGED)
def test_a_forged_file_is_refused(path, values):
    forged(path, **values)
    for options in ({}, {"read_only": True}):
        with pytest.raises(ValueError, match=r"is damaged .*: restore a copy") as caught:
            OnlineAllocator(path, **options)
        assert str(path) in one_line(caught)


def test_many_coordinates_take_no_memory_in_advance(path):
    forged(path, dimension=1 << 20, centre=bytes(8 << 20))
    tracemalloc.start()
    with OnlineAllocator(path) as online:
        assert len(online) == 1
        assert online.locate(np.full(1 << 20, 2.0**-11)).margin == pytest.approx(0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 8 * (1 << 20)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["folder", "noise", "loop", "pipe"])
def test_odd_files_beside_it(path, filled, suffix, kind):
    beside = path.with_name(path.name + suffix)
    if kind == "folder":
        beside.mkdir()
    elif kind == "loop":
        beside.symlink_to(beside.name)
    elif kind == "pipe" and suffix == "-journal":
        os.mkfifo(beside)
    else:
        beside.write_bytes(os.urandom(5000))
    message = str(path)
    try:
        with OnlineAllocator(path) as online:
            np.testing.assert_array_equal(online.region_map().radii, filled.radii)
    except (ValueError, OSError) as error:
        message = str(error)
    assert "\n" not in message
    assert str(path) in message


def test_a_journal_that_names_another_file_deletes_nothing(path, filled):
    # SQLite deletes the file named there once it has looked at the journal
    other = path.with_name("other.txt")
    other.write_text("precious")
    name = str(other).encode()
    record = (9000).to_bytes(4, "big") + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big")
    path.with_name(path.name + "-journal").write_bytes(bytes(512) + record + _store._SUPER_JOURNAL)
    for options in ({}, {"read_only": True}):
        with pytest.raises(ValueError, match="was not written by this program: remove it") as caught:
            OnlineAllocator(path, **options)
        one_line(caught)
    assert other.read_text() == "precious"


def test_no_regular_file(tmp_path):
    pipe, loop = tmp_path / "pipe.db", tmp_path / "loop.db"
    os.mkfifo(pipe)
    loop.symlink_to(loop.name)
    for path in (pipe, loop, Path("/dev/null")):
        for options in ({"dimension": 3}, {}, {"read_only": True}):
            with pytest.raises((ValueError, OSError)) as caught:
                OnlineAllocator(path, **options)
            assert str(path) in one_line(caught)


def test_changed_while_open(path, filled):
    with OnlineAllocator(path) as online:
        change(path, "UPDATE state SET regions = 39")
        with pytest.raises(ValueError, match="is damaged"):
            online.locate(np.zeros(60))


@pytest.mark.parametrize("replace", [False, True])
def test_deleted_or_replaced_while_open(path, filled, replace):
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    with OnlineAllocator(path) as online:
        path.unlink()
        if replace:
            copy.rename(path)
        message = "was replaced while it was open" if replace else "was deleted while it was open"
        for use in (lambda: online.locate(np.zeros(60)), lambda: online.insert(np.zeros(60), 0.5, 0.1)):
            with pytest.raises(OSError, match=message):
                use()


def test_locked_by_another_process(path, filled):
    with OnlineAllocator(path, timeout=0.05) as online:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert not online.locate(np.full(60, 9.0)).held  # readers go on
        with pytest.raises(TimeoutError, match=r"is in use by another process: wait for it, or raise timeout="):
            online.insert(np.full(60, 9.0), 0.5, 0.1)
        other.execute("ROLLBACK")
        other.close()
        assert online.insert(np.full(60, 9.0), 0.5, 0.1).created


def run_python(script, *arguments, **options):
    """Run a script of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_may_not_be_written(path, filled):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        copy = Path(shutil.copy(path, folder))
        copy.chmod(0o444)
        Path(folder).chmod(0o555)
        printed = run_python(
            """
            import os, sys, tempfile
            import numpy, regions
            with tempfile.TemporaryDirectory() as other:  # all is loaded and compiled before rights are given up
                regions.OnlineAllocator(f"{other}/r.db", 60).close()
            if os.getuid() == 0:
                os.setuid(65534)
            try:
                regions.OnlineAllocator(sys.argv[1])
            except OSError as error:
                print(error)
            with regions.OnlineAllocator(sys.argv[1], read_only=True) as online:
                print(online.content_hash, len(online))
            """,
            copy,
        )
        Path(folder).chmod(0o755)
    with OnlineAllocator(path) as online:
        assert printed.splitlines() == [
            f"{copy} may not be written: change its permissions, or give read_only=True",
            f"{online.content_hash} 40",
        ]


# --- disks ---


def test_no_room_for_another_page(path, filled, rng):
    with OnlineAllocator(path) as online:
        pages = online._store._connection.execute("PRAGMA page_count").fetchone()[0]
        online._store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        stored, messages = 40, set()
        for x in rng.random((60, 60)):
            try:
                stored += online.insert(x, 0.5, 0.8).created
            except OSError as error:
                messages.add(str(error))
        assert messages == {f"{path} cannot grow, and nothing was stored: free some disk space and try again"}
        assert len(online) == stored > 40
        online._store._connection.execute("PRAGMA max_page_count = 100000")
        assert online.insert(np.full(60, 2.0), 0.5, 0.8).created
    with OnlineAllocator(path) as again:
        table = again.region_map()
    assert len(table) == stored + 1
    np.testing.assert_array_equal(table.centres[:40], filled.centres)
    assert verify(table.centres, table.radii)


WRITE_UNTIL_FULL = """
    import os, resource, sys
    import numpy as np, regions
    path, limit, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.dont_write_bytecode = True  # a cut .pyc file would break all later imports
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = np.random.default_rng(seed)
    try:
        online = regions.OnlineAllocator(path, 60)
        for x in rng.random((500, 60)):
            arrival = online.insert(x, 0.5, 0.8)
            if arrival.created:
                print(arrival.region, arrival.radius.hex(), flush=True)
    except OSError as error:
        print("error", error, flush=True)
    os._exit(0)  # no farewell: the file stays as the failure left it
"""


@pytest.mark.parametrize("limit", [0, 1000, 8192, 10000, 40000, 150000, 300000])
def test_the_disk_fills_up(path, limit):
    *stored, last = run_python(WRITE_UNTIL_FULL, path, limit, limit).splitlines()
    assert last.startswith(f"error {path} cannot "), last
    assert "and nothing was stored: free" in last
    assert limit < 100000 or len(stored) > 5
    with OnlineAllocator(path, 60) as online:  # there is room again
        table = online.region_map()
        for line in stored:
            region, radius = line.split()
            assert table.radii[int(region)] == float.fromhex(radius)
        assert len(table) == len(stored)
        assert verify(table.centres, table.radii)
        assert online.insert(np.full(60, 2.0), 0.5, 0.8).created


def test_a_forked_child_must_open_its_own(path, filled):
    printed = run_python(
        """
        import os, sys
        import regions
        with regions.OnlineAllocator(sys.argv[1]) as online:
            child = os.fork()
            if not child:
                try:
                    len(online)
                except ValueError as error:
                    print(error, flush=True)
                online.close()
                os._exit(0)
            os.waitpid(child, 0)
            print(len(online))
        """,
        path,
    )
    assert printed == f"{path} was opened before this process was forked: open it again in here\n40\n"
