"""Where models run."""

import torch


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device on which a tensor can be made now; raises `ValueError` where none can."""
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device = {str(device)!r} cannot be used ({reason}); try 'cpu'") from error
    return chosen
