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
    assert floor_text(value) == floor_text(np.float64(value)) == text


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
        ("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\n", "line 2: 4 fields where the header has 6"),
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


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
ROWS = "0\t7\t7\t0.953\t1\t0:00:01.5\n3\t2\t-1\t0.0\t0\t0:00:02.5\n"
PLAIN = HEADER + ROWS

#: What people's files are like, each with the lines of its rows. All say the same.
ALIKE = {
    "windows": (PLAIN.replace("\n", "\r\n").encode(), [2, 3]),
    "old mac": (PLAIN.replace("\n", "\r").encode(), [2, 3]),
    "byte order mark": (PLAIN.encode("utf-8-sig"), [2, 3]),
    "UTF-16": (PLAIN.encode("utf-16"), [2, 3]),
    "UTF-16, big end first": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), [2, 3]),
    "no line end": (PLAIN[:-1].encode(), [2, 3]),
    "empty lines": ((HEADER + "\n" + ROWS + "\n  \n").encode(), [3, 4]),
    "a line of tabs": ((PLAIN + "\t" * 5 + "\n").encode(), [2, 3]),
    "comments": (("# made by someone\n" + PLAIN + "# the end\n").encode(), [3, 4]),
    "tabs at the end of rows": ((HEADER + ROWS.replace("\n", "\t\t\n")).encode(), [2, 3]),
    "tabs at all ends": (PLAIN.replace("\n", "\t\n").encode(), [2, 3]),
    "spaces around": (PLAIN.replace("\t", " \t ").encode(), [2, 3]),
    "capitals": (PLAIN.replace("idx", "Idx").replace("radius", "RADIUS").encode(), [2, 3]),
    "whole numbers as floats": (PLAIN.replace("7\t7\t", "7.0\t7.\t").replace("-1", "-1.0").encode(), [2, 3]),
    "numbers with exponents": (PLAIN.replace("0.953", "9.53E-1").replace("3\t2", "3e+0\t20e-1").encode(), [2, 3]),
    "truth": (PLAIN.replace("\t1\t0:", "\tTrue\t0:").replace("\t0\t0:", "\tFalse\t0:").encode(), [2, 3]),
    "quotes": (('"' + PLAIN[:-1].replace("\t", '"\t"').replace("\n", '"\n"') + '"\n').encode(), [2, 3]),
    "an index without a name": (
        ("\t" + HEADER + "".join(f"{k}\t{row}" for k, row in enumerate(ROWS.splitlines(True)))).encode(),
        [2, 3],
    ),
    "another order": (
        b"time\tcorrect\tradius\tpredict\tlabel\tidx\n0:00:01.5\t1\t0.953\t7\t7\t0\n0:00:02.5\t0\t0.0\t-1\t2\t3\n",
        [2, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "lines"), ALIKE.values(), ids=ALIKE)
def test_what_does_not_change_a_row_is_let_pass(tmp_path, content, lines):
    (tmp_path / "t.tsv").write_bytes(content)
    found = read_certificates(str(tmp_path / "t.tsv"))
    columns = (found.idx, found.label, found.predict, found.radius, found.correct, found.seconds, found.lines)
    assert [column.tolist() for column in columns] == [[0, 3], [7, 2], [7, -1], [0.953, 0], [1, 0], [1.5, 2.5], lines]
    assert found.extra == {}


def test_further_columns_may_stand_anywhere(tmp_path):
    text = (
        "model\tidx\tlabel\tpredict\tpABar\tradius\tcorrect\tbig\ttime\n"
        + "a\tb".replace("\tb", "")
        + ("\t0\t7\t7\t0.99\t0.953\t1\t99999999999999999999\t1.5\n")
    )
    (tmp_path / "t.tsv").write_text(text)
    found = read_certificates(tmp_path / "t.tsv")
    assert list(found.extra) == ["model", "pABar", "big"]
    assert found.extra["model"].tolist() == ["a"]
    assert found.extra["pABar"].tolist() == [0.99]
    assert found.extra["big"].tolist() == [1e20]
    assert (found.radius.tolist(), found.correct.tolist()) == ([0.953], [1])


UNKNOWN = (
    "nan",
    "inf",
    "-inf",
    "-5.0",
    "",
    "  ",
    "1e400",
    "-0:00:01",
    "-1 day, 23:59:58.7",
    "soon",
    "1:2:3:4",
    '0:01"',
)


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_time_that_says_nothing_stops_nothing(tmp_path, text):
    (tmp_path / "t.tsv").write_text(HEADER + f"0\t7\t7\t0.953\t1\t{text}\n3\t2\t-1\t0.0\t0\t2.5\n")
    found = read_certificates(tmp_path / "t.tsv")
    np.testing.assert_array_equal(found.seconds, [np.nan, 2.5])
    assert found.radius.tolist() == [0.953, 0.0]
    write_certificates(str(tmp_path / "again.tsv"), found)
    np.testing.assert_array_equal(read_certificates(tmp_path / "again.tsv").seconds, [np.nan, 2.5])


@pytest.mark.parametrize("header", [HEADER.replace("\ttime", ""), HEADER])
def test_a_time_that_is_missing_stops_nothing(tmp_path, header):
    (tmp_path / "t.tsv").write_text(header + "0\t7\t7\t0.953\t1\n")
    found = read_certificates(tmp_path / "t.tsv")
    assert np.isnan(found.seconds).all()
    assert found.correct.tolist() == [1]


def test_a_count_of_the_images_that_are_right_so_far_says_which_are(tmp_path):
    """Programs for denoised diffusion smoothing write the running count under `correct`."""
    rows = "0\t3\t3\t0.46\t1\t1.0\n10\t8\t-1\t0.0\t1\t1.0\n20\t8\t8\t0.1\t2\t1.0\n30\t0\t1\t0.2\t2\t1.0\n"
    (tmp_path / "t.tsv").write_text(HEADER + rows)
    found = read_certificates(tmp_path / "t.tsv")
    assert found.correct.tolist() == [1, 0, 1, 0]
    for wrong in (rows.replace("\t2\t1.0\n30", "\t3\t1.0\n30"), rows.replace("30\t0\t1", "30\t0\t0")):
        (tmp_path / "t.tsv").write_text(HEADER + wrong)
        with pytest.raises(ValueError, match=r"line 4: correct = '[23]' is not 0 or 1"):
            read_certificates(tmp_path / "t.tsv")


def test_a_column_of_ones_is_no_count_of_one_image_that_is_right(tmp_path):
    """Two rows, the second wrong and said to be right: what reads logs refuses that."""
    (tmp_path / "t.tsv").write_text(HEADER + "0\t3\t3\t0.46\t1\t1.0\n10\t8\t1\t0.1\t1\t1.0\n")
    assert read_certificates(tmp_path / "t.tsv").correct.tolist() == [1, 1]


def test_days_are_counted():
    assert parse_time("1 day, 0:00:03.25") == 86403.25
    assert parse_time("2 days, 1:00:00") == 176400


WRONG = {
    "radius,": ("0\t7\t7\t0,953\t1\t1\n", "'0,953' is not a number; decimals are written with a point"),
    "tensor": ("0\t7\t7\ttensor(0.9)\t1\t1\n", "line 2: radius = 'tensor(0.9)' is not a number"),
    "underscore": ("0\t0_7\t7\t0.9\t1\t1\n", "line 2: label = '0_7' is not a whole number"),
    "another script": ("0\t\u0667\t7\t0.9\t1\t1\n", "is not a whole number"),
    "half": ("0.5\t7\t7\t0.9\t1\t1\n", "line 2: idx = '0.5' is not a whole number"),
    "huge": ("9" * 30 + "\t7\t7\t0.9\t1\t1\n", "is not a number that an index or a class can be"),
    "huger": ("1e999999999\t7\t7\t0.9\t1\t1\n", "is not a number that an index or a class can be"),
    "correct": ("0\t7\t7\t0.9\t2\t1\n", "line 2: correct = '2' is not 0 or 1"),
    "footer": ("0\t7\t7\t0.9\t1\t1\nACR: 0.39\n", "line 3: 1 field where the header has 6: 'ACR: 0.39' is no"),
    "two files": ("0\t7\t7\t0.9\t1\t1\n" + HEADER, "line 3: the header stands here again"),
    "row names": ("1\t0\t7\t7\t0.9\t1\t1\n", "line 2: 7 fields where the header has 6"),
    "NUL": ("0\0\t7\t7\t0.9\t1\t1\n", "line 2: holds a NUL character"),
    "quote": ('"0\t7\t7\t0.9\t1\t1\n', "line 2: a quotation mark is out of place"),
    "long": ("0\t7\t7\t0.9\t1\t" + "1" * 5000 + "\n", "line 2: has 5,012 characters"),
}  # fmt: skip
HEADERS = {
    "commas": (PLAIN.replace("\t", ","), "columns are separated by commas; write the file anew with tabs"),
    "semicolons": (PLAIN.replace("\t", ";"), "columns are separated by semicolons"),
    "spaces": (PLAIN.replace("\t", "   "), "columns are separated by spaces"),
    "another name": (PLAIN.replace("idx", "original_idx"), "separated by tabs; it lacks idx"),
    "twice": ("radius\t" + HEADER, ": it names radius twice; leave one out"),
    "nothing": ("\n\n", "line 1: the header is missing"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [*((HEADER + rows, message) for rows, message in WRONG.values()), *HEADERS.values()],
    ids=[*WRONG, *HEADERS],
)
def test_what_is_no_row_is_refused_for_its_own_reason(tmp_path, text, message):
    (tmp_path / "t.tsv").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ValueError, match=r"t\.tsv, line \d: ") as caught:
        read_certificates(tmp_path / "t.tsv")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"\xff\xfa\x00\x01")
    with pytest.raises(ValueError, match=r"t\.tsv is not a certification log: byte 0 is not UTF-8"):
        read_certificates(tmp_path / "t.tsv")
