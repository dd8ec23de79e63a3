import pytest
import torch

from training import ARCHITECTURES, CifarResNet, Normalize, build

SHAPES = {"lenet": (1, 28, 28), "digits_cnn": (1, 8, 8), "resnet50": (3, 64, 64)}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_lenet_has_the_layers_of_the_paper():
    sizes = {name: tuple(value.shape) for name, value in build("lenet", 10).state_dict().items()}
    assert sizes == {
        "conv1.weight": (20, 1, 5, 5),
        "conv1.bias": (20,),
        "conv2.weight": (50, 20, 5, 5),
        "conv2.bias": (50,),
        "fc1.weight": (500, 800),
        "fc1.bias": (500,),
        "fc2.weight": (10, 500),
        "fc2.bias": (10,),
    }


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_lenet_scores_alike_with_and_without_a_gradient(precision):
    model = build("lenet", 10).eval().to(memory_format=torch.channels_last)
    images = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        with_gradient = model(images)
        with torch.no_grad():
            without = model(images)
    assert with_gradient.dtype == precision
    torch.testing.assert_close(without, with_gradient.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_resnet_has_as_many_parameters_as_its_definition(depth):
    n = (depth - 2) // 6
    count = 3 * 16 * 9 + 2 * 16  # first convolution and its normalisation
    inputs = 16
    for width in (16, 32, 64):
        for _ in range(n):
            count += inputs * width * 9 + width * width * 9 + 4 * width
            count += inputs * width + 2 * width if inputs != width else 0
            inputs = width
    count += 64 * 10 + 10
    model = build(f"cifar_resnet{depth}", 10)
    assert parameters(model) == count
    if depth == 110:
        assert 1.72e6 < count < 1.74e6  # "1.7M" in the literature


def test_resnet_has_the_names_of_published_state_dicts():
    names = set(build("cifar_resnet20", 10).state_dict())
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer1.2.bn2.bias",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.running_mean",
        "layer3.0.downsample.1.num_batches_tracked",
        "fc.bias",
    } <= names
    assert not {name for name in names if name.startswith("layer1") and "downsample" in name}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_gives_logits_in_either_memory_format(arch):
    model = build(arch, 7).eval()
    images = torch.rand(2, *SHAPES.get(arch, (3, 32, 32)), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model(images)
        again = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert logits.shape == (2, 7)
    torch.testing.assert_close(again, logits, rtol=1e-3, atol=1e-4)


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    one, same, other = (build("lenet", 10, seed=seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_normaliser_comes_first():
    model = build("cifar_resnet20", 10, normalizer="cifar10")
    assert isinstance(model[0], Normalize)
    grey = torch.full((1, 3, 2, 2), 0.5)
    torch.testing.assert_close(model[0](grey)[0, 1], torch.full((2, 2), (0.5 - 0.4822) / 0.1994))


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="arch = 'vgg': choose lenet, cifar_resnet20, "):
        build("vgg", 10)
    with pytest.raises(ValueError, match="normalizer = 'svhn': choose none, cifar10, imagenet"):
        build("lenet", 10, normalizer="svhn")
    with pytest.raises(ValueError, match="depth = 21: must be 6 n"):
        CifarResNet(21)
