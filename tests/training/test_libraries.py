"""Models of other libraries and formats: random weights, no network, nothing that a file could run."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from smoothing import SmoothedClassifier
from training import Normalize, build, load_checkpoint, load_model, normalized, save_checkpoint
from training.libraries.fixed_batch import FixedBatch

MEAN, SD = 0.3, 0.4
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))

VIT = {
    "num_channels": 1, "image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 10,
}  # fmt: skip


def logits(model):
    with torch.no_grad():
        return model(IMAGES)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A model of transformers as save_pretrained leaves it, with a processor, and its logits."""
    folder = tmp_path_factory.mktemp("hub") / "vit"
    labels = {k: f"digit {k}" for k in range(10)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, id2label=labels)).eval()
    model.save_pretrained(folder)
    processor = {"do_normalize": True, "image_mean": [MEAN], "image_std": [SD], "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    with torch.no_grad():
        return folder, model((IMAGES - MEAN) / SD).logits


@pytest.fixture
def vit(saved, tmp_path):
    return Path(shutil.copytree(saved[0], tmp_path / "vit"))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_model_of_transformers_is_recognised_with_its_processor_and_labels(saved, vit):
    loaded = load_model(f"hf:{vit}")
    assert loaded.moments == ((MEAN,), (SD,))
    assert loaded.labels == tuple(f"digit {k}" for k in range(10))
    assert str(loaded) == (
        f"hf:{vit}: normalises by mean 0.3 and standard deviation 0.4; classes digit 0, digit 1, digit 2, ..."
    )
    assert not loaded.module.training
    torch.testing.assert_close(logits(loaded.module), saved[1], rtol=1e-4, atol=1e-5)


def test_where_a_folder_lies_is_no_part_of_a_model(saved, vit):
    here, there = (SmoothedClassifier(load_model(f"hf:{folder}").module, 10).identity for folder in (saved[0], vit))
    assert here == there
    program = (
        "import sys; from smoothing import SmoothedClassifier; from training import load_model\n"
        "print(SmoothedClassifier(load_model(sys.argv[1]).module, 10).identity.weights)"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program, f"hf:{vit}"], capture_output=True, text=True, check=True
    ).stdout
    assert elsewhere.strip() == here.weights


def test_other_weights_are_another_model(vit):
    from safetensors.torch import load_file, save_file

    before = SmoothedClassifier(load_model(f"hf:{vit}").module, 10).identity
    weights = load_file(vit / "model.safetensors")
    weights["classifier.bias"][3] += 1e-6
    save_file(weights, vit / "model.safetensors", metadata={"format": "pt"})
    assert SmoothedClassifier(load_model(f"hf:{vit}").module, 10).identity != before


def _pickle(vit):
    (vit / "model.safetensors").rename(vit / "pytorch_model.bin")


def _lacking(vit):
    from safetensors.torch import load_file, save_file

    weights = load_file(vit / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, vit / "model.safetensors", metadata={"format": "pt"})


def _config(**changes):
    return lambda vit: edit(vit / "config.json", **changes)


def _processor(**changes):
    return lambda vit: edit(vit / "preprocessor_config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_pickle, "has only pytorch_model.bin, a pickle, which is never read: where you trust it"),
        (_lacking, "lacks weights, classifier.bias for one"),
        (_config(auto_map={"AutoModel": "evil.Model"}), r"asks for code of its own, which is never run \(auto_map"),
        (_config(quantization_config={"bits": 4}), "is quantised"),
        (_config(vision={"attn_implementation": "somebody/kernel"}), "code from elsewhere"),
        (_config(model_type="vitt"), "no image classifier of type vitt; did you mean vit"),
        (_config(model_type="timm_wrapper"), "is a model of timm: name it timm:NAME"),
        (_config(id2label={str(k + 1): "x" for k in range(10)}), "id2label does not number 10 classes from 0"),
        (_processor(rescale_factor=1 / 127.5), "does not bring pixels into"),
        (_processor(image_std=[0.0]), "image_mean and image_std"),
        (lambda vit: (vit / "config.json").unlink(), "has no config.json"),
        (lambda vit: (vit / "config.json").write_text("{"), "config.json is damaged"),
        (lambda vit: (vit / "model.safetensors").write_bytes(b"no weights"), "cannot be loaded"),
        (lambda vit: (vit / "preprocessor_config.json").unlink(), "give normalizer, one of none, cifar10"),
        (lambda vit: (vit / "adapter_config.json").write_text("{}"), "is an adapter"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_model_of_transformers_is_one_line(vit, damage, message):
    damage(vit)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(f"hf:{vit}")
    assert "\n" not in str(caught.value)


def test_a_normaliser_is_named_where_nobody_says_it_and_must_agree_where_somebody_does(saved, vit):
    with pytest.raises(ValueError, match=r"normalizer = 'mnist': hf:.* has its own, which differs; leave"):
        load_model(f"hf:{vit}", normalizer="mnist")
    (vit / "preprocessor_config.json").unlink()
    plain = load_model(f"hf:{vit}", normalizer="none")
    assert plain.moments is None
    torch.testing.assert_close(logits(nn.Sequential(Normalize((MEAN,), (SD,)), plain.module)), saved[1])
    named = load_model(f"hf:{vit}", normalizer="mnist")
    assert named.moments == ((0.1307,), (0.3081,))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put(cache, repository, files):
    """Put files into the cache as the hub's client does: blobs by their SHA-256, and links to them."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c" * 40)
    (folder / "blobs").mkdir()
    snapshot = folder / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return snapshot


@pytest.mark.parametrize("name", ["hf:nobody/nothing", "hf:nobody/nothing@v2", "timm:test_resnet"])
def test_nothing_is_fetched_unasked(cache, name):
    with pytest.raises(ValueError, match="is not in the hub's cache, and nothing is fetched unasked: add --download"):
        load_model(name)


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("name", ["hf:nobody/nothing", "timm:test_resnet"])
def test_the_hub_is_asked_only_where_the_user_says_so(monkeypatch, name, download):
    asked = []

    def record(*args, local_files_only, **options):
        asked.append(local_files_only)
        raise OSError("nothing there")

    for function in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{function}", record)
    with pytest.raises(ValueError, match="nothing there" if download else "nothing is fetched unasked"):
        load_model(name, download=download)
    assert asked == [not download]


def test_the_hubs_library_does_not_warn_of_each_try(monkeypatch):
    def fail(*args, **options):
        levels.append(logger.getEffectiveLevel())
        raise OSError("no network")

    logger = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    levels = [logger.getEffectiveLevel()]
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(ValueError, match="no network"):
        load_model("timm:test_resnet", download=True)
    assert levels[1] > logging.WARNING
    assert logger.getEffectiveLevel() == levels[0]


def test_a_name_that_the_network_does_not_answer_is_one_line(cache):
    with pytest.raises(ValueError, match=r"hf:nobody/nothing cannot be fetched \(") as caught:
        load_model("hf:nobody/nothing", download=True)
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_is_read_from_its_cache(saved, cache):
    put(cache, "somebody/vit", {file.name: file.read_bytes() for file in saved[0].iterdir()})
    torch.testing.assert_close(logits(load_model("hf:somebody/vit").module), saved[1], rtol=1e-4, atol=1e-5)


def test_a_cache_whose_content_is_not_what_the_hub_said_is_refused(saved, cache):
    snapshot = put(cache, "somebody/vit", {file.name: file.read_bytes() for file in saved[0].iterdir()})
    weights = (snapshot / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its content has another hash than the hub gave"):
        load_model("hf:somebody/vit")


def test_weights_of_timm_come_from_the_hub_s_cache(cache, tmp_path):
    import timm
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", pretrained=False).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    put(cache, "timm/test_resnet.r160_in1k", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    loaded = load_model("timm:test_resnet")
    assert loaded.moments == ((0.5,) * 3, (0.5,) * 3)
    assert len(loaded.labels) == 1000
    assert loaded.labels[0].startswith("tench")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(images), net((images - 0.5) / 0.5))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnett18", "timm has no resnett18; did you mean .*resnet18"),
        ("timm:resnet18.nobody", r"timm has no weights 'nobody' of resnet18: choose a1_in1k"),
        ("timm:hf-hub:somebody/model", "fetch model.safetensors yourself, and give --checkpoint FILE --arch timm:NAME"),
        ("timm:", "expected timm:NAME, an architecture of timm"),
        ("torchvision:resnet19", "torchvision has no classifier resnet19; did you mean resnet18"),
        ("torchvision:resnet18@V9", "torchvision has no weights 'V9' of resnet18: choose IMAGENET1K_V1"),
        ("torchvision:lraspp_mobilenet_v3_large", "torchvision has no classifier"),
        ("hf:./nowhere", "there is no such folder; expected hf:FOLDER or hf:OWNER/NAME"),
    ],
)
def test_names_that_are_not_known_are_one_line(cache, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"timm:resnet18 needs timm, .*: pip install 'srs-certify\[timm\]'"):
        load_model("timm:resnet18")


def test_weights_of_torchvision_are_known_by_the_hash_in_their_name(tmp_path, monkeypatch):
    from torchvision import models

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"squeezenet1_1-b8a52dc0.pth is not there, and nothing is fetched unasked"):
        load_model("torchvision:squeezenet1_1")
    file = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir()
    net = models.squeezenet1_1().eval()
    torch.save(net.state_dict(), file)
    with pytest.raises(ValueError, match="is damaged: its hash does not begin with b8a52dc0"):
        load_model("torchvision:squeezenet1_1")
    monkeypatch.setattr("training.libraries.pretrained.sha256_of", lambda file: "b8a52dc0" + "0" * 56)
    loaded = load_model("torchvision:squeezenet1_1")
    assert loaded.labels[0] == "tench"
    assert loaded.moments == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("arch", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_architectures_are_trained_anew_and_read_again_where_they_are_named(arch, tmp_path):
    net = build(arch, 7, seed=3)
    assert torch.equal(next(net.parameters()), next(build(arch, 7, seed=3).parameters()))
    file = tmp_path / "net.pt"
    save_checkpoint(file, net, arch=arch, normalizer="imagenet", num_classes=7)
    with pytest.raises(ValueError, match=f"is for a model of another library: give arch '{arch}'"):
        load_checkpoint(file)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = normalized(net.eval(), "imagenet")(images)
        torch.testing.assert_close(load_checkpoint(file, arch=arch)(images), expected)


def test_weights_alone_of_a_library_s_network_do_not_say_how_pixels_are_normalised(tmp_path):
    torch.save(build("timm:test_resnet", 7).state_dict(), tmp_path / "bare.pt")
    known = {"arch": "timm:test_resnet", "num_classes": 7}
    with pytest.raises(ValueError, match="does not name its normalizer: give normalizer, one of none"):
        load_checkpoint(tmp_path / "bare.pt", **known)
    assert isinstance(load_checkpoint(tmp_path / "bare.pt", **known, normalizer="imagenet")[0], Normalize)


@pytest.mark.parametrize("name", ["hf:somewhere", "onnx:a.onnx", "export:a.pt2"])
def test_what_comes_with_its_weights_is_no_architecture(name):
    with pytest.raises(ValueError, match=f"^arch = '{name}': comes with its weights: it is no architecture"):
        build(name, 10)


def test_an_architecture_that_is_not_known_is_said_once():
    with pytest.raises(ValueError, match=r"^arch = 'timm:resnett18': timm has no resnett18; did you mean resnet18"):
        build("timm:resnett18", 10)


def linear(nodes=None, *, batch="b", inputs=None, output=TensorProto.FLOAT, weights=None, **extra):
    """A linear classifier in ONNX."""
    nodes = nodes or [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "W"], ["y"]),
    ]
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", output, [batch, 10])]
    weights = [numpy_helper.from_array(WEIGHTS.numpy(), "W")] if weights is None else weights
    graph = helper.make_graph(nodes, "linear", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("somebody", 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **extra)


@pytest.mark.parametrize("batch", ["b", 1, 2, 4])
def test_an_onnx_file_votes_as_its_formula(tmp_path, batch):
    onnx.save(linear(batch=batch), tmp_path / "linear.onnx")
    loaded = load_model(f"onnx:{tmp_path / 'linear.onnx'}")
    torch.testing.assert_close(logits(loaded.module), IMAGES.flatten(1) @ WEIGHTS)
    classifier = SmoothedClassifier(loaded.module, 10)
    identity = classifier.identity
    classifier.certify(IMAGES, 0.25, n0=10, n=40)
    assert classifier.identity == identity
    assert SmoothedClassifier(load_model(loaded.source).module, 10).identity == identity


def test_an_onnx_file_may_have_a_normaliser_put_before_it(tmp_path):
    onnx.save(linear(), tmp_path / "linear.onnx")
    loaded = load_model(f"onnx:{tmp_path / 'linear.onnx'}", normalizer="mnist")
    torch.testing.assert_close(logits(loaded.module), ((IMAGES - 0.1307) / 0.3081).flatten(1) @ WEIGHTS)


def test_one_changed_weight_is_another_onnx_model(tmp_path):
    onnx.save(linear(), tmp_path / "a.onnx")
    changed = WEIGHTS.clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(9.0))
    onnx.save(linear(weights=[numpy_helper.from_array(changed.numpy(), "W")]), tmp_path / "b.onnx")
    a, b = (SmoothedClassifier(load_model(f"onnx:{tmp_path}/{name}.onnx").module, 10).identity for name in "ab")
    assert a.weights != b.weights


def test_a_copy_of_an_onnx_model_votes_for_itself(tmp_path):
    import copy

    onnx.save(linear(), tmp_path / "linear.onnx")
    model = load_model(f"onnx:{tmp_path / 'linear.onnx'}").module
    torch.testing.assert_close(logits(copy.deepcopy(model)), logits(model))


def external(location):
    """Weights that stand in another file."""
    tensor = numpy_helper.from_array(WEIGHTS.numpy(), "W")
    content = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(content))
    tensor.ClearField("raw_data")
    return linear(weights=[tensor]), content


def test_weights_beside_an_onnx_file_are_a_part_of_it(tmp_path):
    model, content = external("weights.bin")
    (tmp_path / "linear.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(content)
    module = load_model(f"onnx:{tmp_path / 'linear.onnx'}").module
    (tmp_path / "weights.bin").unlink()
    torch.testing.assert_close(logits(module), IMAGES.flatten(1) @ WEIGHTS)


@pytest.mark.parametrize("how", ["above", "absolute", "link"])
def test_weights_outside_the_folder_of_an_onnx_file_are_never_opened(tmp_path, how):
    inside = tmp_path / "model"
    inside.mkdir()
    outside = tmp_path / "secret.bin"
    model, content = external({"above": "../secret.bin", "absolute": str(outside), "link": "link.bin"}[how])
    outside.write_bytes(content)
    (inside / "link.bin").symlink_to(outside)
    (inside / "linear.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="outside its folder, which is never opened: put both into one folder"):
        load_model(f"onnx:{inside / 'linear.onnx'}")


def _inner(node):
    """A model with a node inside a branch."""
    value = helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)
    branch = helper.make_graph([node], "branch", [], [value])
    condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "c"))
    return linear([condition, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear([helper.make_node("Magic", ["x"], ["y"], domain="somebody")]), "uses somebody.Magic"),
        (linear([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]), "uses com.microsoft.Gelu"),
        (_inner(helper.make_node("Magic", ["x"], ["y0"], domain="somebody")), "uses somebody.Magic"),
        (_inner(helper.make_node("RandomNormal", [], ["y0"], shape=[5, 10])), "draws random numbers"),
        (linear(output=TensorProto.INT64), "returns int64, which are no logits"),
        (
            linear(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["b", 1, 8, 8])]),
            "takes float16 of 4 dimensions",
        ),
        (
            linear(inputs=[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 1, 8, 8]) for name in "xz"]),
            "takes 2 inputs",
        ),
        (linear([helper.make_node("Nonsense", ["x"], ["y"])]), "cannot be run by ONNX Runtime"),
    ],
    ids=["custom", "contributed", "custom inside", "random", "classes", "half", "two inputs", "unknown"],
)
def test_onnx_files_that_are_refused(tmp_path, model, message):
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message) as caught:
        load_model(f"onnx:{tmp_path / 'bad.onnx'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04 no model", bytes(range(256))])
def test_files_that_are_no_onnx_are_one_line(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="is no ONNX model, or damaged"):
        load_model(f"onnx:{tmp_path / 'bad.onnx'}")


def export(module, file, *, batch=2, fixed=False):
    shapes = None if fixed else ({0: torch.export.Dim("b")},)
    torch.export.save(torch.export.export(module, (torch.rand(batch, 1, 8, 8),), dynamic_shapes=shapes), file)


@pytest.mark.parametrize("fixed", [False, True])
def test_an_exported_program_votes_as_what_was_exported(tmp_path, fixed):
    net = build("digits_cnn", 10).eval()
    export(net, tmp_path / "net.pt2", fixed=fixed)
    loaded = load_model(f"export:{tmp_path / 'net.pt2'}")
    torch.testing.assert_close(logits(loaded.module), logits(net))
    assert isinstance(loaded.module, FixedBatch) == fixed
    identity = SmoothedClassifier(loaded.module, 10).identity
    assert SmoothedClassifier(load_model(loaded.source).module, 10).identity == identity
    behind = load_model(loaded.source, normalizer="mnist").module
    torch.testing.assert_close(logits(behind), net((IMAGES - 0.1307) / 0.3081))


def test_dropout_that_was_exported_is_found_out(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)).train()
    export(net, tmp_path / "net.pt2")
    classifier = SmoothedClassifier(load_model(f"export:{tmp_path / 'net.pt2'}").module, 10)
    with pytest.raises(ValueError, match=r"hidden randomness|draws random numbers"):
        classifier.certify(IMAGES, 0.25, n0=10, n=20)


class Classes(nn.Module):
    def forward(self, images):
        return images.flatten(1).argmax(dim=1, keepdim=True)


class Two(nn.Module):
    def forward(self, images, scale):
        return images.flatten(1) * scale


def test_exported_programs_that_are_refused(tmp_path):
    file = tmp_path / "bad.pt2"
    torch.save(nn.Linear(2, 2).state_dict(), file)
    with pytest.raises(ValueError, match=r"is no exported program: .* a file of weights goes to --checkpoint"):
        load_model(f"export:{file}")
    file.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ValueError, match="is no exported program"):
        load_model(f"export:{file}")
    export(Classes(), file)
    with pytest.raises(ValueError, match=r"returns torch.int64, which are no logits"):
        load_model(f"export:{file}")
    torch.export.save(torch.export.export(Two(), (IMAGES, torch.ones(()))), file)
    with pytest.raises(ValueError, match="takes 2 inputs"):
        load_model(f"export:{file}")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt2: no such file; name an exported program"):
        load_model(f"export:{tmp_path / 'nowhere.pt2'}")
    with pytest.raises(IsADirectoryError, match="is a folder: name an exported program"):
        load_model(f"export:{tmp_path}")


def test_a_batch_of_a_fixed_size_is_filled_up_and_no_answer_is_of_the_filling():
    asked = []

    class Strict(nn.Module):
        def forward(self, images):
            asked.append(len(images))
            return images.flatten(1) @ WEIGHTS

    torch.testing.assert_close(logits(FixedBatch(Strict(), 4)), IMAGES.flatten(1) @ WEIGHTS)
    assert asked == [4, 4]


def test_parts_of_weights_are_files_beside_their_list(vit):
    from safetensors.torch import load_file, save_file

    weights = load_file(vit / "model.safetensors")
    (vit / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(weights)[::2], "b.safetensors": sorted(weights)[1::2]}
    for file, names in halves.items():
        save_file({name: weights[name] for name in names}, vit / file, metadata={"format": "pt"})
    places = {name: file for file, names in halves.items() for name in names}
    index = vit / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert torch.isfinite(logits(load_model(f"hf:{vit}").module)).all()
    shutil.copy(vit / "a.safetensors", vit.parent / "a.safetensors")
    shutil.copy(vit / "a.safetensors", vit / "a.bin")
    for part in ("../a.safetensors", "a.bin", "c.safetensors"):
        index.write_text(json.dumps({"metadata": {}, "weight_map": places | {"classifier.bias": part}}))
        with pytest.raises(ValueError, match="which is no file of weights beside it"):
            load_model(f"hf:{vit}")
