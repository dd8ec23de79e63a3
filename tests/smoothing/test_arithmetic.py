"""float32 is IEEE float32 while a model runs, whatever a program has set, and that is put back."""

import threading

import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier
from smoothing.arithmetic import arithmetic, check_precision

SHAPE = (1, 4, 4)
NEW = hasattr(torch.backends, "fp32_precision")  # since PyTorch 2.9


@pytest.fixture
def images():
    return torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(1))


def holders():
    """What holds PyTorch's settings since 2.9, the general ones before those that they are passed on to."""
    backends = torch.backends
    general = (backends, backends.cudnn, backends.mkldnn)
    inner = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return (*general, *inner, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn) if NEW else ()


def old_setting(read):
    """An old setting, or None where PyTorch refuses to tell it, since new ones overrule it."""
    try:
        return read()
    except RuntimeError:
        return None


def settings():
    """All that PyTorch is set to."""
    old = (torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32)
    return [*map(old_setting, old), *(holder.fp32_precision for holder in holders())]


@pytest.fixture(autouse=True)
def untouched():
    """Undo what a test sets."""
    product, convolution, *new = settings()
    yield
    torch.set_float32_matmul_precision(product)  # the old ones first: they change the new ones
    torch.backends.cudnn.allow_tf32 = convolution
    for holder, precision in zip(holders(), new, strict=True):
        holder.fp32_precision = precision


class Spy(nn.Module):
    """Looks at PyTorch's settings as it runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        if NEW:
            found = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
            found += (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn)
            self.seen.append(tuple(holder.fp32_precision for holder in found))
        return images.flatten(1)[:, :5]


def own_settings():
    yield lambda: None  # PyTorch's defaults allow TF32 in convolutions
    yield lambda: torch.set_float32_matmul_precision("medium")
    yield lambda: setattr(torch.backends.cudnn, "allow_tf32", True)
    if NEW:
        yield lambda: setattr(torch.backends, "fp32_precision", "tf32")
        yield lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16")
        yield lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")


@pytest.mark.parametrize("set_own", list(own_settings()))
@pytest.mark.parametrize(("precision", "threads"), [("float32", 1), ("float32", 3), ("bfloat16", 1)])
def test_votes_are_counted_in_ieee_float32_and_own_settings_come_back(images, set_own, precision, threads):
    set_own()
    before = settings()
    spy = Spy()
    smoothed = SmoothedClassifier(spy, 5, threads=threads, precision=precision)
    smoothed.certify(images, 0.25, n0=50, n=300)
    smoothed.base_predict(images, [0.25])
    smoothed.check_logits(SHAPE)
    assert set(spy.seen) == {("highest", False), ("ieee",) * 6} - (set() if NEW else {("ieee",) * 6})
    assert settings() == before
    assert smoothed.identity.precision == precision


def test_settings_come_back_when_a_model_fails(images):
    before = settings()
    with pytest.raises(ValueError, match="refused a batch"):
        SmoothedClassifier(nn.Linear(3, 5), 5).predict(images, 0.25, n=10)
    assert settings() == before


def test_tf32_is_asked_for_by_name_and_only_where_there_is_some():
    before = settings()
    with arithmetic("tf32"):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
        if NEW:
            assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert settings() == before
    check_precision("tf32", torch.device("cuda:1"))
    with pytest.raises(ValueError, match=r"precision = 'tf32': only CUDA devices compute in it, .*take 'float32'"):
        SmoothedClassifier(Spy(), 5, precision="tf32")


def test_a_model_that_changes_the_arithmetic_as_it_runs_is_refused(images):
    class Meddles(Spy):
        def forward(self, batch):
            torch.set_float32_matmul_precision("medium")
            return super().forward(batch)

    before = settings()
    with pytest.raises(ValueError, match="precision was changed while the model ran"):
        SmoothedClassifier(Meddles(), 5).predict(images, 0.25, n=10)
    assert settings() == before


def test_threads_of_one_precision_share_it_and_those_of_another_wait():
    before, inside, order = settings(), threading.Barrier(2), []

    def first():
        with arithmetic("float32"):
            inside.wait()
            order.append("float32")

    def other():
        with arithmetic("tf32"):
            order.append("tf32")

    with arithmetic("float32"):
        threads = [threading.Thread(target=target) for target in (first, other)]
        for thread in threads:
            thread.start()
        inside.wait()
        threads[0].join()
        assert order == ["float32"]
        assert torch.get_float32_matmul_precision() == "highest"
    threads[1].join()
    assert order == ["float32", "tf32"]
    assert settings() == before
