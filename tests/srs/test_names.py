"""What runs and logs are called, and the folders that are called after them."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srs.labels import split_name
from srs.report.names import folders_of, names_of


def test_a_name_stands_before_the_first_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_name("ours (2 cores)=runs/a=1", "RUN") == ("ours (2 cores)", Path("runs/a=1"))
    assert split_name("runs/a", "RUN") == (None, Path("runs/a"))
    (tmp_path / "a=1").mkdir()
    assert split_name("a=1", "RUN") == (None, Path("a=1"))
    assert split_name("x" * 40 + "=run", "RUN")[0] == "x" * 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=run", "RUN =run: the name before = is empty"),
        (" ours=run", "begins or ends with a blank; write NAME=run"),
        ("x" * 41 + "=run", "has 41 characters; take at most 40"),
        ("a\tb=run", r"RUN a\tb=run: the name before = holds characters that cannot be seen"),
        ("a\u202eb=run", "cannot be seen"),
        ("\udcff=run", "cannot be seen"),
        ("run=", "RUN run=: nothing follows =; write run=PATH"),
        ("y" * 5000 + "=run", "has 5000 characters"),
    ],
)
def test_a_name_that_cannot_stand_in_a_legend_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        split_name(text, "RUN")
    assert str(refused.value).isprintable()


def test_a_folder_gives_its_name_with_a_number_where_that_is_taken():
    given_ = [(None, Path("a/run")), ("run-2", Path("b")), (None, Path("c/run")), (None, Path("d/log"))]
    assert names_of(given_, ["log"]) == ["run", "run-2", "run-3", "log-2"]
    assert names_of([(None, Path("a\nb"))], []) == [r"a\nb"]
    assert names_of([(None, Path("/"))], []) == ["run"]


def test_folders_are_of_plain_characters_and_apart_on_every_file_system():
    names = ["../../etc", "a/b", "a b", "A B", "..", "é", "e\u0301", "<script>", "report.html", "con:", "x" * 300]
    folders = folders_of(names, ["report.html"])
    assert folders == [
        "etc", "a-b", "a-b-2", "A-B-3", "run", "é", "é-2", "script", "report.html-2", "con", "x" * 100,
    ]  # fmt: skip


@given(st.lists(st.text(max_size=60), max_size=8))
def test_no_name_leads_out_of_the_report(names):
    folders = folders_of(names, ["report.html"])
    assert len({folder.casefold() for folder in [*folders, "report.html"]}) == len(names) + 1
    for folder in folders:
        assert re.fullmatch(r"[\w.-]+", folder)
        assert not folder.startswith((".", "-"))
        assert os.path.basename(os.path.normpath(os.path.join("out", folder))) == folder
