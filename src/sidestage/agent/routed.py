"""An intercepted connection of a port with filters: the router decides about each request, and this carries out its orders."""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, Dict, List, Optional

from sidestage.agent.legs import Leg, Nobody
from sidestage.agent.passage import CLIENT, LINGER, POD, Client, Place, Spliced
from sidestage.http.orders import (
    Close,
    Eof,
    Note,
    Open,
    Pause,
    Reset,
    Resume,
    Send,
    Splice,
    Timer,
)  # fmt: skip
from sidestage.http.router import Router
from sidestage.protocol.messages import Buffer


class Routed:
    """Carries out what a router orders."""

    def __init__(self, place: Place, client: Client, router: Router) -> None:
        self._place, self._client, self._router = place, client, router
        self._legs: Dict[int, Leg] = {CLIENT: client.leg}
        self._orders: Deque[Any] = deque()
        self._running = False
        self._timer: Any = None
        client.passage = client.leg.owner = self
        self._do(router.start())
        client.leg.start()

    def drain(self) -> None:
        if self._router.idle and not self._client.leg.eof_in:
            self._client.leg.eof_in = True  # no more is read
            self._client.leg.read(False)
            self._do(self._router.client_eof())

    # -- what happens --

    def on_data(self, leg: Leg, data: Buffer) -> None:
        number = leg.number
        data = bytes(data)
        self._do(self._router.client(data) if number == CLIENT else self._router.peer(number, data))

    def on_eof(self, leg: Leg) -> None:
        number = leg.number
        if number != CLIENT:
            self._client.leg.cut_out = leg.cut_in
        self._do(self._router.client_eof() if number == CLIENT else self._router.peer_eof(number))

    def on_reset(self, leg: Leg) -> None:
        number = leg.number
        self._legs.pop(number, None)
        self._do(self._router.client_reset() if number == CLIENT else self._router.peer_reset(number))

    def on_failed(self, leg: Leg) -> None:
        self._legs.pop(leg.number, None)
        self._do(self._router.peer_failed(leg.number))

    def on_open(self, leg: Leg) -> None:
        return

    def on_blocked(self, leg: Leg) -> None:
        self._do(self._router.blocked(leg.number))

    def on_ready(self, leg: Leg) -> None:
        self._do(self._router.ready(leg.number))

    # -- what to do --

    def _do(self, orders: List[Any]) -> None:
        """In order: what an order leads to at once comes after it."""
        if self._running:
            self._orders.extend(orders)
            return
        self._running = True
        self._orders.extend(orders)
        try:
            self._carry_out_all()
        except Exception as error:  # a fault of ours costs this connection, and no other
            self._place.note(0, f"a connection was given up: {error!r}")
            self._orders.clear()
            for leg in (*self._legs.values(), self._client.leg):
                leg.owner = Nobody()
                leg.reset()
        self._running = False

    def _carry_out_all(self) -> None:
        queue, legs = self._orders, self._legs
        while queue:
            order = queue.popleft()
            if type(order) is Send:
                leg = legs.get(order.to)
                if leg is not None:
                    leg.send(order.data)
            else:
                self._carry_out(order)

    def _carry_out(self, order: Any) -> None:
        kind = type(order)
        if kind is Open:
            self._open(order.to)
        elif kind is Timer:
            self._time(order.seconds)
        elif kind is Note:
            self._place.note(order.number, order.text)
        else:
            number = order.source if kind in (Pause, Resume) else order.to
            leg = self._legs.get(number)
            if leg is None:
                return
            if kind is Eof:
                leg.eof()
                if number == CLIENT:
                    self._client.leg.linger(LINGER)
            elif kind is Close:
                del self._legs[number]
                leg.dismiss(LINGER)
            elif kind is Reset:
                del self._legs[number]
                leg.reset()
            elif kind is Splice:
                self._time(0)
                self._client.passage = Spliced(self._client.leg, leg)
            else:
                leg.read(kind is Resume)

    def _open(self, number: int) -> None:
        leg: Optional[Leg]
        if number == POD:
            leg = self._place.to_pod(self, self._client)
        else:
            leg = self._place.to_session(self, number, self._client)
        if leg is None:
            self._orders.extend(self._router.peer_failed(number))
        else:
            self._legs[number] = leg

    def _time(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._place.loop.later(seconds, self._timeout) if seconds else None

    def _timeout(self) -> None:
        if not self._client.leg.over and self._client.passage is self:
            self._do(self._router.timeout())
