"""HTTP exchanges that pass through the session: told to the feed, kept for a while, and compared where both answers are known."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidestage.protocol.messages import Buffer
from sidestage.session.broker import Told
from sidestage.session.feed import Feed
from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop
from sidestage.stream.pump import SocketPump

if TYPE_CHECKING:
    from sidestage.exchange.compare import Learner, Rule
    from sidestage.exchange.model import Answer, Exchange
    from sidestage.exchange.observer import Observer

TARGET, LOCAL = "target", "local"  # as in exchange/model.py; the package is imported when there is something to observe
MAX_CONNECTIONS = 4096  # observed at once; the oldest is no longer observed
MAX_KEPT = 200  # exchanges whose details can be asked for
MAX_TOLD = 10  # differences of one exchange that the user is told
MAX_PATH = 500
MAX_PROPOSALS = 50

Args = dict[str, Any]
Key = tuple[int, str, int]  # the target's port, the client's address and port


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted beyond the feed's readers."""

    answers: bool = False  # the target's own, beside the local program's
    compare: bool = False
    ignore: tuple[str, ...] = ()  # rules of exchange/compare.py
    count: int = 0  # end when so many are compared; 0: never


class Watch:
    def __init__(self, feed: Feed, broker: Told, wish: Wish, enough: Callable[[str], None]) -> None:
        self._feed, self._broker, self.wish, self._enough = feed, broker, wish, enough
        self._rules: list[Rule] = []
        self._learner: Learner | None = None
        self._observers: dict[Key, Observer] = {}
        self._where: dict[int, Args] = {}  # exchange -> its connection
        self._kept: dict[int, Exchange] = {}
        self._compared = 0
        self.answered: Callable[[], None] | None = None  # hears that the program has answered a request
        self.kept: Callable[[Args, Exchange, Answer], None] | None = None  # hears each exchange that is over, as clients saw it
        feed.on("exchange", self._details)

    def watched(self, args: Args, mode: str) -> Watched | None:
        """For a connection that the agent opened, if anybody wants to know of it."""
        if not (self.wish.answers or self._feed.watched):
            return None
        key = _key(args)
        return Watched(self._observer(key, args["local"], mode), lambda: self._forget(key))

    def answers(self, link: Link, channel: int, args: Args) -> None:
        """The agent opened a channel with what the target answers."""
        if self.wish.answers:
            link.accept(channel, {})
            link.register(channel, _Answers(link, channel, self._observer(_key(args), args["local"], "mirror")))
        else:
            link.refuse(channel, 111)

    def _observer(self, key: Key, local: list[Any], mode: str) -> Observer:
        observer = self._observers.get(key)
        if observer is None:
            from sidestage.exchange.compare import Learner, Rule
            from sidestage.exchange.observer import Observer

            if self._learner is None:
                self._rules, self._learner = [Rule.parse(text) for text in self.wish.ignore], Learner()
            where = {"port": key[0], "peer": list(key[1:]), "local": local, "mode": mode}
            sides = (TARGET, LOCAL) if self.wish.answers and mode == "mirror" else (LOCAL,)
            observer = Observer(lambda what, exchange, side: self._tell(where, what, exchange, side), sides)
            self._observers[key] = observer
            if len(self._observers) > MAX_CONNECTIONS:
                del self._observers[next(iter(self._observers))]
        return observer

    def _forget(self, key: Key) -> None:
        self._observers.pop(key, None)

    def _tell(self, where: Args, what: str, exchange: Exchange, side: str) -> None:
        if what == "request":
            self._keep(exchange)
            self._feed.tell(
                "request", id=exchange.number, method=exchange.method, path=exchange.path, host=exchange.host, **where
            )
        elif what == "done":
            answer = exchange.answers[side]
            self._feed.tell(
                "answer", id=exchange.number, side=side, status=answer.status, size=answer.body.size,
                ms=round(answer.seconds * 1000, 3),
            )  # fmt: skip
            if side == LOCAL and self.answered:
                self.answered()
            if self.kept and side == (TARGET if where["mode"] == "mirror" else LOCAL):
                self.kept(where, exchange, answer)
            if side == TARGET and self._learner:
                self._learner.see(exchange)
            if all(name in exchange.answers and exchange.answers[name].done for name in (TARGET, LOCAL)):
                self._compare(exchange)

    def _compare(self, exchange: Exchange) -> None:
        from sidestage.exchange.compare import compare

        found = [list(difference) for difference in compare(exchange, self._rules)]
        self._feed.tell("compared", id=exchange.number, differences=found)
        self._compared += 1
        if self.wish.compare and self._learner:
            proposals = [str(rule) for rule in itertools.islice(self._learner.proposals(self._rules), MAX_PROPOSALS)]
            self._broker.event(
                "compared", method=exchange.method[:20], path=exchange.path[:MAX_PATH], differences=found[:MAX_TOLD],
                ms=[round(exchange.answers[side].seconds * 1000, 3) for side in (TARGET, LOCAL)],
                proposals=[text for text in proposals if len(text) <= MAX_PATH],
            )  # fmt: skip
            if self._compared == self.wish.count:
                self._enough(f"{self._compared} exchanges were compared")

    def _keep(self, exchange: Exchange) -> None:
        self._kept[exchange.number] = exchange
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]

    def _details(self, wish: Args) -> Args:
        """An exchange with its headers and bodies, for a reader of the feed."""
        exchange = self._kept.get(wish.get("id", 0))
        if exchange is None:
            return {"id": wish.get("id"), "gone": True}
        return {
            "id": exchange.number, "method": exchange.method, "path": exchange.path, "headers": exchange.headers,
            "body": _text(exchange.headers, exchange), "answers": {
                side: {"status": answer.status, "headers": answer.headers, "trailers": answer.trailers,
                       "ms": round(answer.seconds * 1000, 3), "done": answer.done, "body": _text(answer.headers, answer)}
                for side, answer in exchange.answers.items()
            },
        }  # fmt: skip


class Watched:
    """One connection that is observed: the client's bytes, and the local program's."""

    def __init__(self, observer: Observer, end: Callable[[], None]) -> None:
        self.observer, self.end = observer, end


class WatchedPump(SocketPump):
    def __init__(
        self, loop: Loop, link: Link, channel: int, sock: socket.socket, watched: Watched | None,
        first: Callable[[bytes], None] | None = None,
    ) -> None:  # fmt: skip
        """`first` is told the first bytes that the program answers."""
        super().__init__(loop, link, channel, sock, on_end=self._over)
        self._watched, self._first = watched, first

    def on_data(self, data: Buffer) -> None:
        if self._watched:
            self._watched.observer.client(bytes(data))
        super().on_data(data)

    def _pass(self, data: bytes) -> None:
        if self._first:
            self._first(data)
            self._first = None
        if self._watched:
            self._watched.observer.answer(LOCAL, data)
        self._forward(data)

    def _forward(self, data: bytes) -> None:
        super()._pass(data)

    def _over(self) -> None:
        if self._watched:
            self._watched.observer.answer_eof(LOCAL)
            self._watched.end()


class _Answers(QuietHandler):
    """The channel of the target's answers."""

    def __init__(self, link: Link, channel: int, observer: Observer) -> None:
        self._link, self._channel, self._observer = link, channel, observer

    def on_data(self, data: Buffer) -> None:
        self._link.consumed(self._channel, len(data))
        self._observer.answer(TARGET, bytes(data))

    def on_eof(self) -> None:
        self._observer.answer_eof(TARGET)
        self._link.send_eof(self._channel)
        self._link.forget(self._channel)

    def on_reset(self) -> None:
        self._observer.lost(TARGET)
        self._link.forget(self._channel)


def _key(args: Args) -> Key:
    host, port = args["peer"]
    return args["port"], host, port


def _text(headers: list[tuple[str, str]], of: Exchange | Answer) -> Args:
    from sidestage.exchange.model import plain

    data = plain(headers, of.body)
    try:
        return {"text": data.decode(), "size": of.body.size, "cut": of.body.cut}
    except UnicodeDecodeError:
        return {"hex": data[:4096].hex(" "), "size": of.body.size, "cut": of.body.cut or len(data) > 4096}
