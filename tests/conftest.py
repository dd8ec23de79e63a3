"""Settings shared by all tests."""

import os
import signal
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; programs that tests start inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets its background jobs ignore interrupts, and so would the programs that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import numpy as np
import pytest
from jaxtyping import install_import_hook

import tests.checked  # noqa: F401  (for the hook)

# Every annotation of ours, array shapes included, is checked while testing.
install_import_hook(["regions", "smoothing", "training", "srs"], "tests.checked.check")

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="session")
def data_folder():
    """The folder with real data; tests that ask for it skip where SRS_DATA is unset."""
    folder = os.environ.get("SRS_DATA")
    if not folder:
        pytest.skip("real data needed: set SRS_DATA to the folder that holds MNIST/ and certify-logs/")
    return Path(folder)


@pytest.fixture
def rng():
    return np.random.default_rng(20210501)
