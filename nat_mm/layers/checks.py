"""Argument checks shared by layers and backbones."""

from nat_mm.ops import validation


def check_int(name: str, value: int, *, minimum: int) -> None:
    """Raises if ``value`` is not an int (bool excluded) of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f'{name} must be an int of at least {minimum}, got {value!r}')
    if value < minimum:
        raise ValueError(f'{name} must be at least {minimum}, got {value}')


def check_kernel_size(kernel_size: int) -> None:
    """Raises if ``kernel_size`` is not an odd int of at least 3."""
    check_int('kernel_size', kernel_size, minimum=3)
    validation.check_kernel_size(kernel_size)


def check_probability(name: str, value: float) -> None:
    """Raises if ``value`` is not a number in [0, 1)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f'{name} must be a number in [0, 1), got {value!r}')
    if not 0 <= value < 1:
        raise ValueError(f'{name} must be in [0, 1), got {value}')
