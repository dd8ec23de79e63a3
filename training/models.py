"""Base classifiers. Each takes images in [0, 1]; normalisation is a layer of the model."""

from collections.abc import Callable, Mapping
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from smoothing.forward import one_line
from training.factories import factory_of
from training.libraries.architectures import architecture
from training.libraries.names import kind_of, meant, nearest


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, per channel.

    Parameters
    ----------
    mean, sd : tuple of float
        One number per channel.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: tuple[float, ...], sd: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("sd", torch.tensor(sd).reshape(-1, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the normalised images."""
        return (images - self.mean) / self.sd


class DigitsCNN(nn.Module):
    """Two strided convolutions and a linear layer for 8x8 grey images; a million images a second on two CPU cores."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Normalize((0.305,), (0.376,)),  # of scikit-learn's digits
            nn.Conv2d(1, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, num_classes),
        )

    def forward(self, images: Float[Tensor, "b 1 8 8"]) -> Float[Tensor, "b classes"]:
        """Return logits."""
        logits: Tensor = self.layers(images)
        return logits


class LeNet(nn.Module):
    """The LeNet of the MNIST experiments: two 5x5 convolutions with pooling, and two linear layers."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, kernel_size=5)
        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, images: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b classes"]:
        """Return logits."""
        # the largest of the rectified is the rectified largest: pooling first leaves a quarter of the work
        x = functional.relu(_largest_of_four(self.conv1(images)))
        x = functional.relu(_largest_of_four(self.conv2(x)))
        logits: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return logits


def _largest_of_four(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Return max_pool2d(x, 2), for even h and w.

    Without a gradient to keep, maxima of pairs are the same numbers in a fifth of the time on a CPU.
    """
    if torch.is_grad_enabled():
        return functional.max_pool2d(x, 2)
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Return the block's output."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(nn.Module):
    """ResNet for 32x32 colour images: three stages of basic blocks, widths 16, 32 and 64 (He et al., 2016).

    Names of parameters are those of the published state dicts of certified models.

    Parameters
    ----------
    depth : int
        6 n + 2, with n blocks a stage: 20, 56, 110, ...
    num_classes : int, default=10
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth = {depth}: must be 6 n + 2 with n at least 1, such as 20, 56 or 110")
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Float[Tensor, "b 3 32 32"]) -> Float[Tensor, "b classes"]:
        """Return logits."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.avgpool(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def _resnet50(num_classes: int) -> nn.Module:
    from torchvision.models import resnet50  # a second to import

    model: nn.Module = resnet50(num_classes=num_classes)
    return model


#: Architectures by the names that checkpoints use, made from a number of classes. Of these only digits_cnn normalises.
ARCHITECTURES: Mapping[str, Callable[[int], nn.Module]] = {
    "lenet": LeNet,
    "cifar_resnet20": lambda num_classes: CifarResNet(20, num_classes),
    "cifar_resnet56": lambda num_classes: CifarResNet(56, num_classes),
    "cifar_resnet110": lambda num_classes: CifarResNet(110, num_classes),
    "cifar100_resnet110": lambda num_classes: CifarResNet(110, num_classes),  # as some published checkpoints say
    "resnet50": _resnet50,
    "digits_cnn": DigitsCNN,
}

#: Normalisers by name: mean and standard deviation of each channel; "none" leaves pixels as they are.
NORMALIZERS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "none": None,
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10-centered": ((0.4914, 0.4822, 0.4465), (1.0, 1.0, 1.0)),
    "imagenet-centered": ((0.485, 0.456, 0.406), (1.0, 1.0, 1.0)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "mnist": ((0.1307,), (0.3081,)),
}


def build(arch: str, num_classes: int, *, normalizer: str = "none", seed: int = 0) -> nn.Module:
    """Return a base classifier with initial weights that the seed decides; the global random state is left as it was.

    Parameters
    ----------
    arch : str
        One of `ARCHITECTURES`, or another that `network` takes.
    num_classes : int
    normalizer : str, default="none"
        One of `NORMALIZERS`; another than "none" is put before the network, as its first layer.
    seed : int, default=0

    Raises
    ------
    ValueError
        For a name that is not known; the message lists those that are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return normalized(network(arch, num_classes), normalizer)


def is_factory(arch: object) -> TypeGuard[str]:
    """Whether this is the name of a model that is none of `ARCHITECTURES`: `package.module:factory` or `KIND:NAME`.

    Building it runs code of the user's own, or of another library. No file may ask for that: the user names it.
    """
    return isinstance(arch, str) and ":" in arch


def network(arch: str, num_classes: int) -> nn.Module:
    """Return a network with initial weights from PyTorch's global random state, without a normaliser.

    Parameters
    ----------
    arch : str
        One of `ARCHITECTURES`; or `timm:NAME` or `torchvision:NAME`; or `package.module:factory`: the module is
        imported and the factory called with the number of classes.
    num_classes : int

    Raises
    ------
    ValueError
        For a name that is not known, a module that cannot be imported, or a factory that returns no module.
    """
    if not is_factory(arch):
        if arch not in ARCHITECTURES:
            remedy = meant(str(arch)) or nearest(str(arch), ARCHITECTURES)
            raise ValueError(f"arch = {arch!r}: choose {', '.join(ARCHITECTURES)}, or package.module:factory{remedy}")
        return ARCHITECTURES[arch](num_classes)
    if kind_of(arch) is not None:
        try:
            return architecture(arch, num_classes)
        except ValueError as error:
            raise ValueError(f"arch = {arch!r}: {str(error).removeprefix(f'{arch}: ')}") from error
    factory, name = factory_of(arch, f"arch = {arch!r}"), arch.partition(":")[2]
    with one_line(f"arch = {arch!r}: {name}({num_classes}) failed"):
        net = factory(num_classes)
    if not isinstance(net, nn.Module):
        raise ValueError(f"arch = {arch!r}: returned a {type(net).__name__}; a factory returns a torch.nn.Module")
    return net


def normalized(net: nn.Module, normalizer: str) -> nn.Module:
    """Return the network behind a normaliser, one of `NORMALIZERS`; "none" returns it as it is."""
    if normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer = {normalizer!r}: choose {', '.join(NORMALIZERS)}")
    moments = NORMALIZERS[normalizer]
    return net if moments is None else nn.Sequential(Normalize(*moments), net)
