"""Reading constant-sigma logs: what is taken from their names, what is lined up, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from srs.logs.read import read_logs, sigma_of
from srs.logs.recover_votes import recover_votes

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


#: What certification programs of published work write of two images: name of the file, header, rows.
LAYOUTS = {
    "Cohen et al. 2019": ("noise_0.25", "", "0\t3\t3\t0.457\t1\t0:00:14.15", "10\t8\t-1\t0.0\t0\t0:00:14.06"),
    "Carlini et al. 2023": ("sigma_0.25", "", "0\t3\t3\t0.457\t1\t0:00:09.1", "10\t8\t8\t0.31\t2\t0:00:09.2"),
    "Levine et al. 2020, baseline": (
        "noise_0.25",
        "idx\tlabel\tpredict\tradius\traw_count\tp_A_bar\tcorrect\ttime",
        "0\t3\t3\t0.457\t96713\t0.964908\t1\t0:00:14.15",
        "10\t8\t-1\t0.0\t40122\t0.395\t0\t0:00:14.06",
    ),
    "Levine et al. 2020, second_order: one field short, for want of a place in its format": (
        "noise_0.25",
        "idx\tlabel\tpredict\tradius\traw_count\tp_A_bar\traw_grad_norm\tgrad_norm_bound\tgrad_norm_bound_nonvacuous"
        "\tcorrect\ttime",
        "0\t3\t3\t0.457\t96713\t0.964908\t0.11\t0.13\tTrue\t1",
        "10\t8\t-1\t0.0\t40122\t0.395\t0.2\t0.3\tFalse\t0",
    ),
    "Alfarra et al. 2022, at a fixed sigma": (
        "noise_0.25",
        "idx\tlabel\tpredict\tradius\tcorrect\tsigma\ttime",
        "0\t3\t3\t0.457\t1\t0.25\t0:00:14.15",
        "10\t8\t-1\t0.0\t0\t0.25\t0:00:14.06",
    ),
}


@pytest.mark.parametrize(("name", "header", "first", "second"), LAYOUTS.values(), ids=LAYOUTS)
def test_logs_of_published_programs_are_read(tmp_path, name, header, first, second):
    (tmp_path / name).write_text((header + "\n" if header else HEADER) + f"{first}\n{second}\n")
    logs = read_logs([tmp_path / name])
    assert logs.sigmas.tolist() == [0.25]
    assert logs.idx.tolist() == [0, 10]
    assert logs.labels.tolist() == [3, 8]
    assert logs.printed[0].tolist() == [0.457]


#: And those that cannot be read: why.
OTHER_LAYOUTS = {
    "Mohapatra et al. 2020": (
        "idx\tlabel\tcount\tpredict\tradiusR\tradiusG\tradiusB\tradius_L1\tradius_LInf\tradius_L2\tradius_cohen"
        "\tcorrect\ttime\n0\t3\t99000\t3\t1.0\t1.0\t1.0\t1.2\t0.02\t1.2\t1.1\t1\t0:00:14\n",
        "it lacks radius",
    ),
    "Alfarra et al. 2022, a sigma for each image": (
        "idx\tlabel\tpredict\tradius\tcorrect\tsigma\ttime\n"
        "0\t3\t3\t0.457\t1\t0.25\t0:00:14\n10\t8\t8\t0.31\t1\t0.283\t0:00:14\n",
        "line 3: sigma = 0.283: the log was named for sigma = 0.25; give logs of one noise level each",
    ),
    "Alfarra et al. 2022, time and sigma below each other's names": (
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\tsigma\n0\t3\t3\t0.457\t1\t0.283\t0:00:14.15\n",
        "line 2: sigma = 0:00:14.15: is no noise level; are the columns in order?",
    ),
    "a sigma in words": (
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\tsigma\n0\t3\t3\t0.457\t1\t0:00:14.15\t0p5\n",
        "line 2: sigma = 0p5: is no noise level",
    ),
    "Chen et al. 2022": (
        "idx\tlabel\tpredict\tpA\tsamplesize\tradius\tcorrect\ttime_forward\n"
        "0\t3\t3\t0.965\t2000\t0.451\t1\t0.120\n===Certification Summary(absolute)===\n",
        "line 3: 1 field where the header has 8",
    ),
}


@pytest.mark.parametrize(("text", "message"), OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
def test_logs_of_other_programs_are_refused_with_a_reason(tmp_path, text, message):
    (tmp_path / "noise_0.25").write_text(text)
    with pytest.raises(ValueError, match="noise_0") as caught:
        read_logs([tmp_path / "noise_0.25"])
    assert message in str(caught.value)


def test_a_radius_beside_an_abstention_counts_for_nothing(folder):
    Path("m_0.25.tsv").write_text(HEADER + "0\t7\t-1\t0.95\t0\t1\n")
    assert read_logs([Path("m_0.25.tsv")]).printed.tolist() == [[0.0]]


def test_sigmas_that_are_given_are_those_of_the_files_as_they_stand(folder):
    logs = read_logs([Path("m_0.50.tsv"), Path("m_0.25.tsv")], [0.2, 1.0])
    assert logs.sigmas.tolist() == [0.2, 1.0]
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
        ("sigma-1.00.tsv", 1.0),
        ("noise0p25", 0.25),
        ("cohen_0p25.tsv", 0.25),
        ("sigma_2.5e-1.tsv", 0.25),
        ("NOISE_1E-1", 0.1),
        ("noise_sd0.12.log", 0.12),
        ("sigma[0.5].tsv", 0.5),
        ("90epochs_0.5.tsv", 0.5),
        ("lr0.1_0.5", 0.5),
        ("resnet110_noise0.50_n100000", 0.5),
        ("2024-11-25_noise_0.25_2024-11-26.tsv.txt", 0.25),
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
        ("lr_0.1.tsv", "holds no noise level"),
        ("eps=0.5", "holds no noise level"),
        ("cohen_25%.tsv", "holds no noise level"),
        ("sigma_25.tsv", "holds '25', which is no noise level from 0 to 2 beyond doubt"),
        ("noise_025.tsv", "holds '025'"),
        ("sigma_0_25.tsv", "holds '0_25'"),
        ("noise_1_5", "holds '1_5'"),
        ("noise25%", "holds '25%'"),
        ("sigma_25pct_0.5.tsv", "holds '25pct"),
        ("sigma=-1.0", "holds '-1.0'"),
        ("noise_0.25-0.5.tsv", "holds '0.25-0.5'"),
        ("noise_0,25.tsv", "holds '0,25'"),
        ("noise_2.5e1.tsv", "holds '2.5e1'"),
        ("sigma_0", "holds '0'"),
        ("sigma_64_255.tsv", "holds '64_255'"),
        ("log_24.11.tsv", "holds '24.11'"),
    ],
)
def test_a_name_that_does_not_say_is_refused_with_the_remedy(name, message):
    with pytest.raises(ValueError, match="; give the noise level of every log, in order, with --sigmas") as caught:
        sigma_of(name)
    assert str(caught.value).startswith(f"{name}: the name {message}")


ROW = "0\t7\t7\t0.95\t1\t1.0\n"
BAD = {
    "empty": ("", "line 1: the header is"),
    "another table": ("a\tb\n1\t2\n", "line 1: the header is"),
    "missing column": ("idx\tlabel\tradius\tcorrect\ttime\n0\t7\t0.9\t1\t1.0\n", "it lacks predict"),
    "truncated row": (HEADER + ROW + "3\t2\t2\t0.4\n", "line 3: 4 fields where the header has 6"),
    "no rows": (HEADER, "holds no image below its header"),
    "nan": (HEADER + "0\t7\t7\tnan\t1\t1.0\n", "line 2: radius = nan"),
    "infinite": (HEADER + ROW + "3\t2\t2\tinf\t1\t1\n", "line 3: radius = inf"),
    "negative": (HEADER + "0\t7\t7\t-0.5\t1\t1.0\n", "line 2: radius = -0.5"),
    "word": (HEADER + "0\t7\t7\tbig\t1\t1.0\n", "line 2: radius = 'big' is not a number"),
    "negative idx": (HEADER + "-1\t7\t7\t0.5\t1\t1.0\n", "line 2: idx = -1"),
    "strange class": (HEADER + "0\t7\t-2\t0.5\t0\t1.0\n", "line 2: predict = -2"),
    "strange label": (HEADER + "0\t-7\t2\t0.5\t0\t1.0\n", "line 2: label = -7"),
    "huge idx": (HEADER + "99999999999999999999\t7\t7\t0.5\t1\t1.0\n", "line 2: idx = '99999999999999999999' is not"),
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
    Path("m_1.0.tsv").write_bytes(b"\xff\xfa\x00\x01" * 40)
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
    with pytest.raises(ValueError, match=r"m_0\.25\.tsv is named for two noise levels"):
        read_logs([files[0], files[0]], [0.25, 0.5])
    with pytest.raises(ValueError, match="name at least one"):
        read_logs([])
    with pytest.raises(FileNotFoundError, match=r"lost_0\.1\.tsv: no such file"):
        read_logs([Path("lost_0.1.tsv")])


def test_a_radius_that_no_vote_can_certify_betrays_another_sigma(folder):
    """Six sigma would take Phi(-6) = 1e-9: more than 10**9 unanimous votes at any usual alpha."""
    Path("m_1.0.tsv").write_text(HEADER + "0\t7\t7\t0.95\t1\t1\n3\t2\t2\t1.51\t1\t1\n")
    with pytest.raises(ValueError, match=r"m_1\.0\.tsv, line 3: radius = 1\.51: .* 6 sigma = 1\.5 .* --sigmas"):
        read_logs(["m_1.0.tsv"], [0.25])
    assert read_logs(["m_1.0.tsv"], [0.26]).sigmas.tolist() == [0.26]
    Path("m_1.0.tsv").write_text(HEADER + "0\t7\t-1\t9.5\t0\t1\n")  # an abstention's radius says nothing
    assert read_logs(["m_1.0.tsv"], [0.25]).printed.tolist() == [[0.0]]


def test_a_column_sigma_must_agree(folder):
    header = HEADER.replace("time", "time\tsigma")
    Path("own_0.5.tsv").write_text(header + "0\t7\t7\t0.95\t1\t1\t0.5\n3\t2\t2\t0.3\t1\t1\t0.25\n")
    with pytest.raises(ValueError, match=r"own_0\.5\.tsv, line 3: sigma = 0\.25: the log was named for sigma = 0\.5"):
        read_logs(["own_0.5.tsv"])


def test_lines_are_counted_as_an_editor_does(folder):
    Path("m_0.25.tsv").write_text("# someone's log\n" + HEADER + "\n0\t7\t7\t0.95\t1\t1\n\n3\t2\t2\t-1\t1\t1\n")
    with pytest.raises(ValueError, match=r"m_0\.25\.tsv, line 6: radius = -1\.0"):
        read_logs(["m_0.25.tsv"])


def test_a_time_that_is_unknown_in_one_log_is_unknown_in_all(folder):
    Path("m_0.50.tsv").write_text(SECOND.replace("0:00:02", "inf"))
    seconds = read_logs(["m_0.25.tsv", "m_0.50.tsv"]).seconds
    assert np.isnan(seconds[0])
    assert seconds[1:].tolist() == [2.0, 3.0]


def test_votes_are_not_recovered_from_radii_that_bound_the_runner_up(tmp_path):
    """Inverted as one-sided ones, they would give more votes than there were."""
    header = "idx\tlabel\tpredict\tradius\tcorrect\ttime\tshare\n"
    for name, share in (("noise_0.25.tsv", "0.5"), ("noise_0.5.tsv", "0.0")):
        (tmp_path / name).write_text(header + f"0\t7\t7\t0.218\t1\t1.0\t{share}\n")
    both = read_logs([tmp_path / "noise_0.25.tsv", tmp_path / "noise_0.5.tsv"])
    with pytest.raises(ValueError, match=r"noise_0\.25\.tsv: its radii bound the runner-up as well \(column share\)"):
        recover_votes(both, n=1000, alpha=0.001, rounding="half")
    assert read_logs([tmp_path / "noise_0.5.tsv"]).two_sided == ()
