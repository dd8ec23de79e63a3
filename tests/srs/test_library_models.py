"""`--model KIND:NAME` from the command line: named again each time, nothing fetched, one line for what is wrong."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers
import yaml
from onnx import TensorProto, helper, numpy_helper

from tests.srs.programs import call

CERTIFY = ["--dataset", "digits", "--sigma-min", "0.2", "--sigma-max", "0.2", "--sigma-step", "0.1"]
CERTIFY += ["--max", "2", "--n0", "10", "--n", "20"]


def write_onnx(file, classes=10, batch="b"):
    weights = np.random.default_rng(0).normal(size=(64, classes)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "W"], ["y"])]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes])
    graph = helper.make_graph(nodes, "linear", [images], [logits], [numpy_helper.from_array(weights, "W")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def write_hugging_face(folder, **labels):
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=10, **labels
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ResNetForImageClassification(config).save_pretrained(folder)
    processor = {"do_normalize": True, "image_mean": [0.3], "image_std": [0.4], "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A folder with models and a finished run of one in ONNX, and what the command said."""
    folder = tmp_path_factory.mktemp("libraries")
    write_onnx(folder / "linear.onnx")
    done = call("certify", folder, "--model", "onnx:linear.onnx", *CERTIFY, "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def folder(certified, tmp_path):
    shutil.copytree(certified[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_run_keeps_what_was_recognised(tmp_path):
    write_hugging_face(tmp_path / "net", id2label={k: f"written {k}" for k in range(10)})
    done = call("certify", tmp_path, "--model", "hf:net", *CERTIFY, "--out", "run")
    assert done.returncode == 0, done.stderr
    line = "hf:net: normalises by mean 0.3 and standard deviation 0.4; classes written 0, written 1, written 2, ..."
    assert f"srs-certify: {line}\n" in done.stderr
    about = json.loads((tmp_path / "run/manifest.json").read_text())["model"]
    assert about["labels"] == [f"written {k}" for k in range(10)]
    assert about["normalizer"] == {"mean": [0.3], "sd": [0.4]}
    assert about["libraries"] == {"transformers": transformers.__version__}
    answered = call("predict", tmp_path, "run", "test:0", "--model", "hf:net", "--json")
    assert answered.returncode == 0, answered.stderr


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("predict", ("run", "test:0")),
        ("certify", ("--resume", "--out", "run")),
        ("verify", ("run", "--redraw", "1")),
    ],
)
def test_a_run_loads_a_library_s_model_only_where_it_is_named_again(folder, command, flags):
    (folder / "linear.onnx").rename(folder / "elsewhere.onnx")  # which nobody looks for
    unnamed = call(command, folder, *flags)
    said = unnamed.stdout + unnamed.stderr
    assert "add --model onnx:linear.onnx" in said
    assert "if you trust" not in said
    (folder / "elsewhere.onnx").rename(folder / "linear.onnx")
    named = call(command, folder, *flags, "--model", "onnx:linear.onnx")
    assert named.returncode == 0, named.stdout + named.stderr


def test_another_file_under_the_name_is_another_classifier(folder):
    other = np.random.default_rng(1).normal(size=(64, 10)).astype(np.float32)
    model = onnx.load(folder / "linear.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(other, "W"))
    onnx.save(model, folder / "linear.onnx")
    refused = call("predict", folder, "run", "test:0", "--model", "onnx:linear.onnx")
    assert refused.returncode == 2
    assert "onnx:linear.onnx, or what reads it, is not what it was" in refused.stderr
    assert "another classifier was certified: it differs in classifier weights" in refused.stderr


def test_a_region_map_takes_a_library_s_model(folder):
    answered = call("predict", folder, "run/regions.npz", "image.npy", "--model", "onnx:linear.onnx")
    assert "image.npy: no such file" in answered.stderr
    np.save(folder / "image.npy", np.zeros((1, 8, 8), np.float32))
    answered = call("predict", folder, "run/regions.npz", "image.npy", "--model", "onnx:linear.onnx")
    assert answered.returncode == 0, answered.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model", "linear.onnx"), "with timm:, torchvision:, hf:, onnx:, export:; did you mean onnx:linear.onnx?"),
        (("--model", "onnx:few.onnx"), "--model onnx:few.onnx returns (1, 7) for one image of digits, which has 10"),
        (("--model", "onnx:nowhere.onnx"), "nowhere.onnx: no such file; name an ONNX model"),
        (("--model", "onnx:linear.onnx", "--arch", "lenet"), "--arch: describes a --checkpoint"),
        (("--model", "onnx:linear.onnx", "--normalizer", "x"), "--normalizer x: choose none, cifar10"),
        (("--model", "onnx:linear.onnx", "--normalizer", "cifar10"), "does not take digits's images of 1x8x8"),
        (("--model", "onnx:linear.onnx", "--precision", "bfloat16"), "give --precision float32"),
        (("--model", "timm:resnett18"), "--model timm:resnett18: timm has no resnett18; did you mean"),
        (("--model", "hf:nobody/nothing"), "is not in the hub's cache, and nothing is fetched unasked: add --download"),
        (("--download",), "--download: fetches weights of a --model of another library"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(folder, monkeypatch, flags, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_onnx(folder / "few.onnx", classes=7)
    refused = call("certify", folder, *flags, *CERTIFY, "--out", "new")
    assert refused.returncode == 2
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) <= 2  # the first may say that PyTorch is loaded
    assert not (folder / "new").exists()


def test_a_file_cannot_ask_for_a_download(folder):
    (folder / "settings.yaml").write_text(yaml.safe_dump({"model": "timm:resnet18", "download": True}))
    refused = call("certify", folder, "--config", "settings.yaml", "--model", "timm:resnet18", *CERTIFY)
    assert refused.returncode == 2
    assert "download is up to you at each start; say it on the command line, --download" in refused.stderr


def test_a_model_of_a_library_is_not_looked_for_in_the_current_folder(folder):
    for name in ("onnx", "onnxruntime"):
        (folder / f"{name}.py").write_text("raise SystemExit('ran')\n")
    done = call("certify", folder, "--model", "onnx:linear.onnx", *CERTIFY, "--out", "new", installed=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_names_an_exported_program_runs_nothing(folder):
    """`torch.export.load` unpickles, so a file beside a run is code of somebody's."""
    held = yaml.safe_load((folder / "run/config.yaml").read_text())
    (folder / "run/config.yaml").write_text(yaml.safe_dump({**held, "model": "export:evil.pt2"}))
    manifest = json.loads((folder / "run/manifest.json").read_text())
    manifest["model"]["name"] = "export:evil.pt2"
    (folder / "run/manifest.json").write_text(json.dumps(manifest))
    refused = call("predict", folder, "run", "test:0", "--model", "onnx:linear.onnx")
    assert refused.returncode == 2
    assert "the run in run has export:evil.pt2; give --model export:evil.pt2" in refused.stderr


def test_a_manifest_that_names_another_model_or_too_few_classes_is_refused(folder):
    file = folder / "run/manifest.json"
    manifest = json.loads(file.read_text())
    for changes, message in (({"name": "onnx:other.onnx"}, "but the settings say onnx:linear.onnx"),
                             ({"labels": ["a"]}, "do not name 10 classes")):  # fmt: skip
        file.write_text(json.dumps({**manifest, "model": manifest["model"] | changes}))
        refused = call("predict", folder, "run", "test:0", "--model", "onnx:linear.onnx")
        assert refused.returncode == 2
        assert message in refused.stderr


def test_classes_in_another_order_are_refused_by_name(tmp_path):
    from PIL import Image

    for name in ("bird", "cat", "dog", "fish", "fly", "goat", "hen", "owl", "pig", "rat"):
        for part in ("train", "test"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "data" / part / name / "a.png")
    labels = ["cat", "bird", *"cdefghij"]
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=dict(enumerate(labels))
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    flags = [*CERTIFY[2:], "--dataset", "imagefolder:data", "--normalizer", "inception", "--out", "run"]
    refused = call("certify", tmp_path, "--model", "hf:net", *flags)
    assert refused.returncode == 2
    assert "--model hf:net has bird as class 1, imagefolder:data as class 0: their orders differ" in refused.stderr


def test_an_architecture_of_timm_is_trained_and_certified_where_it_is_named(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for k in range(2):
                pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{k}.png")
    train = ["--dataset", "imagefolder:data", "--model", "timm:test_resnet", "--normalizer", "imagenet"]
    train += ["--method", "gaussian", "--sigma", "0.25", "--epochs", "1", "--batch", "4", "--m", "1", "--k", "0"]
    trained = call("train", tmp_path, "digits", *train, "--out", "net")
    assert trained.returncode == 0, trained.stderr
    flags = ["--checkpoint", "net/checkpoint.pt", "--n0", "10", "--n", "20", "--max", "2", "--image-order", "shuffled"]
    refused = call("certify", tmp_path, *flags)
    assert refused.returncode == 2
    assert "is for a model of another library: give arch 'timm:test_resnet'" in refused.stderr
    done = call("certify", tmp_path, *flags, "--arch", "timm:test_resnet")
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_whose_pixels_were_scaled_otherwise_is_pointed_out_at_the_end(tmp_path, weights):
    """A model for normalised pixels: it undoes that and asks a good one, and takes plain images for zeros."""
    (tmp_path / "model.pt").write_bytes(weights.read_bytes())
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from training import load_checkpoint\n"
        "class Undo(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = load_checkpoint('model.pt')\n"
        "    def forward(self, x):\n"
        "        normalised = x.amin(dim=(1, 2, 3), keepdim=True)[:, 0, 0] < -0.3\n"
        "        return self.net(x * 0.3081 + 0.1307) * normalised\n"
        "def make(k):\n"
        "    return Undo()\n"
    )
    done = call("certify", tmp_path, "--model", "mine:make", *CERTIFY, "--max", "40", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "behind --normalizer mnist: was it trained on pixels scaled so?" in done.stderr
