"""Where models run."""

import torch

from smoothing.forward import reason


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device on which a tensor can be made now; raises `ValueError` where none can."""
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device = {str(device)!r} cannot be used ({reason(error)}); try 'cpu'") from error
    return chosen
