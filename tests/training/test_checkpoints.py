"""Files of earlier work are read; damaged, foreign and malicious ones are refused in one line."""

import pathlib
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from smoothing import SmoothedClassifier
from training import build, load_checkpoint, normalized, save_checkpoint
from training.models import Normalize

IMAGES = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    return build("cifar_resnet20", 7, seed=4).eval()


def logits(model, images=IMAGES):
    with torch.inference_mode():
        return model(images)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["1.", "1.module.", "module.1."])
def test_cohen(tmp_path, net, prefix):
    state = prefixed(net.state_dict(), prefix)
    torch.save(
        {
            "epoch": 90,
            "arch": "cifar_resnet20",
            "state_dict": state,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        },
        tmp_path / "checkpoint.pth.tar",
    )
    model = load_checkpoint(tmp_path / "checkpoint.pth.tar", normalizer="cifar10")
    assert not model.training
    torch.testing.assert_close(logits(model), logits(normalized(net, "cifar10")), rtol=0, atol=0)
    with pytest.raises(ValueError, match="does not name its normalizer: give normalizer, one of none, cifar10"):
        load_checkpoint(tmp_path / "checkpoint.pth.tar")


def test_smoothadv_subtracts_means_alone(tmp_path, net):
    content = {"epoch": 90, "arch": "cifar_resnet20", "state_dict": prefixed(net.state_dict(), "1."), "optimizer": {}}
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    model = load_checkpoint(tmp_path / "checkpoint.pth.tar", normalizer="cifar10-centered")
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(-1, 1, 1)
    torch.testing.assert_close(logits(model), logits(net, IMAGES - mean), rtol=0, atol=0)


@pytest.mark.parametrize("normalizer", ["none", "cifar10"])
def test_consistency_smoothmix_and_catrs(tmp_path, net, normalizer):
    """Behind `torch.nn.Identity` on MNIST, else a normaliser whose moments are attributes: no tensor is left of it."""
    content = {"epoch": 150, "arch": "cifar_resnet20", "state_dict": prefixed(net.state_dict(), "1."), "optimizer": {}}
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    model = load_checkpoint(tmp_path / "checkpoint.pth.tar", normalizer=normalizer)
    torch.testing.assert_close(logits(model), logits(normalized(net, normalizer)), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_macer(tmp_path, net, prefix):
    torch.save({"net": prefixed(net.state_dict(), prefix), "epoch": 440}, tmp_path / "440.pth")
    model = load_checkpoint(tmp_path / "440.pth", arch="cifar_resnet20")
    assert torch.equal(logits(model), logits(net))
    with pytest.raises(ValueError, match=r"440\.pth does not name its arch: give arch, one of lenet, "):
        load_checkpoint(tmp_path / "440.pth")


def test_state_dicts_alone_and_safetensors(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "bare.pt")
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    for name in ("bare.pt", "net.safetensors"):
        assert torch.equal(logits(load_checkpoint(tmp_path / name, arch="cifar_resnet20")), logits(net))


def test_ours_say_everything(tmp_path, net):
    save_checkpoint(tmp_path / "ours.pt", net, arch="cifar_resnet20", normalizer="cifar10", epoch=3)
    assert torch.equal(logits(load_checkpoint(tmp_path / "ours.pt")), logits(normalized(net, "cifar10")))
    assert [file.name for file in tmp_path.iterdir()] == ["ours.pt"]
    assert torch.load(tmp_path / "ours.pt", weights_only=True)["epoch"] == 3
    with pytest.raises(ValueError, match=r"normalizer = 'none', but .*ours\.pt is for 'cifar10': leave normalizer out"):
        load_checkpoint(tmp_path / "ours.pt", normalizer="none")
    with pytest.raises(ValueError, match=r"arch = 'lenet', but .*ours\.pt is for 'cifar_resnet20'"):
        load_checkpoint(tmp_path / "ours.pt", arch="lenet")


class Wrapping(torch.nn.Module):
    """Names of its own that look like those of a normaliser and of DataParallel."""

    def __init__(self, num_classes):
        super().__init__()
        self.module = torch.nn.Linear(4, num_classes)


def sequential(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, num_classes))


@pytest.mark.parametrize("factory", [sequential, Wrapping])
def test_ours_keep_the_names_of_a_users_own_layers(tmp_path, monkeypatch, factory):
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(make=factory))
    net = factory(3)
    save_checkpoint(tmp_path / "mine.pt", net, arch="mine:make", num_classes=3)
    loaded = load_checkpoint(tmp_path / "mine.pt", arch="mine:make")
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in net.state_dict().items()
    }
    with pytest.raises(ValueError, match=r"give arch .mine:make. if you trust that module"):
        load_checkpoint(tmp_path / "mine.pt")


def test_a_failed_save_leaves_the_old_file(tmp_path, net):
    path = tmp_path / "ours.pt"
    save_checkpoint(path, net, arch="cifar_resnet20")
    before = path.read_bytes()
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint(path, net, arch="cifar_resnet20", extra=(n for n in range(3)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Malice:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def test_nothing_is_unpickled(tmp_path, net):
    marker = tmp_path / "executed"
    torch.save({"arch": "lenet", "state_dict": net.state_dict(), "x": Malice(marker)}, tmp_path / "bad.pt")
    with pytest.raises(
        ValueError, match=r"bad\.pt holds more than tensors and plain values \(.+\), which is"
    ) as caught:
        load_checkpoint(tmp_path / "bad.pt")
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files_are_one_line(tmp_path, net, suffix, share):
    path = tmp_path / f"net.{suffix}"
    if suffix == "pt":
        save_checkpoint(path, net, arch="cifar_resnet20")
    else:
        save_file(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"net\.{suffix} is damaged") as caught:
        load_checkpoint(path, arch="cifar_resnet20")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file; name a checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError, match="is a folder: name a checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(IsADirectoryError, match=r"is a folder: name .*checkpoint\.pt"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (torch.zeros(3), {}, "holds a Tensor: expected a state_dict"),
        ({"epoch": 3}, {}, "holds no weights"),
        ({}, {}, "holds no weights"),
        ({"state_dict": {"a": 1}}, {}, "holds no weights"),
        (
            {"net": {"w": torch.zeros(3, 3)}},
            {"arch": "lenet"},
            "is no lenet: no conv1.weight, .* more; name",
        ),
        ({"arch": "vgg", "state_dict": {"1.fc.bias": torch.zeros(3)}}, {"normalizer": "none"}, "arch = 'vgg': choose"),
        ({"net": {"fc.bias": torch.zeros(3)}}, {"arch": "lenet"}, "is no lenet: no conv1.weight, .* and 6 more"),
    ],
)
def test_other_contents_are_named(tmp_path, content, options, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "other.pt", **options)


def test_wrong_shapes_and_broken_numbers_are_named(tmp_path):
    lenet = build("lenet", 10)
    state = lenet.state_dict()
    save_checkpoint(tmp_path / "nan.pt", lenet, arch="lenet")
    torch.save({"net": state | {"fc1.weight": torch.zeros(500, 801)}}, tmp_path / "shape.pt")
    torch.save({"net": {"extra": torch.zeros(1)} | state}, tmp_path / "extra.pt")
    torch.save({"net": state | {"conv2.bias": torch.full((50,), float("nan"))}}, tmp_path / "nan.pt")
    for name, message in (
        ("shape.pt", r"is no lenet: fc1.weight of shape \(500, 801\) instead of \(500, 800\); name another arch"),
        ("extra.pt", r"is no lenet: unknown extra;"),
        ("nan.pt", r"nan.pt: conv2.bias holds NaN or infinity; training diverged"),
    ):
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path / name, arch="lenet")


def test_a_loaded_model_can_be_trained_further(tmp_path, net):
    save_checkpoint(tmp_path / "ours.pt", net, arch="cifar_resnet20")
    model = load_checkpoint(tmp_path / "ours.pt")
    assert isinstance(model, nn.Module)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_safetensors_keep_names_and_weights_and_are_the_same_bytes_again(tmp_path):
    net = build("lenet", 7, seed=3)
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for file in files:
        save_checkpoint(file, net, arch="lenet")
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded = load_checkpoint(files[0])
    assert SmoothedClassifier(loaded, 7).identity == SmoothedClassifier(build("lenet", 7, seed=3).eval(), 7).identity
    for name, value in load_file(files[0]).items():
        torch.testing.assert_close(value, net.state_dict()[name], rtol=0, atol=0)


def test_a_normaliser_and_a_factory_are_named_by_safetensors_as_by_others(tmp_path):
    file = tmp_path / "net.safetensors"
    save_checkpoint(file, build("cifar_resnet20", 5, seed=1), arch="cifar_resnet20", normalizer="cifar10")
    assert isinstance(load_checkpoint(file)[0], Normalize)
    with pytest.raises(ValueError, match="normalizer = 'none', but"):
        load_checkpoint(file, normalizer="none")
    save_checkpoint(file, nn.Linear(2, 3), arch="os:system", num_classes=3)
    with pytest.raises(ValueError, match="give arch 'os:system' if you trust that module"):
        load_checkpoint(file)


def test_what_safetensors_cannot_hold_is_refused_and_the_old_file_stays(tmp_path):
    file = tmp_path / "net.safetensors"
    save_checkpoint(file, build("lenet", 7), arch="lenet")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="holds weights and num_classes alone"):
        save_checkpoint(file, build("lenet", 7), arch="lenet", epochs=[1])
    assert file.read_bytes() == before


@pytest.mark.parametrize("about", ["[", "[]", '{"arch": ["lenet"]}', '{"arch": "' + "x" * 5000 + '"}', "NaN"])
def test_metadata_that_are_not_ours_are_refused_in_one_line(tmp_path, about):
    file = tmp_path / "net.safetensors"
    save_file(build("lenet", 7).state_dict(), file, metadata={"srs-certify": about})
    with pytest.raises(ValueError, match=r"net\.safetensors is damaged") as caught:
        load_checkpoint(file, arch="lenet")
    assert "\n" not in str(caught.value)
