"""Checks of layer options that raise a ValueError with the option's limits."""

from collections.abc import Sequence


def above_zero(**options: float) -> None:
    """Checks that every option is above 0.

    Example:
        >>> above_zero(frame_step=0)
        Traceback (most recent call last):
        ValueError: frame_step must be above 0. Received: frame_step=0
    """
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0. Received: {name}={value}")


def at_most(highest: float, **options: float) -> None:
    """Checks that every option is at most `highest`.

    A larger value would need more memory than there is, and fail only after minutes.

    Example:
        >>> at_most(1_000_000, fft_length=2_000_000)
        Traceback (most recent call last):
        ValueError: fft_length must be at most 1000000. Received: fft_length=2000000
    """
    for name, value in options.items():
        if value > highest:
            raise ValueError(f"{name} must be at most {highest}. Received: {name}={value}")


def frequency_range(low_hz: float, high_hz: float | None, sample_rate: int) -> None:
    """Checks that 0 <= low_hz < high_hz <= sample_rate / 2, which None stands for.

    Example:
        >>> frequency_range(20.0, 16_000.0, sample_rate=16_000)
        Traceback (most recent call last):
        ValueError: high_hz must be above 0 and at most 8000.0, half of sample_rate=16000. Received: high_hz=16000.0
    """
    if high_hz is not None and not 0 < high_hz <= sample_rate / 2:
        raise ValueError(
            f"high_hz must be above 0 and at most {sample_rate / 2}, half of sample_rate={sample_rate}. "
            f"Received: high_hz={high_hz}"
        )
    top_hz = sample_rate / 2 if high_hz is None else high_hz
    if not 0 <= low_hz < top_hz:
        raise ValueError(f"low_hz must be from 0 to below high_hz={top_hz}. Received: low_hz={low_hz}")


def one_of(accepted: Sequence[object], **options: object) -> None:
    """Checks that every option is one of the accepted values.

    Example:
        >>> one_of(("zeros", "reflect"), padding="edge")
        Traceback (most recent call last):
        ValueError: padding must be 'zeros' or 'reflect'. Received: padding='edge'
    """
    for name, value in options.items():
        if value not in accepted:
            *first, last = map(repr, accepted)
            raise ValueError(f"{name} must be {', '.join(first)} or {last}. Received: {name}={value!r}")
