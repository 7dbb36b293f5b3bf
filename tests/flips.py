"""Flipped bits for tests."""


def flipped(content, bit):
    """The bytes with one bit flipped."""
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def bits(content, *, every=None, count=None):
    """Evenly spaced indices of bits: every `every`-th bit, or about `count` bits."""
    return range(0, 8 * len(content), every or 8 * len(content) // count)
