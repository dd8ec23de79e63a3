"""A state dict is read behind any prefix, and only where every tensor of it is accounted for."""

import sys
import types
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from training import NORMALIZERS, build, load_checkpoint, normalized, save_checkpoint

IMAGES = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
MEAN, SD = (torch.tensor(part) for part in NORMALIZERS["cifar10"])


@pytest.fixture(scope="module")
def net():
    """Not as it was made: batch normalisation has seen images."""
    made = build("cifar_resnet20", 7, seed=4).train()
    with torch.no_grad():
        made(IMAGES)
    return made.eval()


def load(folder, content, *, file="net.pt", arch="cifar_resnet20", **options):
    torch.save(content, folder / file)
    return load_checkpoint(folder / file, arch=arch, **options)


def logits(model):
    with torch.inference_mode():
        return model(IMAGES)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def assert_same(model, wanted):
    torch.testing.assert_close(logits(model), logits(wanted), rtol=0, atol=0)


@pytest.mark.parametrize("entry", [None, "state_dict", "net", "model", "model_state_dict", "any other"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_change_nothing(tmp_path, net, prefix, entry):
    state = prefixed(net.state_dict(), prefix)
    assert_same(load(tmp_path, state if entry is None else {entry: state, "epoch": 3, "optimizer": {"state": {}}}), net)


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "encoder.", "1.", "model.module.net._orig_mod."])
def test_a_part_of_something_else_needs_its_normaliser_named(tmp_path, net, prefix):
    content = {"state_dict": prefixed(net.state_dict(), prefix), "pytorch-lightning_version": "2.4.0"}
    assert_same(load(tmp_path, content, normalizer="none"), net)
    assert_same(load(tmp_path, content, normalizer="cifar10"), normalized(net, "cifar10"))
    with pytest.raises(ValueError, match="does not name its normalizer: give normalizer, one of none, cifar10"):
        load(tmp_path, content)


def test_a_wrapper_around_a_part(tmp_path, net):
    state = {key.replace("layer1.", "layer1.module."): value for key, value in net.state_dict().items()}
    assert_same(load(tmp_path, state), net)


def test_a_network_alone_takes_the_normaliser_that_is_named(tmp_path, net):
    assert_same(load(tmp_path, net.state_dict()), net)
    assert_same(load(tmp_path, net.state_dict(), normalizer="cifar10"), normalized(net, "cifar10"))
    torch.save(net.state_dict() | {"epoch": 3}, tmp_path / "net.pt")
    assert_same(load_checkpoint(tmp_path / "net.pt", arch="cifar_resnet20"), net)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_numbers_of_a_normaliser_beside_the_weights_raise_the_question(tmp_path, net, name):
    with pytest.raises(ValueError, match="does not name its normalizer"):
        load(tmp_path, {"state_dict": net.state_dict(), name: [0.5, 0.5, 0.5]})


@pytest.mark.parametrize("normalizer", [None, "cifar10"])
@pytest.mark.parametrize(
    ("mean", "sd", "prefix", "shape"),
    [
        ("0.mean", "0.std", "1.", (3,)),
        ("0.mean", "0.sd", "1.", (3, 1, 1)),
        ("0.means", "0.sds", "1.module.", (1, 3, 1, 1)),
        ("normalize.mean", "normalize.std", "model.", (3,)),
        ("module.normalize.mean", "module.normalize.std", "module.net.", (3,)),
        ("mean", "std", "", (1, 3, 1, 1)),
        ("mean", "std", "model.", (3,)),
        ("pixel_mean", "pixel_std", "backbone.", (3, 1, 1)),
    ],
)
def test_a_normaliser_in_the_file_is_used(tmp_path, net, mean, sd, prefix, shape, normalizer):
    own = {mean: (MEAN + 4e-4).reshape(shape), sd: (SD - 4e-4).reshape(shape)}
    model = load(tmp_path, {"state_dict": own | prefixed(net.state_dict(), prefix)}, normalizer=normalizer)
    with torch.inference_mode():
        wanted = net((IMAGES - own[mean].reshape(3, 1, 1)) / own[sd].reshape(3, 1, 1))
    torch.testing.assert_close(logits(model), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("normalizer", ["none", "imagenet", "cifar10"])
def test_a_normaliser_in_the_file_is_never_replaced_by_another(tmp_path, net, normalizer):
    state = {"0.mean": torch.full((3,), 0.5), "0.std": torch.full((3,), 0.25)} | prefixed(net.state_dict(), "1.")
    message = "has mean 0.5, 0.5, 0.5 and standard deviation 0.25, 0.25, 0.25: leave normalizer out to use these"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, {"state_dict": state}, normalizer=normalizer)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, {"state_dict": state, "normalizer": normalizer})


@pytest.mark.parametrize(
    ("own", "prefix"),
    [
        ({"0.mean": MEAN}, "1."),
        ({"0.mean": MEAN, "2.std": SD}, "1."),
        ({"2.mean": MEAN, "2.std": SD}, "1."),
        ({"1.mean": MEAN, "1.std": SD}, "0."),
        ({"0.mean": MEAN, "0.var": SD**2}, "1."),
        ({"0.mean": torch.zeros(7), "0.std": torch.ones(7)}, "1."),
        ({"layer1.norm.mean": MEAN, "layer1.norm.std": SD}, ""),
        ({"0.mean": MEAN, "0.std": SD, "0.gamma": SD}, "1."),
        ({"0.mean": MEAN, "0.std": SD, "normalize.mean": MEAN, "normalize.std": SD}, "1."),
        ({"criterion.weight": torch.ones(7)}, "model."),
        ({"head.weight": torch.ones(7, 64)}, ""),
        ({"n_averaged": torch.ones(3)}, "module."),
    ],
)
def test_what_is_left_over_is_refused_by_name(tmp_path, net, own, prefix):
    with pytest.raises(ValueError, match="all else fits, but what is left over may have been a part") as caught:
        load(tmp_path, {"state_dict": own | prefixed(net.state_dict(), prefix)}, normalizer="cifar10")
    assert any(f"unknown {name}" in str(caught.value) for name in own)


def test_a_normaliser_for_pixels_up_to_255_is_refused(tmp_path, net):
    state = {"0.mean": MEAN * 255, "0.std": SD * 255} | prefixed(net.state_dict(), "1.")
    with pytest.raises(ValueError, match=r"mean 125\.3, 123, 113\.9 and .* not for pixels in \[0, 1\]: divide"):
        load(tmp_path, {"state_dict": state})


def test_counters_may_be_there_or_not(tmp_path, net):
    state = net.state_dict()
    without = {key: value for key, value in state.items() if "num_batches" not in key}
    averaged = AveragedModel(net).state_dict()
    old = {key: value.float() if "num_batches" in key else value for key, value in state.items()}
    extra = state | {"conv1.num_batches_tracked": torch.tensor(3)}
    for content in (without, averaged, old, extra):
        assert_same(load(tmp_path, {"state_dict": content}), net)
    averaged["n_averaged"].fill_(8)
    assert_same(load(tmp_path, {"state_dict": averaged}), net)


def test_two_sets_of_weights_must_be_one_function(tmp_path, net):
    other = {key: value + 1 if key == "fc.bias" else value for key, value in net.state_dict().items()}
    assert_same(load(tmp_path, {"state_dict": net.state_dict(), "ema": dict(net.state_dict())}), net)
    for second in (other, prefixed(net.state_dict(), "1.")):
        with pytest.raises(
            ValueError, match=r"cifar_resnet20 more than once, .*: save the state_dict that you mean alone"
        ):
            load(tmp_path, {"state_dict": net.state_dict(), "ema": second}, normalizer="none")
    both = prefixed(net.state_dict(), "model.") | prefixed(other, "ema.")
    with pytest.raises(ValueError, match=r"unknown (model|ema)\.conv1\.weight"):
        load(tmp_path, {"state_dict": both}, normalizer="none")


def test_types_that_hold_the_same_numbers_are_taken(tmp_path, net):
    state = net.state_dict()
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    doubles = state | {key: value.double() for key, value in floats.items()}
    parameters = state | {key: nn.Parameter(value) for key, value in floats.items()}
    strided = state | {"fc.weight": torch.cat([state["fc.weight"]] * 2, dim=1)[:, ::1][:, :64].T.contiguous().T}
    for content in (doubles, parameters, strided, OrderedDict(state)):
        assert_same(load(tmp_path, {"state_dict": content}), net)
    halves = state | {key: value.half() for key, value in floats.items()}
    assert torch.equal(load(tmp_path, {"state_dict": halves}).fc.weight, halves["fc.weight"].float())


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:torch.quantize_per_tensor")  # of making such tensors
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: None, "fc.weight is of type NoneType, not a tensor; save the state_dict"),
        (lambda w: {"deeper": w}, "fc.weight is of type dict, not a tensor"),
        (lambda w: w.to_sparse(), r"fc.weight is sparse or nested; save what its to_dense\(\) returns"),
        (lambda w: w.to_sparse_csr(), "fc.weight is sparse or nested"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "fc.weight is quantised; save the model from"),
        (lambda w: w.to("meta"), r"fc.weight has a shape but no numbers \(meta device\)"),
        (lambda w: w.to(torch.complex64), "fc.weight is complex64 instead of float32; save it as float32"),
        (lambda w: w.to(torch.int8), "fc.weight is int8 instead of float32"),
        (lambda w: w.to(torch.float8_e4m3fn), "fc.weight is float8_e4m3fn instead of float32"),
        (lambda w: w.T, r"fc.weight of shape \(64, 7\) instead of \(7, 64\); name another arch"),
        (lambda w: w * 1e39, "fc.weight holds NaN or infinity"),
        (lambda w: w.double() * 1e300, "fc.weight holds NaN or infinity"),
        (lambda w: torch.zeros(1).expand(10**12), r"of shape \(1000000000000,\) instead of"),
    ],
)
def test_other_kinds_of_values_are_one_line_each(tmp_path, net, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, {"state_dict": net.state_dict() | {"fc.weight": change(net.fc.weight.detach())}})
    assert "\n" not in str(caught.value)


def test_weights_in_another_form_name_what_makes_them_plain(tmp_path):
    pruned, spectral = build("lenet", 10), build("lenet", 10)
    prune.l1_unstructured(pruned.fc1, "weight", amount=0.5)
    parametrizations.weight_norm(spectral.fc1)
    with pytest.raises(ValueError, match=r"its weights are pruned: make that final by torch\.nn\.utils\.prune\.remove"):
        load(tmp_path, pruned.state_dict(), arch="lenet")
    with pytest.raises(ValueError, match=r"parametrised: save it after torch\.nn\.utils\.parametrize\.remove_param"):
        load(tmp_path, spectral.state_dict(), arch="lenet")
    prune.remove(pruned.fc1, "weight")
    assert torch.equal(load(tmp_path, pruned.state_dict(), arch="lenet").fc1.weight, pruned.fc1.weight)


class Named(nn.Module):
    """A linear layer under any name, with a buffer of its own."""

    def __init__(self, name, num_classes):
        super().__init__()
        self.add_module(name, nn.Linear(4, num_classes))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, images):
        return next(self.children())(images.flatten(1)) + self.mask[0]


NAMES = ["1", "module", "model", "net", "_orig_mod", "layers", "normalize"]


@pytest.fixture
def make(monkeypatch):
    """Factories `mine:NAME`, whose layer has that name; naming any other module is an error."""
    factories = {name: lambda count, name=name: Named(name, count) for name in NAMES}
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(**factories))
    return factories


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_layers_that_are_called_as_wrappers_are(tmp_path, make, name, file, prefix):
    from safetensors.torch import save_file

    net = make[name](3)
    state = {prefix + key: value.clone() for key, value in net.state_dict().items()}
    save_file(state, tmp_path / file) if file.endswith("safetensors") else torch.save(state, tmp_path / file)
    model = load_checkpoint(tmp_path / file, arch=f"mine:{name}", num_classes=3)
    assert {key: value.tolist() for key, value in model.state_dict().items()} == {
        key: value.tolist() for key, value in net.state_dict().items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_comes_back_whatever_layers_are_called(tmp_path, make, name):
    net = make[name](3)
    save_checkpoint(tmp_path / "ours.pt", net, arch=f"mine:{name}", num_classes=3, normalizer="cifar10")
    normalizer, model = load_checkpoint(tmp_path / "ours.pt", arch=f"mine:{name}")
    assert torch.equal(normalizer.mean.flatten(), MEAN)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_factory_and_the_number_of_its_classes(tmp_path, make):
    state = make["net"](3).state_dict()
    with pytest.raises(ValueError, match=r"does not say how many classes mine:net is for: give num_classes, or save"):
        load(tmp_path, state, arch="mine:net")
    with pytest.raises(ValueError, match=r"net\.pt is for 3 classes, not 4: they do not belong together"):
        load(tmp_path, {"state_dict": state, "num_classes": 3}, arch="mine:net", num_classes=4)
    with pytest.raises(ValueError, match=r"net\.weight of shape \(3, 4\) instead of \(4, 4\)"):
        load(tmp_path, state, arch="mine:net", num_classes=4)


def test_names_that_share_memory_must_agree(tmp_path, monkeypatch):
    def tied(count):
        net = nn.Sequential(nn.Linear(count, count), nn.Linear(count, count))
        net[1].weight = net[0].weight
        return net

    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(tied=tied))
    state = tied(3).state_dict()
    load(tmp_path, state, arch="mine:tied", num_classes=3)
    with pytest.raises(ValueError, match=r"other numbers in 0\.weight after loading: two of its names share memory"):
        load(tmp_path, state | {"0.weight": torch.zeros(3, 3)}, arch="mine:tied", num_classes=3)


@pytest.mark.parametrize("stored", ["os:system", "mine:net", "antigravity:x", ":", "a:b:c"])
@pytest.mark.parametrize("given", [None, "lenet", "mine:other"])
def test_a_file_alone_imports_nothing(tmp_path, monkeypatch, stored, given):
    def forbidden(name):
        raise AssertionError(name)

    monkeypatch.setattr("training.factories.importlib.import_module", forbidden)
    content = {"arch": stored, "model": stored, "config": {"model": stored}, "num_classes": 3}
    with pytest.raises(ValueError, match=r"is for a model of your own: give arch .* if you trust that module"):
        load(tmp_path, content | {"state_dict": {"w": torch.zeros(3)}}, arch=given)


def test_only_the_entry_arch_names_an_architecture(tmp_path, net, monkeypatch):
    def forbidden(name):
        raise AssertionError(name)

    monkeypatch.setattr("training.factories.importlib.import_module", forbidden)
    content = {"state_dict": net.state_dict(), "config": {"model": "os:system"}, "factory": "os:system"}
    assert_same(load(tmp_path, content | {"num_classes": 7}), net)


def test_names_of_other_programs_bind_nobody(tmp_path, net, make):
    for stored in ("resnet20", ["cifar_resnet20"], {"depth": 20}, 20, None):
        assert_same(load(tmp_path, {"arch": stored, "state_dict": net.state_dict()}), net)
    named = make["net"](3)
    load(tmp_path, {"arch": "lenet", "net": named.state_dict(), "num_classes": 3}, arch="mine:net")
    with pytest.raises(ValueError, match=r"has arch = 'resnet20': choose lenet, .*, or package.module:factory"):
        load(tmp_path, {"arch": "resnet20", "state_dict": net.state_dict()}, arch=None)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("num_classes", "7", "num_classes = '7': must be an integer from 1 to 100,000"),
        ("num_classes", -1, "num_classes = -1: must be"),
        ("num_classes", 0, "num_classes = 0: must be"),
        ("num_classes", 7.0, r"num_classes = 7\.0: must be"),
        ("num_classes", True, "num_classes = True: must be"),
        ("num_classes", [7], "num_classes = a list: must be"),
        ("num_classes", torch.ones(3), "num_classes = a Tensor: must be"),
        ("num_classes", torch.tensor(7.0), "num_classes = a Tensor: must be"),
        ("num_classes", 10**30, "num_classes = an integer of 100 bits: must be"),
        ("num_classes", 10**6, "num_classes = 1000000: must be"),
        ("num_classes", 8, "is for 7 classes by its last layer, not 8: correct num_classes"),
        ("normalizer", "svhn", "normalizer = 'svhn': choose none, cifar10, imagenet"),
        ("normalizer", ["none"], "normalizer = a list: choose none"),
        ("normalizer", torch.ones(3), "normalizer = a Tensor: choose none"),
        ("normalizer", "x" * 10**6, r"normalizer = 'xxx.{0,40}': choose none"),
        ("normalizer", "\x1b[2J\n", r"normalizer = '\\x1b\[2J\\n': choose none"),
    ],
)
def test_entries_of_odd_types_are_one_line(tmp_path, net, entry, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, {"state_dict": net.state_dict(), entry: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_number_of_classes_in_a_tensor(tmp_path, net):
    assert_same(load(tmp_path, {"state_dict": net.state_dict(), "num_classes": torch.tensor(7)}), net)


def test_names_that_a_terminal_would_obey_are_shown_harmless(tmp_path, net):
    with pytest.raises(ValueError, match="is no cifar_resnet20") as caught:
        load(tmp_path, {"state_dict": net.state_dict() | {"\x1b[2J\nfake: all is well": torch.ones(3)}})
    assert str(caught.value).isprintable()


def test_a_part_of_a_checkpoint_is_named_as_such(tmp_path):
    file = tmp_path / "model-00001-of-00002.pt"
    weights = build("digits_cnn", 10).state_dict()
    torch.save(dict(list(weights.items())[:3]), file)
    with pytest.raises(ValueError, match=r"is one of 2 parts of a checkpoint: put them into one file"):
        load_checkpoint(file, arch="digits_cnn", normalizer="none")
    whole = tmp_path / "model-00001-of-00001.pt"
    torch.save(weights, whole)
    load_checkpoint(whole, arch="digits_cnn", normalizer="none")
