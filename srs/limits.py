"""What flags may be, known before PyTorch is imported."""

#: Smallest failure probability for which `smoothing` computes bounds; known here before PyTorch is imported.
SMALLEST_ALPHA = 1e-100


def check_alpha(alpha: float) -> None:
    """Raise `ValueError` for an --alpha that no bound can be computed for."""
    if not 0 < alpha < 1:
        raise ValueError(f"--alpha {alpha}: must lie strictly between 0 and 1, such as 0.001")
    if alpha < SMALLEST_ALPHA:
        raise ValueError(f"--alpha {alpha}: must be at least {SMALLEST_ALPHA:g}; bounds are not computed below")
