"""A sorting network: which places to compare and exchange, the same whatever the numbers."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=64)
def list_exchanges(K: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of places i < j that sort any K numbers when each pair is put in order, one after the other.

    Source: merge exchange, Batcher 1968 (Knuth 1998, algorithm 5.2.2M).

    >>> list_exchanges(3)
    ((0, 1), (0, 2), (1, 2))
    """
    pairs = []
    width = 1
    while width < K:
        apart = width
        while apart:
            for start in range(apart % width, K - apart, 2 * apart):
                for i in range(start, min(start + apart, K - apart)):
                    if i // (2 * width) == (i + apart) // (2 * width):
                        pairs.append((i, i + apart))
            apart //= 2
        width *= 2
    return tuple(pairs)
