"""Reading constant-sigma logs: what is taken from their names, what is lined up, and what is refused."""

from pathlib import Path

import pytest

from srs.logs.read import read_logs, sigma_of

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
FIRST = HEADER + "0\t7\t7\t0.95\t1\t0:00:01.5\n3\t2\t2\t0.41\t1\t1.0\n5\t1\t0\t0.2\t0\t2.0\n"
SECOND = HEADER + "5\t1\t1\t0.625\t1\t1.0\n3\t2\t-1\t0.0\t0\t1.0\n0\t7\t7\t1.15\t1\t0:00:02\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m_0.25.tsv").write_text(FIRST)
    Path("m_0.50.tsv").write_text(SECOND)
    return tmp_path


def test_logs_are_lined_up_by_image_and_by_sigma(folder):
    logs = read_logs([Path("m_0.50.tsv"), Path("m_0.25.tsv")])
    assert logs.sigmas.tolist() == [0.25, 0.5]
    assert [file.name for file in logs.files] == ["m_0.25.tsv", "m_0.50.tsv"]
    assert logs.idx.tolist() == [0, 3, 5]
    assert logs.labels.tolist() == [7, 2, 1]
    assert logs.predict.tolist() == [[7, 7], [2, -1], [0, 1]]
    assert logs.printed.tolist() == [[0.95, 1.15], [0.41, 0.0], [0.2, 0.625]]
    assert logs.seconds.tolist() == [3.5, 2.0, 3.0]
    assert logs.lines.tolist() == [[2, 4], [3, 3], [4, 2]]


def test_a_radius_beside_an_abstention_counts_for_nothing(folder):
    Path("m_0.25.tsv").write_text(HEADER + "0\t7\t-1\t0.95\t0\t1\n")
    assert read_logs([Path("m_0.25.tsv")]).printed.tolist() == [[0.0]]


def test_sigmas_that_are_given_are_those_of_the_files_as_they_stand(folder):
    logs = read_logs([Path("m_0.50.tsv"), Path("m_0.25.tsv")], [0.12, 1.0])
    assert logs.sigmas.tolist() == [0.12, 1.0]
    assert logs.files[0].name == "m_0.50.tsv"


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        ("NOISE_0.25.tsv", 0.25),
        ("noise0.5", 0.5),
        ("sigma_0.25", 0.25),
        ("sigma_1", 1.0),
        ("sigma=.12.txt", 0.12),
        ("cifar10_salman_0.5.tsv", 0.5),
        ("mnist_catrs_1.0.tsv", 1.0),
        ("resnet110_noise_0.50_eps_0.25.tsv", 0.5),
        ("0.75.csv", 0.75),
    ],
)
def test_sigma_is_read_off_the_name(name, sigma):
    assert sigma_of(Path("noise_9.5") / name) == sigma


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10_cohen_1.tsv", "holds no noise level"),
        ("log.tsv", "holds no noise level"),
        ("train_0.25_test_0.5.tsv", "could mean 0.25 or 0.5"),
        ("noise_0.25_sigma_0.5.tsv", "could mean 0.25 or 0.5"),
        ("v1.2.3.tsv", "holds no noise level"),
    ],
)
def test_a_name_that_does_not_say_is_refused_with_the_remedy(name, message):
    with pytest.raises(ValueError, match=rf"{name}: the name {message}; give the noise level .* with --sigmas"):
        sigma_of(Path(name))


ROW = "0\t7\t7\t0.95\t1\t1.0\n"
BAD = {
    "empty": ("", "line 1: the header is"),
    "another table": ("a\tb\n1\t2\n", "line 1: the header is"),
    "missing column": (
        "idx\tlabel\tpredict\tradius\tcorrect\n0\t7\t7\t0.9\t1\n",
        "expected it to start with idx label",
    ),
    "truncated row": (HEADER + ROW + "3\t2\t2\t0.4\n", "line 3: 4 fields where the header has 6"),
    "no rows": (HEADER, "holds no image below its header"),
    "nan": (HEADER + "0\t7\t7\tnan\t1\t1.0\n", "line 2: radius = nan"),
    "infinite": (HEADER + ROW + "3\t2\t2\tinf\t1\t1\n", "line 3: radius = inf"),
    "negative": (HEADER + "0\t7\t7\t-0.5\t1\t1.0\n", "line 2: radius = -0.5"),
    "word": (HEADER + "0\t7\t7\tbig\t1\t1.0\n", "line 2: radius = 'big' is not a number"),
    "negative idx": (HEADER + "-1\t7\t7\t0.5\t1\t1.0\n", "line 2: idx = -1"),
    "strange class": (HEADER + "0\t7\t-2\t0.5\t0\t1.0\n", "line 2: predict = -2"),
    "strange label": (HEADER + "0\t-7\t2\t0.5\t0\t1.0\n", "line 2: label = -7"),
    "huge idx": (HEADER + "99999999999999999999\t7\t7\t0.5\t1\t1.0\n", "is not a certification log"),
    "contradiction": (HEADER + "0\t7\t2\t0.5\t1\t1.0\n", "line 2: correct = 1: contradicts label and predict"),
    "twice": (HEADER + ROW + "3\t2\t2\t0.4\t1\t1\n" + ROW, "line 4: idx 0 stands in line 2 already"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_damaged_log_is_named_with_its_line(folder, text, message):
    Path("m_1.0.tsv").write_text(text)
    with pytest.raises(ValueError, match=r"^m_1\.0\.tsv") as caught:
        read_logs([Path("m_0.25.tsv"), Path("m_1.0.tsv")])
    assert message in str(caught.value)


def test_bytes_that_are_no_text_are_named(folder):
    Path("m_1.0.tsv").write_bytes(b"\xff\xfe\x00\x01" * 40)
    with pytest.raises(ValueError, match=r"m_1\.0\.tsv is not a certification log"):
        read_logs([Path("m_1.0.tsv")])


OTHERS = {
    "length": (HEADER + ROW, r"m_1.0.tsv has 1 images, m_0.25.tsv has 3"),
    "images": (SECOND.replace("3\t2\t-1", "4\t2\t-1"), "m_1.0.tsv, line 3: idx 4 is not in m_0.25.tsv"),
    "labels": (
        SECOND.replace("5\t1\t1\t0.625\t1", "5\t8\t1\t0.625\t0"),
        "m_1.0.tsv, line 2: image 5 has label 8, in m_0.25.tsv it has 1",
    ),
}


@pytest.mark.parametrize(("text", "message"), OTHERS.values(), ids=OTHERS)
def test_logs_of_different_images_are_refused(folder, text, message):
    Path("m_1.0.tsv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_logs([Path("m_0.25.tsv"), Path("m_1.0.tsv")])
    assert "give logs of the same images of one data set" in str(caught.value)


def test_levels_that_cannot_be_are_refused(folder):
    files = [Path("m_0.25.tsv"), Path("m_0.50.tsv")]
    with pytest.raises(ValueError, match=r"are both for sigma = 0\.5"):
        read_logs(files, [0.5, 0.5])
    with pytest.raises(ValueError, match="--sigmas names 1 levels for 2 logs"):
        read_logs(files, [0.5])
    for sigma in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="noise levels must be finite and > 0"):
            read_logs(files, [0.5, sigma])
    with pytest.raises(FileNotFoundError, match=r"lost_0\.1\.tsv: no such file"):
        read_logs([Path("lost_0.1.tsv")])
