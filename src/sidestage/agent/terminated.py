"""An intercepted connection whose TLS ends here: the client's first message, a handshake with the target's own program, and then
the client's, with the protocol that the target has settled on (ALPN). What is inside goes the ways of any other connection.

The connection is the target's, byte by byte as it came, whenever it isn't TLS, is older than TLS 1.2, is for a server name that
the certificate isn't for, or the target wants to see a certificate of the client: nobody but the client can show that.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from sidestage.agent.legs import Leg
from sidestage.agent.passage import CLIENT, LINGER, POD, Client, Spliced
from sidestage.agent.tls_leg import TlsLeg
from sidestage.protocol.messages import Buffer
from sidestage.tls.hello import Hello, NotTls, Reader
from sidestage.tls.identity import Identity, Peers, Read, Spec

HELLO_TIME = 10.0  # seconds for a client's first message, as for a head of HTTP
TARGET_TIME = 3.0  # seconds for the handshake of the target's program; one that stands still holds up nobody else's requests
CLIENT_TIME = 10.0  # seconds for the client's
MAX_SETTLED = 64  # kept answers to offers of protocols

_ASKED = "the target asks for a certificate of the client, which only the client can show: such connections stay with the target"
_SLOW = "the target's own program doesn't answer a TLS handshake: what is the session's goes on without it"
_OLD = "clients that know no TLS 1.2 stay with the target"
_NO_TLS = "connections that aren't TLS stay with the target"


class Terminator:
    """What all connections of one port share. Raises IdentityError."""

    def __init__(self, spec: Spec, read: Read) -> None:
        self.identity, self.peers = Identity(spec, read), Peers()
        self.asked = False  # has the target ever asked for a client's certificate?
        self._settled: Dict[Tuple[str, ...], str] = {}  # what it chose of protocols

    def settle(self, offers: List[str], protocol: str) -> None:
        if len(self._settled) >= MAX_SETTLED:
            self._settled.clear()
        self._settled[tuple(offers)] = protocol

    def guess(self, offers: List[str]) -> str:
        """What the target would choose; else what most programs know."""
        known = self._settled.get(tuple(offers))
        return ("http/1.1" if "http/1.1" in offers else offers[0] if offers else "") if known is None else known

    def same(self, other: Optional["Terminator"]) -> bool:
        return other is not None and self.identity.same(other.identity)


class Terminated:
    """Owner of both ends until it is known what is to become of them; then the place where those inside find their other ends."""

    def __init__(self, place: Any, client: Client, tls: Terminator) -> None:
        """`place` is the port: `enter(place, client)` is asked for the passage inside."""
        self._place, self._client, self._tls = place, client, tls
        self.loop = place.loop
        self._reader = Reader()
        self._early: List[bytes] = []
        self._protocol = self._name = ""
        self._prepared: Optional[TlsLeg] = None
        client.passage = client.wire.owner = self
        self._pod: Optional[Leg] = place.to_pod(self, client)
        self._timer = self.loop.later(HELLO_TIME, lambda: self._raw(_NO_TLS))
        client.wire.start()

    def drain(self) -> None:
        """It will soon be clear whose it is."""

    # -- what happens until then --

    def on_data(self, leg: Leg, data: Buffer) -> None:
        if leg is not self._client.wire:  # the target's program speaks first
            self._raw(_NO_TLS, bytes(data))
            return
        self._early.append(bytes(data))
        try:
            hello = self._reader.feed(bytes(data))
        except NotTls:
            self._raw(_NO_TLS)
            return
        if hello is not None:
            self._meet(hello)

    def on_eof(self, leg: Leg) -> None:
        if leg is self._pod and isinstance(leg, TlsLeg):
            return  # parked: whoever gets it will see
        self._raw()

    def on_reset(self, leg: Leg) -> None:
        if leg is self._pod:
            self._pod = None
        elif leg in (self._client.wire, self._client.leg):
            self._end()

    def on_failed(self, leg: Leg) -> None:
        if leg is self._client.leg:
            assert isinstance(leg, TlsLeg)
            if leg.engine.broken:
                self._place.note(0, f"a client's TLS handshake failed: {leg.engine.why}")
            self._end()
        elif isinstance(leg, TlsLeg) and leg.engine.broken:
            self._pod = None
            self._raw(f"TLS with the target's own program failed ({leg.engine.why}): such connections pass to it as they come")
        elif isinstance(leg, TlsLeg):  # nobody is there, or it hung up
            self._alone()
        else:
            self._pod = None

    def on_open(self, leg: Leg) -> None:
        if leg is self._client.leg:
            self._enter()
        elif isinstance(leg, TlsLeg):
            self._met(leg)

    def on_blocked(self, leg: Leg) -> None:
        return

    def on_ready(self, leg: Leg) -> None:
        return

    # -- step by step --

    def _meet(self, hello: Hello) -> None:
        """Greet the target's program as the client greeted us."""
        identity = self._tls.identity
        wrong = identity.refresh()
        if wrong:
            self._place.note(0, wrong)
        if not hello.modern:
            self._raw(_OLD)
            return
        only = identity.only
        self._offers = [each for each in hello.protocols if only is None or each in only]
        self._name = hello.name
        self._client.wire.read(False)
        if self._pod is None:
            self._alone()
            return
        try:
            engine = self._tls.peers.engine(self._offers, hello.name)
        except ValueError:
            self._raw()
            return
        self._wait(TARGET_TIME)
        self._pod = leg = TlsLeg(self.loop, self, POD, self._pod, engine, parked=True)
        leg.greet()

    def _met(self, leg: TlsLeg) -> None:
        identity, engine = self._tls.identity, leg.engine
        if engine.asked:
            self._tls.asked = True
            self._raw(_ASKED)
        elif engine.certificate != identity.leaf and not identity.covers(self._name):
            named = f"the name {self._name}" if self._name else "clients that name no server"
            self._raw(f"the certificate isn't the one that the target shows for {named}: such connections stay with the target")
        else:
            self._prepared = leg
            self._tls.settle(self._offers, engine.protocol)
            self._answer(engine.protocol)

    def _alone(self) -> None:
        """Without the target's program."""
        if self._pod is not None:
            self._pod.dismiss(LINGER)
            self._pod = None
        self._answer(self._tls.guess(self._offers))

    def _answer(self, protocol: str) -> None:
        self._protocol = protocol
        self._wait(CLIENT_TIME)
        client = self._client
        client.inside = {"name": self._name, "protocol": protocol}
        client.leg = leg = TlsLeg(self.loop, self, CLIENT, client.wire, self._tls.identity.engine(protocol))
        client.wire.read(True)
        leg.on_data(client.wire, b"".join(self._early))
        self._early.clear()

    def _enter(self) -> None:
        self._timer.cancel()
        self._place.enter(self, self._client)
        if self._prepared is not None:  # nobody wanted it
            self._prepared.dismiss(LINGER)
            self._prepared = None

    def _wait(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self.loop.later(seconds, self._late)

    def _late(self) -> None:
        if self._client.leg is self._client.wire and self._tls.asked:
            self._raw(_ASKED)
        elif self._client.leg is self._client.wire:
            self._place.note(0, _SLOW)
            self._alone()
        else:
            self._client.leg.reset()
            self._end()

    def _raw(self, note: str = "", answer: bytes = b"") -> None:
        """All of it is the target's. Its program has heard nothing on a connection on which TLS hasn't begun."""
        self._timer.cancel()
        if note:
            self._place.note(0, note)
        pod = self._pod
        if pod is None or isinstance(pod, TlsLeg):
            if pod is not None:
                pod.dismiss(LINGER)
            pod = self._place.to_pod(None, self._client)
        client = self._client.wire
        for data in self._early:
            pod.send(data)
        if answer:
            client.send(answer)
        self._client.passage = Spliced(client, pod)

    def _end(self) -> None:
        """The client has gone before it was anybody's."""
        self._timer.cancel()
        if self._pod is not None:
            self._pod.reset()

    # -- the place of those inside --

    def to_pod(self, owner: Any, client: Client) -> TlsLeg:
        leg, self._prepared = self._prepared, None
        if leg is None or leg.over:
            engine = self._tls.peers.engine([self._protocol] if self._protocol else [], self._name)
            leg = TlsLeg(self.loop, owner, POD, self._place.to_pod(None, client), engine)
            leg.greet()
        else:
            leg.owner = owner
            self.loop.soon(leg.release)
        return leg

    def to_session(self, owner: Any, number: int, client: Client) -> Optional[Leg]:
        leg: Optional[Leg] = self._place.to_session(owner, number, client)
        return leg

    def note(self, number: int, text: str) -> None:
        self._place.note(number, text)
