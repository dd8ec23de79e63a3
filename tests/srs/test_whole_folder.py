"""A folder of results appears whole or not at all, and replaces only what such a command wrote."""

import pytest

from srs.commands._whole_folder import check_free, whole_folder

FILES = frozenset({"summary.json", "rows.tsv"})


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("before", [True, False])
def test_a_folder_appears_whole_or_not_at_all(tmp_path, error, before):
    out = tmp_path / "run"
    if before:
        out.mkdir()
        (out / "summary.json").write_text("old")

    def fill():
        with whole_folder(out, FILES, overwrite=before) as folder:
            (folder / "summary.json").write_text("half")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == ([out] if before else [])
    assert not before or (out / "summary.json").read_text() == "old"


def test_a_whole_one_takes_the_place_of_the_old(tmp_path):
    out = tmp_path / "deep/run"
    for text in ("first", "second"):
        with whole_folder(out, FILES, overwrite=True) as folder:
            (folder / "summary.json").write_text(text)
        assert (out / "summary.json").read_text() == text
        assert list(out.parent.iterdir()) == [out]


def test_the_old_one_comes_back_when_the_new_one_cannot_take_its_place(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "summary.json").write_text("old")
    with pytest.raises(FileNotFoundError), whole_folder(out, FILES, overwrite=True) as folder:
        folder.rmdir()  # so that the last rename fails
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "summary.json").read_text() == "old"


def test_other_peoples_files_are_spared(tmp_path):
    (tmp_path / "rows.tsv").write_text("")
    with pytest.raises(ValueError, match="holds files already"):
        check_free(tmp_path, FILES, overwrite=False)
    check_free(tmp_path, FILES, overwrite=True)
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(ValueError, match=r"holds thesis\.tex, which this command did not write"),
        whole_folder(tmp_path, FILES, overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
