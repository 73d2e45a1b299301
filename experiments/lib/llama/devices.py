"""What accelerators can do at best."""

__all__ = ["peak_flops_per_second"]

PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""bfloat16 operations per second of one device, by the beginning of its kind's name, from the makers' data sheets:
dense matrices, no sparsity."""


def peak_flops_per_second(device_kind: str) -> float | None:
    """What one device of a kind can do at best in bfloat16; None where that is not known, as of processors.

    Example:
        >>> peak_flops_per_second("NVIDIA H100 80GB HBM3")
        989000000000000.0
    """
    # The longest name wins: a "TPU v5 lite" is no "TPU v5".
    matching = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(matching, key=len)] if matching else None
