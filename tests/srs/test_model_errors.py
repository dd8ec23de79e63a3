"""Models of the user's own, as `srs-certify --model` and `srs-predict` meet them."""

import csv
import json

import pytest

from tests.srs.programs import assert_refused, call

FLAGS = (
    "--dataset", "digits", "--sigma-min", "0.2", "--sigma-max", "0.4", "--sigma-step", "0.2", "--n0", "20", "--n", "60",
    "--max", "3", "--device", "cpu", "--out", "run",
)  # fmt: skip

MODELS = """
from types import SimpleNamespace
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, classes, how, **attributes):
        super().__init__()
        self.linear, self.how, self.calls = nn.Linear(64, classes), how, 0
        vars(self).update(attributes)
    def forward(self, images):
        self.calls += 1
        return self.how(self, images)

class View(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, classes)
    def forward(self, images):
        found = self.features(images)
        return self.linear(found.view(found.size(0), -1))

def fails(model, images):
    assert images.shape[2] == 224, "224 expected"
def abstract(model, images):
    raise NotImplementedError

copies = lambda k: Model(k, lambda m, x: m.linear((1 - x).flatten(1)))
in_place = lambda k: Model(k, lambda m, x: m.linear(x.neg_().add_(1).flatten(1)))
holds = lambda k: Model(k, lambda m, x: SimpleNamespace(logits=m.linear((1 - x).flatten(1))))
batch = lambda k: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(),
                                nn.Linear(144, k))
normed = lambda k: Model(k, lambda m, x: m.linear(((x - m.mean) / m.sd).flatten(1)), mean=0.5, sd=torch.tensor([SD]))
asserts, unwritten, view = (lambda k: Model(k, fails)), (lambda k: Model(k, abstract)), View
def missing(k): return {}["weights"]
SD = 0.5
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "mine.py").write_text(MODELS)
    return tmp_path


def rows(run):
    """What was certified, but for the time it took."""
    with (run / "certificates.tsv").open(newline="") as stream:
        return [{**row, "time": ""} for row in csv.DictReader(stream, delimiter="\t")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("asserts", "--model mine:asserts does not take digits's images of 1x8x8: the model refused a batch of shape "
         "(1, 1, 8, 8): AssertionError: 224 expected"),
        ("unwritten", "NotImplementedError\n"),
        ("missing", "--model mine:missing: missing(10) failed: KeyError: 'weights'"),
        ("batch", "depends on the rest of its batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_certified_is_one_line(place, name, message):
    assert_refused(call("certify", place, "--model", f"mine:{name}", *FLAGS), "srs-certify", message)
    assert not (place / "run" / "certificates.tsv").exists()


def test_models_that_say_the_same_in_other_ways_are_certified_alike(place):
    found = {}
    for name in ("copies", "in_place", "holds"):
        done = call("certify", place, "--model", f"mine:{name}", *FLAGS[:-1], name)
        assert done.returncode == 0, done.stderr
        found[name] = rows(place / name)
    assert found["copies"] == found["in_place"] == found["holds"]
    done = call("certify", place, "--model", "mine:view", *FLAGS)
    assert done.returncode == 0, done.stderr


def test_a_normaliser_of_plain_attributes_belongs_to_the_run(place):
    first = call("certify", place, "--model", "mine:normed", *FLAGS)
    assert first.returncode == 0, first.stderr
    again = call("certify", place, "--model", "mine:normed", *FLAGS, "--resume")
    assert again.returncode == 0, again.stderr
    (place / "mine.py").write_text(MODELS + "SD = 0.25\n")
    other = call("certify", place, "--model", "mine:normed", *FLAGS, "--resume")
    assert_refused(other, "srs-certify", "belongs to a run with another classifier weights")


def test_a_run_of_an_earlier_version_is_refused_in_one_line(place):
    assert call("certify", place, "--model", "mine:copies", *FLAGS).returncode == 0
    manifest = place / "run" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["classifier"]["scheme"], content["check"]
    manifest.write_text(json.dumps(content))
    again = call("certify", place, "--model", "mine:copies", *FLAGS, "--resume")
    assert_refused(again, "srs-certify", "an earlier version's")


def test_tf32_is_refused_where_there_is_none(place):
    refused = call("certify", place, "--model", "mine:copies", *FLAGS, "--precision", "tf32")
    assert_refused(refused, "srs-certify", "--precision tf32: only CUDA devices compute in it")
