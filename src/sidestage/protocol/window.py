"""How much a peer may send before it is granted more: a window that grows to what its reader takes.

A fixed window holds a fast reader far away to one window a round trip: 1 MiB in 20 ms is 50 MB/s. So a window becomes
HEADROOM times what its reader took in the shortest round trip that was seen, as TCP's receive buffers do (tcp_rcv_space_adjust
in net/ipv4/tcp_input.c). That a queue on the way makes round trips longer does not count: it would let the window grow for the
queue's sake. A slow reader's window stays as it was; one that became slow shrinks. All that windows have grown by is bounded.
"""

from __future__ import annotations

from typing import Callable

MAX_GROWN = 64 << 20  # bytes by which all windows of a link together may exceed their first size
GRANTS, FAR_GRANTS = 2, 4  # a window: each wakes up all on the way, but a far sender must not stand still meanwhile
FAR = 0.002  # seconds of round trip
HEADROOM = 4  # so that it is found in few round trips; with grants after a quarter, a third more than one brings would just do


class Pool:
    """What the windows of a link share."""

    __slots__ = ("clock", "first", "grants", "rtt", "spare")

    def __init__(self, first: int, clock: Callable[[], float], spare: int = MAX_GROWN) -> None:
        self.first = first  # the size that both sides begin with
        self.clock = clock
        self.spare = spare
        self.grants = GRANTS
        self.rtt = 0.0  # the shortest round trip seen, in seconds; 0: none yet, so nothing grows

    def heard(self, rtt: float) -> None:
        self.rtt = min(self.rtt or rtt, rtt)
        self.grants = FAR_GRANTS if self.rtt > FAR else GRANTS


class Window:
    """The receiver's side of one channel."""

    __slots__ = ("_owed", "_pool", "_since", "_taken", "size")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.size = pool.first
        self._owed = 0  # consumed and not yet granted back; below 0 while the window shrinks
        self._taken, self._since = 0, -1.0  # since when `_taken` is counted; below 0: nothing has come yet

    def consumed(self, n: int) -> int:
        """The reader took `n` bytes; how many more the peer may send now."""
        if self._since < 0:
            self._since = self._pool.clock()
        self._taken += n
        self._owed += n
        if self._owed * self._pool.grants < self.size:
            return 0
        self._fit()
        granted, self._owed = max(self._owed, 0), min(self._owed, 0)
        return granted

    def release(self) -> None:
        """The channel has ended."""
        self._resize(self._pool.first)

    def _fit(self) -> None:
        pool, now = self._pool, self._pool.clock()
        if not pool.rtt:
            return
        # What came in less than a round trip is what one brings, at least: a window that is taken at once is too small.
        elapsed = now - self._since
        wanted = int(HEADROOM * self._taken * pool.rtt / max(elapsed, pool.rtt))
        if wanted > self.size:
            self._resize(min(wanted, self.size + pool.spare))
        if elapsed >= pool.rtt:
            self._taken, self._since = 0, now
            if wanted * 4 < self.size:
                self._resize(max(self.size // 2, pool.first))

    def _resize(self, size: int) -> None:
        change = size - self.size
        self.size = size
        self._pool.spare -= change
        self._owed += change
