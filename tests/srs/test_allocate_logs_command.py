"""`srs-allocate --logs` as a person runs it: a process of its own in an empty folder."""

import csv
import json
from decimal import ROUND_DOWN, Decimal
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

import regions
from srs.commands.allocate import main
from tests.srs.programs import call, call_without_extras
from training import digits

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
FILES = {"allocation.tsv", "summary.json", "regions.npz"}
RULES = {
    "sigma=0.25", "sigma=0.5", "sigma=1", "overlapping",
    "paper-ascending", "paper-descending", "paper-lp", "sigma-lp", "joint-lp", "class-lp",
}  # fmt: skip


def run(folder, *arguments):
    return call("allocate", folder, *arguments)


def write_log(path, rows):
    lines = [
        f"{idx}\t{label}\t{predict}\t{radius}\t{int(label == predict)}\t0:00:01.5\n"
        for idx, label, predict, radius in rows
    ]
    path.write_text(HEADER + "".join(lines))


@pytest.fixture
def folder(tmp_path):
    """Logs of 40 of the digits' test images, invented, and the images as an array of the whole test set."""
    rng = np.random.default_rng(3)
    data = digits()
    idx = np.arange(0, 200, 5)
    for sigma in (0.25, 0.5, 1.0):
        right = rng.random(40) > 0.2
        radius = rng.random(40) * 3.2 * sigma
        rows = [
            (i, label, label if good else (label + 1) % 10, f"{value:.3}")
            for i, label, good, value in zip(idx, data.test_labels[idx], right, radius, strict=True)
        ]
        rows[7] = (*rows[7][:2], -1, "0.0")
        write_log(tmp_path / f"NOISE_{sigma}.tsv", rows)
    np.save(tmp_path / "images.npy", data.test_images)
    return tmp_path


LOGS = ("--logs", "NOISE_0.5.tsv", "NOISE_1.0.tsv", "NOISE_0.25.tsv")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_a_folder_of_certificates(folder):
    before = set(folder.iterdir())
    process = run(folder, *LOGS, "--dataset", "digits", "--out", "mine", "--overlap", "sigma", "--verify")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert {file.name for file in (folder / "mine").iterdir()} == FILES
    assert set(folder.iterdir()) - before == {folder / "mine"}
    for text in (
        "1 - 3 alpha, per image",
        "half a unit of the last digit",
        "\n  class, LP (unsound here) ",
        "\n> sigma, LP ",
        "\n> the row to quote: sigma, LP\n",
        "verified: ",
    ):
        assert text in process.stdout

    summary = json.loads((folder / "mine/summary.json").read_text())
    assert set(summary["rules"]) == RULES
    assert summary["main"] == "sigma-lp"
    assert summary["sigmas"] == [0.25, 0.5, 1.0]
    assert [name for name, rule in summary["rules"].items() if not rule["sound"]] == ["overlapping", "class-lp"]

    rows = rows_of(folder / "mine/allocation.tsv")
    columns = ["idx", "label", "predict", "radius", "correct", "time", "sigma", "R", "r", "region"]
    assert list(rows[0]) == columns
    assert [int(row["idx"]) for row in rows] == list(range(0, 200, 5))
    assert rows[7]["predict"] == "-1"
    logs = {sigma: rows_of(folder / f"NOISE_{sigma}.tsv") for sigma in ("0.25", "0.5", "1.0")}
    for k, row in enumerate(rows):
        radius, R, r = Decimal(row["radius"]), Decimal(row["R"]), Decimal(row["r"])
        assert radius == min(R, r).quantize(Decimal("0.000001"), ROUND_DOWN)  # the usual columns have six decimals
        printed = {sigma: Decimal(log[k]["radius"]) for sigma, log in logs.items()}
        said = {sigma: log[k]["predict"] for sigma, log in logs.items()}
        first = next((said[sigma] for sigma in logs if printed[sigma] and said[sigma] != "-1"), row["predict"])
        agree = [printed[sigma] for sigma in logs if said[sigma] == first]  # with the smallest level that certifies
        assert printed[row["sigma"]] == max(agree, default=0)
        assert printed[row["sigma"]] > R or not R
        assert row["predict"] in (logs[row["sigma"]][k]["predict"], "-1")
        assert row["time"] == "0:00:04.500000"

    radius = np.array([float(row["radius"]) for row in rows])
    correct = np.array([row["correct"] == "1" for row in rows])
    result = summary["rules"]["sigma-lp"]
    assert result["average_certified_radius"] == pytest.approx(np.mean(radius * correct), abs=1e-12)
    assert result["certified_accuracy"] == pytest.approx([np.mean(correct & (radius > e)) for e in summary["epsilon"]])
    assert result["abstentions"] == sum(row["predict"] == "-1" for row in rows)

    table = regions.RegionMap.load(folder / "mine/regions.npz")
    images = digits().test_images[np.arange(0, 200, 5)]
    assert (table.centres == images.reshape(40, -1)).all()
    assert regions.verify(images, table.radii, groups=table.sigma)
    assert table.classes.tolist() == [int(row["predict"]) for row in rows]


def test_images_from_an_array_give_the_same_and_nothing_is_replaced_unasked(folder):
    assert run(folder, *LOGS, "--dataset", "digits").returncode == 0
    first = (folder / "allocation/allocation.tsv").read_bytes()
    refused = run(folder, "images.npy", *LOGS)
    assert refused.returncode == 2
    assert "holds files already" in refused.stderr
    again = run(folder, "images.npy", *LOGS, "--overwrite", "--search", "faiss")
    assert again.returncode == 0, again.stderr
    assert (folder / "allocation/allocation.tsv").read_bytes() == first


def test_some_images_have_the_bounds_that_they_have_among_all(folder):
    # The log prints three digits, but those of these images end in 0: alone they would look rounded to one.
    log = folder / "short_0.25.tsv"
    write_log(
        log, [(k, label, label, "0.5" if k < 20 else "0.513") for k, label in enumerate(digits().test_labels[:40])]
    )
    (folder / "some.txt").write_text("7\n3\n12\n")
    for flags in (["--out", "all"], ["--out", "some", "--indices", "some.txt"]):
        process = run(folder, "images.npy", "--logs", log, *flags)
        assert process.returncode == 0, process.stderr
    every = {row["idx"]: row for row in rows_of(folder / "all/allocation.tsv")}
    some = rows_of(folder / "some/allocation.tsv")
    assert [row["idx"] for row in some] == ["3", "7", "12"]
    for row in some:
        assert row["R"] == every[row["idx"]]["R"] == "0.4995"
        assert row["label"] == every[row["idx"]]["label"]
    assert json.loads((folder / "some/summary.json").read_text())["data"]["indices"] == "some.txt"
    centres = regions.RegionMap.load(folder / "some/regions.npz").centres
    assert (centres == digits().test_images[[3, 7, 12]].reshape(3, -1)).all()


def test_folders_of_images_in_either_order(folder):
    data = digits()
    names = [f"{label}" for label in range(10)]
    for part in ("in-class", "sorted"):
        for name in names:
            (folder / part / "test" / name).mkdir(parents=True)
    order = np.argsort(data.test_labels, kind="stable")
    for k in range(len(order)):
        pixels = Image.fromarray(np.round(data.test_images[k, 0] * 255).astype(np.uint8))
        earlier = int((data.test_labels[:k] == data.test_labels[k]).sum())
        pixels.save(folder / "in-class/test" / names[data.test_labels[k]] / f"{earlier:04d}.png")
    everything = [(k, label, label, "0.5") for k, label in enumerate(data.test_labels)]
    write_log(folder / "all_0.25.tsv", everything)
    write_log(
        folder / "listed_0.25.tsv", [(k, data.test_labels[i], data.test_labels[i], "0.5") for k, i in enumerate(order)]
    )

    wrong = run(folder, "--logs", "all_0.25.tsv", "--dataset", "imagefolder:in-class")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "give --image-order class" in wrong.stderr

    rounded = np.round(data.test_images * 255) / 255
    colours = np.repeat(rounded, 3, axis=1).reshape(len(rounded), -1)
    right = run(folder, "--logs", "all_0.25.tsv", "--dataset", "imagefolder:in-class", "--image-order", "class")
    assert right.returncode == 0, right.stderr
    table = regions.RegionMap.load(folder / "allocation/regions.npz")
    np.testing.assert_allclose(table.centres, colours, atol=1e-6)

    listed = run(folder, "--logs", "listed_0.25.tsv", "--dataset", "imagefolder:in-class", "--out", "listed")
    assert listed.returncode == 0, listed.stderr
    table = regions.RegionMap.load(folder / "listed/regions.npz")
    np.testing.assert_allclose(table.centres, colours[order], atol=1e-6)


DIGITS = ("--dataset", "digits")
JOINT = ("--overlap", "joint")
BAD = {
    "a missing file": (["--logs", "lost_0.5.tsv", *DIGITS], "lost_0.5.tsv: no such file"),
    "a folder": (["--logs", "dir_0.5", *DIGITS], "dir_0.5"),
    "a truncated row": (["--logs", "NOISE_0.25.tsv", "torn_0.5.tsv", *DIGITS], "torn_0.5.tsv, line 41: 4 fields"),
    "another length": (["--logs", "NOISE_0.25.tsv", "short_0.5.tsv", *DIGITS], "short_0.5.tsv has 3 images"),
    "no sigma": (["--logs", "mine.tsv", *DIGITS], "with --sigmas"),
    "another data set": (["--logs", "other_0.5.tsv", *DIGITS], "it has"),
    "too many images": (["--logs", "many_0.5.tsv", *DIGITS], "image 999 is not in digits, which has 360"),
    "no data": ([*LOGS, "--dataset", "mnist", "--data-dir", "nowhere"], "nowhere holds no readable MNIST"),
    "an unknown data set": (
        [*LOGS, "--dataset", "cats"],
        "--dataset cats: choose digits, mnist, fashion-mnist",
    ),
    "images that the logs lack": (["images.npy", *LOGS, "--indices", "lacking.txt"], "the logs have no image 3"),
    "no folder": ([*LOGS, "--dataset", "imagefolder:nowhere"], "there is no such folder"),
    "no images named": ([*LOGS], "name the images that the logs are about"),
    "images named twice": (["images.npy", *LOGS, *DIGITS], "name the images that the logs are about"),
    "pixels to 255": (["bytes.npy", *LOGS], "bytes.npy: pixels must be floats in [0, 1]"),
    "n alone": ([*LOGS, *DIGITS, "--n", "1000"], "--n and --alpha go together"),
    "another n": ([*LOGS, *DIGITS, "--n", "100", "--alpha", "0.001"], "is not one that 100 votes give"),
    "no n": ([*LOGS, *DIGITS, "--overlap", "class"], "--overlap class: needs --n and --alpha"),
    "tiny alpha": ([*LOGS, *DIGITS, "--n", "100", "--alpha", "1e-101"], "--alpha 1e-101: must be at least 1e-100"),
    "alpha": ([*LOGS, *DIGITS, "--n", "100", "--alpha", "1"], "--alpha 1.0: must lie strictly between 0 and 1"),
    "order": ([*LOGS, *DIGITS, "--order", "arrival"], "--order arrival: is about --method greedy"),
    "joint": ([*LOGS, *DIGITS, *JOINT, "--method", "greedy"], "leave --method out"),
    "joint by a solver": ([*LOGS, *DIGITS, *JOINT, "--solver", "highs"], "--solver highs: --overlap joint sizes"),
    "joint in time": ([*LOGS, *DIGITS, *JOINT, "--time-limit", "9"], "--time-limit 9.0: --overlap joint sizes"),
    "solver": ([*LOGS, *DIGITS, "--method", "matching", "--solver", "highs"], "--solver highs: is about --method lp"),
    "no time": ([*LOGS, *DIGITS, "--time-limit", "nan"], "--time-limit nan: must be a positive number of seconds"),
    "backend": ([*LOGS, *DIGITS, "--parallel", "banana"], "--parallel banana: joblib cannot use this backend here"),
    "joint on a backend": ([*LOGS, *DIGITS, *JOINT, "--parallel", "banana"], "--parallel banana: joblib cannot"),
    "folder of an array": (["images.npy", *LOGS, "--data-dir", "here"], "--data-dir here: POINTS holds the images"),
    "folder of digits": ([*LOGS, *DIGITS, "--data-dir", "here"], "--data-dir here: is about --dataset mnist or cifar"),
    "alphas": ([*LOGS, *DIGITS, "--n", "100", "--alpha", "0.1", "0.2"], "--alpha names 2 numbers for 3 logs"),
    "ns": ([*LOGS, *DIGITS, "--n", "10", "20", "--alpha", "0.1"], "--n names 2 numbers for 3 logs"),
    "one alpha of three": (
        [*LOGS, *DIGITS, "--n", "1000", "--alpha", "0.1", "2", "0.1"],
        "--alpha 2.0: must lie strictly between 0 and 1",
    ),
    "sigma of 25": (["--logs", "sigma_25.tsv", *DIGITS], "the name holds '25', which is no noise level"),
    "another sigma": (["--logs", "NOISE_0.5.tsv", "--sigmas", "0.05", *DIGITS], "more than 6 sigma = 0.3"),
    "weights": ([*LOGS, *DIGITS, "--weights", "w.npy"], "--weights: cannot be combined with --logs"),
    "no logs": (["images.npy", "R.npy", "--rule", "max-radius"], "--rule max-radius: is about certification logs"),
    "out": ([*LOGS, *DIGITS, "--out", "images.npy"], "--out images.npy: is a file"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(folder, arguments, message, monkeypatch, capsys):
    lines = (folder / "NOISE_0.5.tsv").read_text().splitlines()
    (folder / "torn_0.5.tsv").write_text("\n".join([*lines[:-1], "0\t1\t1\t0.5"]))
    write_log(folder / "short_0.5.tsv", [(0, 1, 1, "0.5"), (5, 1, 1, "0.5"), (10, 1, 1, "0.5")])
    write_log(folder / "mine.tsv", [(0, 1, 1, "0.5")])
    write_log(folder / "other_0.5.tsv", [(0, (digits().test_labels[0] + 1) % 10, 1, "0.5")])
    write_log(folder / "many_0.5.tsv", [(999, 1, 1, "0.5")])
    (folder / "sigma_25.tsv").write_bytes((folder / "NOISE_0.5.tsv").read_bytes())
    (folder / "dir_0.5").mkdir()
    (folder / "lacking.txt").write_text("0\n3\n")
    np.save(folder / "bytes.npy", np.load(folder / "images.npy") * 255)
    before = {file.name for file in folder.iterdir()}
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["srs-allocate", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert printed.err.startswith("srs-allocate: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert {file.name for file in folder.iterdir()} == before


def unanimous(sigma, alpha, n=1000):
    """What a unanimous vote certifies, by Clopper and Pearson: p = alpha^(1/n)."""
    return sigma * NormalDist().inv_cdf(alpha ** (1 / n))


def test_logs_of_different_alpha(folder):
    """Each log's votes come back by its own alpha, in the order named; all is certified at the smallest of them."""
    labels = digits().test_labels
    for sigma, alpha in ((0.25, 0.001), (0.5, 0.05)):
        rows = [(i, labels[i], labels[i], f"{unanimous(sigma, alpha):.3}") for i in (0, 5)]
        write_log(folder / f"own_{sigma}.tsv", rows)
    logs = ("--logs", "own_0.5.tsv", "own_0.25.tsv", *DIGITS, "--n", 1000)
    refused = run(folder, *logs, "--alpha", 0.001)
    assert refused.returncode == 2
    assert "own_0.5.tsv, line 2: radius = " in refused.stderr
    assert "--alpha 0.05" in refused.stderr
    assert "would fit this log; give --n and --alpha of each log, in order" in refused.stderr
    process = run(folder, *logs, "--alpha", 0.05, 0.001)
    assert process.returncode == 0, process.stderr
    assert "at least 1 - 0.001, per image, by bounds recomputed at alpha / 2" in process.stdout
    summary = json.loads((folder / "allocation/summary.json").read_text())
    assert (summary["n"], summary["alpha"]) == (1000, [0.05, 0.001])
    for row in rows_of(folder / "allocation/allocation.tsv"):
        assert float(row["R"]) == pytest.approx(unanimous(0.5, 0.0005), abs=2e-6)
        assert float(row["R"]) <= unanimous(0.5, 0.0005)


def test_the_rule_holds_for_a_joint_choice(folder):
    """The smallest level is right everywhere, larger radii are wrong: only an anchor keeps the right answers."""
    labels = digits().test_labels[:40]
    write_log(folder / "few_0.25.tsv", [(i, label, label, "0.3") for i, label in enumerate(labels)])
    write_log(folder / "few_0.5.tsv", [(i, label, (label + 1) % 10, "1.2") for i, label in enumerate(labels)])
    for rule, sigma, clean in (("max-radius", "0.5", 0.0), ("anchor", "0.25", 1.0)):
        logs = ("--logs", "few_0.25.tsv", "few_0.5.tsv", *DIGITS, "--out", rule)
        process = run(folder, *logs, "--overlap", "joint", "--rule", rule)
        assert process.returncode == 0, process.stderr
        assert {row["sigma"] for row in rows_of(folder / rule / "allocation.tsv")} == {sigma}
        summary = json.loads((folder / rule / "summary.json").read_text())
        assert summary["rules"]["joint-lp"]["clean_accuracy_smoothed"] == clean


def test_the_images_may_stand_behind_a_list_of_numbers(folder):
    labels = digits().test_labels
    for sigma in (0.25, 0.5):
        rows = [(i, labels[i], labels[i], f"{unanimous(sigma, 0.001):.3}") for i in (0, 5)]
        write_log(folder / f"own_{sigma}.tsv", rows)
    numbers = ("--n", 1000, "--alpha", 0.001, "--sigmas", 0.25, 0.5)
    process = run(folder, "--logs", "own_0.25.tsv", "own_0.5.tsv", *numbers, "images.npy", "--verify")
    assert process.returncode == 0, process.stderr


def test_shares_of_work_change_nothing(folder):
    for name, flags in (("alone", []), ("shared", ["--parallel", "threading"])):
        process = run(folder, *LOGS, *DIGITS, "--out", name, *flags)
        assert process.returncode == 0, process.stderr
    assert (folder / "alone/allocation.tsv").read_bytes() == (folder / "shared/allocation.tsv").read_bytes()


@pytest.mark.data
def test_published_logs(data_folder, tmp_path):
    logs = [data_folder / "certify-logs" / f"mnist_catrs_{sigma}.tsv" for sigma in ("0.25", "0.5", "1.0")]
    settings = ("--dataset", "mnist", "--data-dir", data_folder, "--n", 100_000, "--alpha", 0.001, "--verify")
    process = run(tmp_path, "--logs", *logs, *settings)
    assert process.returncode == 0, process.stderr
    rules = json.loads((tmp_path / "allocation/summary.json").read_text())["rules"]
    acr = {name: rule["average_certified_radius"] for name, rule in rules.items()}

    label, predict, radius = np.stack([np.genfromtxt(log, skip_header=1, usecols=(1, 2, 3)) for log in logs]).T
    correct = predict == label
    best = np.where(predict == -1, 0, radius).argmax(axis=1)
    printed = dict(zip(("sigma=0.25", "sigma=0.5", "sigma=1"), (radius * correct).mean(axis=0), strict=True))
    printed["overlapping"] = (radius * correct)[np.arange(len(best)), best].mean()
    for name, value in printed.items():  # the units are at most 0.01, and alpha / 3 costs little
        assert value - 0.015 <= acr[name] <= value
    assert acr["paper-descending"] < acr["paper-ascending"] < acr["paper-lp"] < acr["sigma-lp"] <= acr["joint-lp"]
    assert acr["sigma=1"] < acr["class-lp"] < acr["sigma-lp"] < acr["overlapping"]


def test_logs_and_an_array_of_images_need_no_extra(folder):
    flags = ("images.npy", *LOGS, "--overlap", "class")
    done = call_without_extras("allocate", folder, *flags, "--n", "100", "--alpha", "0.001", "--rounding", "none")
    assert done.returncode == 2  # invented radii are those of no votes, which takes all that recovers votes to say
    assert "is not one that 100 votes give" in done.stderr
    done = call_without_extras("allocate", folder, "images.npy", *LOGS, "--verify")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (folder / "allocation").iterdir()} == FILES
