"""Files with one bit flipped."""


def flipped(content, bit):
    """The same bytes but for one bit."""
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def bits(content, *, every=None, count=None):
    """The bits to flip that lie evenly: every so many-th of them, or about so many."""
    return range(0, 8 * len(content), every or 8 * len(content) // count)
