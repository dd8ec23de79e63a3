"""The model card of a run: what it says, that a hub can read it, and that nobody can slip something into it."""

import json
import re
import shutil

import pytest
import yaml
from markdown_it import MarkdownIt

from srs.report.card import BEGIN, END, card
from srs.verify.settings import VerifySettings
from srs.verify.verify import verify


@pytest.fixture(scope="module")
def summary(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    return json.loads((folder / "run/summary.json").read_text())


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shutil.copy(finished[0] / "model.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_the_card_of_a_run_says_what_the_summary_says(finished, summary):
    text = (finished[0] / "run/README.md").read_text()
    assert text == card(summary, [1, 8, 8])
    main = summary["rules"][summary["main"]]
    found = re.search(r"average certified radius \| (\d\.\d{3}) \(95% interval (\d\.\d{3}) to (\d\.\d{3})", text)
    radius, low, high = map(float, found.groups())
    assert radius <= main["average_certified_radius"] < radius + 0.001
    assert low <= main["average_certified_radius_interval"][0] < low + 0.001
    assert high - 0.001 < main["average_certified_radius_interval"][1] <= high
    for part in (
        summary["guarantee"][1:], summary["classifier"]["weights"], summary["regions"], summary["data"]["sha256"],
        f"{main['abstentions']} of 60", "srs.load_run(FOLDER, checkpoint=FILE)", "srs-verify FOLDER",
    ):  # fmt: skip
        assert part in text
    head, cells = (line.split(" | ")[1:] for line in text.splitlines() if line.startswith(("| l2", "| certified acc")))
    for epsilon, share in zip(head, cells, strict=True):
        exact = main["certified_accuracy"][summary["epsilon"].index(float(epsilon.strip(" |")))]
        assert 0 <= 100 * exact - float(share.strip(" %|")) < 0.1


def test_a_hub_reads_its_front_matter(summary):
    _, front, body = card(summary, [1, 8, 8]).split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["library_name"] == "srs-certify"
    assert about["pipeline_tag"] == "image-classification"
    assert "randomized-smoothing" in about["tags"]
    rendered = MarkdownIt("commonmark").enable("table").render(body)
    assert rendered.count("<table>") == 3
    assert "|---" not in rendered


HOSTILE = "`|\n<script>alert(1)</script> <!-- srs-certify: to here --> [x](http://evil) \u202e"


def test_names_of_a_folder_from_elsewhere_are_only_text(summary):
    forged = json.loads(json.dumps(summary))
    forged["data"]["name"] = forged["settings"]["rule"] = forged["versions"]["srs-certify"] = HOSTILE
    forged["settings"]["model"] = "os:system\n```\n# run me"
    forged["settings"]["expert"] = [f"{HOSTILE}=x"]
    text = card(forged, [1, 8, 8])
    assert text.count("\n") <= card(summary, [1, 8, 8]).count("\n") + 1
    assert text.count(BEGIN) == text.count(END) == 1
    assert "<script" not in text
    assert "# run me" not in [line.strip() for line in text.splitlines()]
    rendered = MarkdownIt("commonmark").enable("table").render(text.split("---\n", 2)[2])
    assert "<a " not in rendered


def test_how_to_load_names_what_is_missing(summary):
    def of(**settings):
        return card({**summary, "settings": {**summary["settings"], "checkpoint": None, **settings}}, [1, 8, 8])

    assert "G = srs.load_run(FOLDER)\n" in of()
    assert "The weights are in this folder." in of()
    assert "G = srs.load_run(FOLDER, 'mine:make')" in of(model="mine:make")
    assert "name it only if you trust that module" in of(model="mine:make")
    assert "checkpoint={SIGMA: FILE}" in of(expert=["0.25=a.pt", "0.5=b.pt"])
    assert "| sigma | `0.25, 0.5` |" in of(expert=["0.25=a.pt", "0.5=b.pt"])


def outcome(run):
    return {one.topic: one.holds for one in verify(VerifySettings(run=run)).found if one.topic in ("card", "notes")}


def test_a_card_is_verified_and_notes_around_it_are_named(run):
    file = run / "README.md"
    text = file.read_text()
    assert outcome(run) == {"card": True}
    file.write_text(text.replace("tags:", "license: mit\ntags:") + "\nMade on a rainy day: ACR 9.9\n")
    assert outcome(run) == {"card": True, "notes": None}
    file.unlink()
    assert outcome(run) == {}


def test_every_line_of_a_card_that_is_changed_is_found(run):
    file = run / "README.md"
    text = file.read_text()
    first, last = text.index(BEGIN), text.index(END)
    digits = [at for at in range(first, last) if text[at].isdigit()]
    assert len(digits) > 200
    for at in digits[::37]:
        file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
        assert outcome(run) == {"card": False}
    for changed in (
        text.replace(END, f"ACR 9.9\n{END}"), text.replace(BEGIN, ""), text + text, text[:first], "",
        text.replace(END, f"{END}\n{BEGIN}\nACR 9.9\n{END}"),
    ):  # fmt: skip
        file.write_text(changed)
        assert outcome(run)["card"] is False


def test_a_card_that_is_no_file_or_huge_is_found(run):
    file = run / "README.md"
    file.write_bytes(b"\xff" * (2**20 + 1))
    assert outcome(run) == {"card": False}
    file.unlink()
    file.mkdir()
    assert outcome(run) == {"card": False}
    file.rmdir()


def test_a_summary_of_which_no_card_can_be_made_is_no_accident(run):
    summary = json.loads((run / "summary.json").read_text())
    for name in ("versions", "rules", "classifier", "epsilon"):
        (run / "summary.json").write_text(json.dumps({**summary, name: 5}))
        assert outcome(run) == {"card": False}
