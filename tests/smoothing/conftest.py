"""What several tests of votes need."""

import pytest
import torch

from training import build


@pytest.fixture(scope="session")
def close_calls():
    """A network of real kernels whose classes are close calls, so that the last bits of its logits matter."""
    model = build("lenet", 10, seed=3)
    noisy = torch.randn((500, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.fc2.bias -= model(0.5 + 0.7 * noisy).mean(dim=0)
    return model
