import csv
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing.tables import (
    CertificateTable,
    floor_text,
    parse_time,
    read_certificates,
    time_text,
    write_certificates,
)

radii = st.floats(0, 1e6, allow_nan=False)


@given(radii, st.integers(1, 12))
def test_floor_never_rounds_up(value, digits):
    text = floor_text(value, digits)
    assert float(text) <= value
    assert Decimal(text) <= Decimal(repr(value)) < Decimal(text) + Decimal(1).scaleb(-digits)
    assert floor_text(float(text), digits) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (0.25, "0.25"), (0.9999999, "0.999999"), (3.0, "3.0"), (1e-9, "0.0")]
)
def test_floor_text(value, text):
    assert floor_text(value) == text


@given(st.floats(0, 1e6))
def test_times_survive_writing(seconds):
    assert parse_time(time_text(seconds)) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(("text", "seconds"), [("0:00:13.736080", 13.73608), ("13.5", 13.5), ("1:02:03", 3723.0)])
def test_times_are_read_in_both_forms(text, seconds):
    assert parse_time(text) == pytest.approx(seconds)


def test_time_text_always_has_microseconds():
    assert time_text(13.73608) == "0:00:13.736080"
    assert time_text(0.0) == "0:00:00.000000"
    assert time_text(59.9999999) == "0:01:00.000000"


@pytest.fixture
def table():
    return CertificateTable(
        idx=np.array([0, 20]),
        label=np.array([7, 1]),
        predict=np.array([7, -1]),
        radius=np.array([0.9999999, 0.0]),
        correct=np.array([1, 0]),
        seconds=np.array([13.73608, 0.25]),
        extra={"sigma": np.array([0.3, 0.1]), "region": np.array([0, -1])},
    )


def test_the_file_is_what_existing_scripts_read(table, tmp_path):
    write_certificates(tmp_path / "t.tsv", table)
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    assert lines[0] == "idx\tlabel\tpredict\tradius\tcorrect\ttime\tsigma\tregion"
    assert lines[1] == "0\t7\t7\t0.999999\t1\t0:00:13.736080\t0.3\t0"
    assert lines[2] == "20\t1\t-1\t0.0\t0\t0:00:00.250000\t0.1\t-1"
    with (tmp_path / "t.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert np.mean([float(row["radius"]) > 0.5 and row["correct"] == "1" for row in rows]) == 0.5


def test_tables_survive_writing(table, tmp_path):
    write_certificates(tmp_path / "t.tsv", table)
    found = read_certificates(tmp_path / "t.tsv")
    for name in ("idx", "label", "predict", "correct"):
        np.testing.assert_array_equal(getattr(found, name), getattr(table, name))
    assert np.all(found.radius <= table.radius)
    np.testing.assert_allclose(found.seconds, table.seconds)
    assert found.extra["sigma"].tolist() == [0.3, 0.1]
    assert found.extra["region"].dtype == np.int64


def test_other_tools_tables_are_read(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\tnote\n0\t3\t3\t0.75\t1\t2.5\tfine\n")
    found = read_certificates(path)
    assert found.seconds.tolist() == [2.5]
    assert found.extra["note"].tolist() == ["fine"]


def test_a_table_without_rows_is_read(tmp_path):
    (tmp_path / "t.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    assert len(read_certificates(tmp_path / "t.tsv").idx) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header is"),
        ("idx label predict radius correct time\n", "line 1: the header is"),
        ("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\n", "line 2: 5 fields where the header has 6"),
        (
            "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\thigh\t1\t1\n",
            "line 2: radius = 'high' is not a number",
        ),
    ],
)
def test_bad_tables_are_named(tmp_path, text, message):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_certificates(tmp_path / "t.tsv")
