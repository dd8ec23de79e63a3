"""Tables of points from elsewhere: read exactly, refused with row and column, written whole."""

import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import srs.point_tables
from srs.point_tables import arrays_as_table, is_table, read_table


def table(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


def test_csv_is_read_by_names(tmp_path):
    found = table(tmp_path, '\ufeffname, x ,y,R\n"a, ""b""\nc",1,-2.5e-1,0.1\r\n\n  d,.5,+3.,1E2\n')
    assert list(found.columns) == ["name", "x", "y", "R"]
    assert found.coordinates().tolist() == [[1.0, -0.25], [0.5, 3.0]]
    assert found.numbers("R").tolist() == [0.1, 100.0]
    assert found.columns["name"] == ['a, "b"\nc', "d"]
    assert found.labels("name").tolist() == [0, 1]


@pytest.mark.parametrize(("name", "mark"), [("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.tsv", "\t")])
def test_values_are_separated_by_what_the_first_line_has(tmp_path, name, mark):
    found = table(tmp_path, f"x{mark}R\n1{mark}2\n", name)
    assert found.coordinates().tolist() == [[1.0]]
    found.write_with(tmp_path / f"out{name[1:]}", "radius", np.array([0.5]))
    assert (tmp_path / f"out{name[1:]}").read_text() == f"x{mark}R{mark}radius\n1{mark}2{mark}0.5\n"


def test_coordinates_without_names(tmp_path):
    assert table(tmp_path, "z,x,y,w\n3,1,2,4\n").coordinates().tolist() == [[1, 2, 3]]
    assert table(tmp_path, "x10,x2,x0,R\n10,2,0,9\n").coordinates().tolist() == [[0, 2, 10]]
    assert table(tmp_path, "lon,lat\n1,2\n").coordinates(["lat", "lon"]).tolist() == [[2, 1]]
    with pytest.raises(
        ValueError, match=r"has no columns x, y or x0, x1: .*--columns lon lat; its columns are lon, lat"
    ):
        table(tmp_path, "lon,lat\n1,2\n").coordinates()


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_written_radii_are_read_as_the_same_floats(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("tables")
    radii = np.abs(np.array(values))
    table(folder, "x\n" + "1\n" * len(values)).write_with(folder / "out.csv", "radius", radii)
    np.testing.assert_array_equal(read_table(folder / "out.csv").numbers("radius"), radii)


def test_labels_are_equal_where_their_text_is(tmp_path):
    """Numbers that float64 cannot tell apart are different labels: a pair too many that conflicts is safe."""
    found = table(tmp_path, "g\n9007199254740992\n9007199254740993\n0.5\n0.50\n9007199254740992\n")
    assert found.labels("g").tolist() == [0, 1, 2, 3, 0]


def test_a_point_without_a_label_is_refused(tmp_path):
    """Of one empty label, all of them would be one class, whose regions may overlap."""
    with pytest.raises(ValueError, match=r"t\.csv, line 3, column g: no label; give a point without one a unique one"):
        table(tmp_path, "x,g\n1,a\n1, \n").labels("g")
    parquet.write_table(pa.table({"g": ["a", ""]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet, row 2, column g: no label"):
        read_table(tmp_path / "t.parquet").labels("g")


BAD = {
    "word": ("x,R\n1,2\n1,two\n", "t.csv, line 3, column R: 'two' is no number"),
    "comma": ("x;R\n1;2,5\n", "t.csv, line 2, column R: '2,5' is no number; write decimals with a point"),
    "nothing": ("x,R\n1,\n", "t.csv, line 2, column R: no value"),
    "nan": ("x,R\n1,nan\n", "t.csv, line 2, column R: 'nan' is no number"),
    "underscore": ("x,R\n1,1_0\n", "t.csv, line 2, column R: '1_0' is no number"),
    "digits of another script": ("x,R\n1,\u0663\n", "is no number"),
    "too large": ("x,R\n1,1e999\n", "t.csv, line 2, column R: inf is not a finite number >= 0"),
    "negative": ("x,R\n1,1\n\n1,-3\n", "t.csv, line 4, column R: -3 is not a finite number >= 0"),
    "few": ("x,R\n1\n", "t.csv, line 2: 1 values for the 2 columns"),
    "many": ("x,R\n1,2,3\n", "t.csv, line 2: 3 values for the 2 columns"),
    "twice": ("R,x,R\n1,2,3\n", "t.csv, line 1: two columns are named 'R'; rename one"),
    "absent": ("x,radius\n1,2\n", "t.csv has no column 'R': its columns are x, radius"),
    "control": ("x,\x1b[31m\n1,2\n", r"its columns are x, \x1b[31m"),
    "empty": ("\n\n", "t.csv is empty: its first line names the columns"),
    "open quote": ('x,R\n1,"2\n', "t.csv, line 2: unexpected end of data"),
    "quote inside": ('x,R\n1,"2"3\n', "t.csv, line 2: ',' expected after '\"'"),
    "huge value": ("x,R\n1," + "7" * 200_000 + "\n", "t.csv, line 2: field larger than field limit"),
    "binary": (b"x,R\n\xff\xfe", "t.csv is no text: byte 4 is not UTF-8"),
    "utf-16": ("x,R\n1,2\n".encode("utf-16"), "t.csv is no text: byte 0 is not UTF-8"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_with_row_and_column(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"t\.csv") as refused:
        table(tmp_path, text).numbers("R", signed=False)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(srs.point_tables, "MOST_CELLS", 6)
    assert table(tmp_path, "x,R\n" + "1,2\n" * 3).numbers("R").size == 3
    with pytest.raises(ValueError, match=r"has more than 6 cells: save it as \.parquet"):
        table(tmp_path, "x,R\n" + "1,2\n" * 4)
    monkeypatch.setattr(srs.point_tables, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        table(tmp_path, "x,R\n" + "1,2\n" * 2)
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"x": np.zeros(200), "text": ["a"] * 200}), path)
    with pytest.raises(ValueError, match="has 200 rows: leave out columns"):
        read_table(path)
    monkeypatch.setattr(srs.point_tables, "MOST_CELLS", 1000)
    monkeypatch.setattr(srs.point_tables, "MOST_UNPACKED", 1000)
    with pytest.raises(ValueError, match="unpacks to more than 1,000 bytes"):
        read_table(path)


def test_a_missing_file_and_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"t.csv: no such file"):
        read_table(tmp_path / "t.csv")
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="is no regular file"):
        read_table(tmp_path / "t.csv")


def test_parquet_in_and_out(tmp_path):
    columns = {
        "x": pa.array([1.5, 2.0]), "y": pa.array([1, 2], pa.int32()), "R": pa.array([0.25, 0.5], pa.float32()),
        "name": ["a", None], "when": pa.array([0, 1], pa.timestamp("ms")),
    }  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert found.coordinates().tolist() == [[1.5, 1], [2, 2]]
    assert found.numbers("R").dtype == np.float64
    found.write_with(tmp_path / "out.parquet", "radius", np.array([0.1, 0.2]))
    written = parquet.read_table(tmp_path / "out.parquet")
    assert written.schema.names == [*columns, "radius"]
    assert written["radius"].to_pylist() == [0.1, 0.2]
    assert written.drop(["radius"]) == pa.table(columns)
    found.write_with(tmp_path / "out.csv", "radius", np.array([0.1, 0.2]))
    text = (tmp_path / "out.csv").read_text().splitlines()
    assert text == [
        "x,y,R,name,when,radius",
        "1.5,1,0.25,a,1970-01-01 00:00:00,0.1",
        "2.0,2,0.5,,1970-01-01 00:00:00.001000,0.2",
    ]


def test_csv_to_parquet_keeps_text_and_makes_numbers_of_what_was_read_as_numbers(tmp_path):
    found = table(tmp_path, "id,x\n007,1\n")
    found.coordinates()
    found.write_with(tmp_path / "out.parquet", "radius", np.array([0.5]))
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [{"id": "007", "x": 1.0, "radius": 0.5}]


def test_what_does_not_fit_in_parquet_is_refused(tmp_path):
    columns = {
        "x": [1.0, None],
        "nan": [0.0, float("nan")],
        "text": ["1", "2"],
        "list": [[1], [2]],
        "flag": [True, False],
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table(columns), path)
    found = read_table(path)
    for name, message in {
        "x": "t.parquet, row 2, column x: no value",
        "nan": "t.parquet, row 2, column nan: nan is not a finite number",
        "text": "t.parquet, column text: holds string, no numbers",
        "list": "t.parquet, column list: holds list",
        "flag": "t.parquet, column flag: holds bool, no numbers",
    }.items():
        with pytest.raises(ValueError, match=r"t\.parquet") as refused:
            found.numbers(name)
        assert message in str(refused.value)
    for name in ("x", "nan"):
        with pytest.raises(ValueError, match=rf"row 2, column {name}: no label"):
            found.labels(name)
    with pytest.raises(ValueError, match=r"column list: holds list<.*>, no labels"):
        found.labels("list")
    with pytest.raises(ValueError, match="--columns x x: names a column twice"):
        found.coordinates(["x", "x"])
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[:100], whole[:-50] + bytes(50), b"x,R\n1,2\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t\.parquet is damaged, or no Parquet file"):
            read_table(path)


def test_arrays_become_the_table_that_is_read_as_them(tmp_path, rng):
    for d in (1, 2, 3, 12):
        points, R = rng.normal(size=(4, d)), rng.random(4)
        arrays_as_table(tmp_path / "a.npy", points, R).write_with(tmp_path / "t.csv", "radius", R / 2)
        found = read_table(tmp_path / "t.csv")
        np.testing.assert_array_equal(found.coordinates(), points)
        np.testing.assert_array_equal(found.numbers("R"), R)
        np.testing.assert_array_equal(found.numbers("radius"), R / 2)


def test_images_become_a_table_of_flat_rows(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    arrays_as_table(tmp_path / "a.npy", images, np.ones(2, np.float32)).write_with(tmp_path / "t.csv", "r", np.ones(2))
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv").coordinates(), images.reshape(2, 12))


def test_a_wide_header_is_looked_at_once(tmp_path):
    """A check of every pair of 300,000 names would take minutes."""
    names = ",".join(f"c{k}" for k in range(300_000))
    with pytest.raises(ValueError, match=r"has no column 'R': its columns are c0, c1, .* and 299988 more$"):
        table(tmp_path, f"{names}\n").numbers("R")


def test_names_of_tables():
    assert is_table("a.csv")
    assert is_table("b/c.parquet")
    assert not is_table("a.csv.npy")
