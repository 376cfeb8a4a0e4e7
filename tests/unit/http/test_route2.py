"""HTTP/2 routing between ends that the h2 library plays; it refuses whatever breaks the protocol."""

from __future__ import annotations

import random
from typing import Any

import pytest
from h2.settings import SettingCodes
from tests.testkit.h2net import Message, World, fields
from tests.testkit.route import Play, rule

from sidestage.http import http2
from sidestage.http.hpack import Field
from sidestage.http.orders import CLIENT, POD

ME: dict[str, Any] = {"header": "^x-user: me$"}


@pytest.fixture(params=[0, 1, 9, 5000], ids=["whole", "byte by byte", "small", "large"])
def slice_(request: pytest.FixtureRequest) -> int:
    value = request.param
    assert isinstance(value, int)
    return value


def world(slice_: int = 0, **options: Any) -> World:
    return World([rule(**ME)], slice_=slice_, **options)


def mine(path: str = "/", **more: str) -> Any:
    return fields(path, x_user="me", **more)


def test_all_of_the_target_passes_as_it_came(slice_: int) -> None:
    w = world(slice_)
    asked = [w.ask(fields(f"/{n}", x_n=str(n), x_same="again")) for n in range(5)]
    asked.append(w.ask(fields("/up", "POST"), b"some data", [(b"grpc-status", b"0")]))
    w.run()
    assert [w.who(n) for n in asked] == ["program 0"] * 6
    assert w.got(asked[-1]).data == b"some data" * 3
    assert dict(w.got(asked[-1]).trailers)[b"grpc-status"] == b"0"
    assert w.log == ["open 0"]


def test_streams_of_one_connection_go_to_two_programs(slice_: int) -> None:
    w = world(slice_)
    asked = []
    for n in range(12):
        asked.append((n, w.ask(mine(f"/{n}") if n % 3 == 1 else fields(f"/{n}", x_n=str(n % 2)))))
        if n % 4 == 0:
            w.run()
    w.run()
    for n, stream in asked:
        assert w.who(stream) == ("program 1" if n % 3 == 1 else "program 0")
        assert dict(w.got(stream).headers)[b"x-path"] == f"/{n}".encode()
        assert w.got(stream).ended
    assert w.log == ["open 0", "open 1"]
    assert not w.router._route._streams  # type: ignore[attr-defined]


def test_bodies_larger_than_any_window(slice_: int) -> None:
    slice_ = slice_ and 5000
    w = world(slice_)
    body = bytes(range(256)) * 1000
    asked = [w.ask(headers, body) for headers in (fields("/a", "POST"), mine("/b"), fields("/c", "POST"), mine("/d"))]
    w.run()
    assert [w.got(n).data == body * 3 for n in asked] == [True] * 4
    assert [w.got(n).ended for n in asked] == [True] * 4


@pytest.mark.parametrize("small", ["client", "pod", "mine"])
def test_windows_of_a_few_bytes(small: str) -> None:
    options: dict[str, Any] = {small: {SettingCodes.INITIAL_WINDOW_SIZE: 10, SettingCodes.HEADER_TABLE_SIZE: 0}}
    w = world(**options)
    w.run()
    asked = [w.ask(headers, b"0123456789" * 20) for headers in (fields("/a", "POST"), mine("/b"), fields("/c"), mine("/d"))]
    w.run()
    assert [(w.who(n), w.got(n).data == b"0123456789" * 60, w.got(n).ended) for n in asked] == [
        (f"program {to}", True, True) for to in (0, 1, 0, 1)
    ]


def test_grpc_streams_both_ways() -> None:
    w = world()
    for headers, server in ((fields("/p/M", "POST"), 0), (mine("/p/M", method="POST"), 1)):
        stream = w.client.conn.get_next_available_stream_id()
        w.client.conn.send_headers(stream, headers)
        w.client.streams[stream] = Message()
        w.run()
        end = w.servers[server]
        end.answers = False
        sid = max(end.streams)
        end.conn.send_headers(sid, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        for n in range(5):
            w.send(stream, b"ask%d" % n, end=False)
            w.run()
            assert end.streams[sid].data.endswith(b"ask%d" % n)
            end.conn.send_data(sid, b"answer%d" % n)
            w.run()
            assert w.got(stream).data.endswith(b"answer%d" % n)
        end.conn.send_headers(sid, [(b"grpc-status", b"0")], end_stream=True)
        w.client.conn.end_stream(stream)
        w.run()
        assert w.got(stream).trailers == [(b"grpc-status", b"0")]
        end.answers = True


def test_a_program_that_stands_still_holds_up_nobody_else() -> None:
    w = world()
    w.run()
    stuck = w.ask(mine("/stuck"))
    w.run()
    w.mine.read = False
    w.do(w.router.blocked(1))
    for _ in range(20):
        stream = w.ask(mine("/more"), b"x" * 3000)
        w.run()
        assert not w.got(stream).headers
        other = w.ask(fields("/other", "POST"), b"y" * 5000)
        w.run()
        assert w.got(other).data == b"y" * 15000
    assert w.got(stuck).ended
    assert w.paused == set()
    w.do(w.router.ready(1))
    w.mine.read = True
    w.run()
    assert w.got(stream).data == b"x" * 9000


def test_the_client_takes_a_request_back(slice_: int) -> None:
    w = world(slice_)
    w.run()
    for headers, to in ((fields("/a", "POST"), 0), (mine("/b"), 1)):
        stream = w.client.conn.get_next_available_stream_id()
        w.client.conn.send_headers(stream, headers)
        w.run()
        w.client.conn.reset_stream(stream, 8)
        w.run()
        assert [message.reset for message in w.servers[to].streams.values()][-1] == 8
    for headers in (fields("/c"), mine("/d")):
        assert w.got(w.ask(headers)) is not None
    w.run()
    assert all(message.ended for message in list(w.client.streams.values())[-2:])


def test_a_program_refuses_or_cuts_a_stream() -> None:
    w = world()
    w.ask(mine("/first"))
    w.run()
    w.mine.answers = False
    stream = w.ask(mine("/refused"), b"abc")
    w.run()
    w.mine.conn.reset_stream(max(w.mine.streams), http2.REFUSED_STREAM)
    w.run()
    assert (w.who(stream), w.got(stream).data) == ("program 0", b"abc" * 3)
    stream = w.ask(mine("/cut"))
    w.run()
    w.mine.conn.reset_stream(max(w.mine.streams), http2.INTERNAL_ERROR)
    w.run()
    assert w.got(stream).reset == http2.INTERNAL_ERROR


def test_a_program_that_dies_is_replaced_where_it_has_not_begun(slice_: int) -> None:
    w = world(slice_)
    for n in range(3):
        w.ask(fields(f"/{n}"))
    first = w.ask(mine("/first"))
    w.run()
    w.mine.answers = False
    waiting = [w.ask(mine("/w1")), w.ask(mine("/w2", method="POST"), b"body", [(b"t", b"1")])]
    begun = w.ask(mine("/begun"))
    later = w.ask(fields("/later"))
    open_ = w.client.conn.get_next_available_stream_id()
    w.client.conn.send_headers(open_, mine("/open", method="POST"))
    w.client.streams[open_] = Message()
    w.send(open_, b"one ", end=False)
    w.run()
    w.mine.conn.send_headers(max(n for n in w.mine.streams if n < open_), [(b":status", b"200")])
    w.run()
    w.servers.pop(1)
    w.do(w.router.peer_reset(1))
    w.run()
    w.send(open_, b"two")
    w.run()
    assert [(w.who(n), w.got(n).ended) for n in [first, *waiting, later]] == [
        ("program 1", True), ("program 0", True), ("program 0", True), ("program 0", True)]  # fmt: skip
    assert (w.who(open_), w.got(open_).data) == ("program 0", b"one two" * 3)
    assert w.got(waiting[1]).data == b"body" * 3
    assert dict(w.got(waiting[1]).trailers)[b"t"] == b"1"
    assert w.got(begun).reset == http2.INTERNAL_ERROR
    again = w.ask(mine("/again"))
    third = w.ask(fields("/third"))
    w.run()
    assert (w.who(again), w.who(third)) == ("program 1", "program 0")


def test_502_where_the_target_is_not_to_be_asked() -> None:
    w = World([rule(down="502", **ME)])
    stream, asked = w.ask(mine("/")), w.ask(mine("/x"), b"abc")
    w.do(w.router.client(w.client.conn.data_to_send()))
    w.servers.pop(1)
    w.wires.pop((99, 1))
    w.do(w.router.peer_failed(1))
    w.run()
    for number in (stream, asked):
        assert dict(w.got(number).headers)[b":status"] == b"502"
        assert w.got(number).ended


def test_a_program_goes_gracefully() -> None:
    w = world()
    w.ask(mine("/first"))
    w.run()
    w.mine.answers = False
    seen = w.ask(mine("/seen"))
    w.run()
    sid = max(w.mine.streams)
    unseen = w.ask(mine("/unseen"))
    w.do(w.router.client(w.client.conn.data_to_send()))
    w.do(w.router.peer(1, http2.frame(http2.GOAWAY, 0, 0, sid.to_bytes(4, "big") + bytes(4))))
    w.run()
    assert w.who(unseen) == "program 0"
    w.mine.answer(sid)
    w.run()
    assert w.who(seen) == "program 1"
    assert w.log[-1] == "close 1"
    again = w.ask(mine("/again"))
    w.run()
    assert w.who(again) == "program 1"


def test_the_target_goes_while_a_session_answers() -> None:
    w = world()
    w.ask(mine("/first"))
    w.run()
    w.mine.answers = False
    stream = w.ask(mine("/slow"))
    lost = w.ask(fields("/lost", "POST"))
    w.pod.answers = False
    w.run()
    w.old.append(w.servers.pop(POD))
    w.do([order for order in w.router.peer_eof(POD) if getattr(order, "to", None) != POD])
    w.run()
    assert w.got(lost).reset == http2.INTERNAL_ERROR
    w.mine.answer(max(w.mine.streams))
    w.run()
    assert (w.who(stream), w.got(stream).ended) == ("program 1", True)
    assert w.log[-2:] == ["eof -1", "close 1"]


def test_the_target_refuses_later_streams() -> None:
    w = world()
    w.ask(mine("/first"))
    w.run()
    w.pod.answers = False
    asked = [w.ask(fields(f"/{n}")) for n in range(3)]
    w.run()
    last = min(w.pod.streams)
    w.do(w.router.peer(POD, http2.frame(http2.GOAWAY, 0, 0, last.to_bytes(4, "big") + bytes(4))))
    w.run()
    assert [w.got(n).reset for n in asked] == [None, http2.REFUSED_STREAM, http2.REFUSED_STREAM]
    w.pod.answer(last)
    w.run()
    assert w.who(asked[0]) == "program 0"


def test_pings_and_settings_are_the_targets() -> None:
    w = world()
    w.ask(mine("/"))
    w.client.conn.ping(b"12345678")
    w.client.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20, SettingCodes.MAX_FRAME_SIZE: 1 << 15})
    w.run()
    w.mine.conn.ping(b"12345678")
    w.run()
    assert (w.client.pings, w.mine.pings) == (1, 1)
    assert w.mine.conn.remote_settings.initial_window_size == 1 << 20
    body = b"z" * 100_000
    stream = w.ask(mine("/"), body)
    w.run()
    assert w.got(stream).data == body * 3


BODY: dict[str, Any] = {"body": {"body": "json", "query": "$.user", "matches": "^me$"}}


def test_a_body_decides(slice_: int) -> None:
    w = World([rule(**BODY)], slice_=slice_)
    asked = [w.ask(fields("/", "POST"), b'{"user": "%s"}' % user) for user in (b"me", b"you", b"me")]
    asked.append(w.ask(fields("/")))
    w.run()
    w.slice = 0
    big = w.ask(fields("/", "POST"), b'{"user": "me", "x": "' + b"y" * 200_000 + b'"}')
    w.run()
    assert [w.who(n) for n in [*asked, big]] == [f"program {to}" for to in (1, 0, 1, 0, 0)]
    assert len(w.got(big).data) > 600_000


def test_a_header_block_without_end_is_waited_for_a_moment() -> None:
    block = bytes.fromhex("828684410178")
    for first, judge in ((fields("/"), "splice 0"), (mine("/"), "eof -1")):
        w = world()
        w.ask(first)
        w.run()
        w.do(w.router.client(http2.frame(http2.HEADERS, http2.END_STREAM, 101, block[:3])))
        assert w.timer == 10
        w.do(w.router.timeout())
        assert judge in w.log
    w = world()
    w.ask(mine("/"))
    w.run()
    w.do(w.router.client(http2.frame(http2.HEADERS, http2.END_STREAM, 101, block[:3])))
    w.do(w.router.client(http2.frame(http2.CONTINUATION, http2.END_HEADERS, 101, block[3:])))
    assert w.timer == 0
    w.client.streams[101] = Message()
    assert 101 in w.router._route._streams  # type: ignore[attr-defined]


def test_a_body_is_waited_for_two_turns_at_most() -> None:
    w = World([rule(**BODY)])
    w.run()
    stream = w.client.conn.get_next_available_stream_id()
    w.client.conn.send_headers(stream, fields("/slow", "POST"))
    w.client.streams[stream] = Message()
    w.client.conn.send_data(stream, b'{"user":')
    w.run()
    assert w.timer == 1.0
    w.do(w.router.timeout())
    w.do(w.router.timeout())
    w.client.conn.send_data(stream, b'"me"}', end_stream=True)
    w.run()
    assert dict(w.got(stream).headers)[b"server"] == b"program 0"
    assert w.got(stream).data == b'{"user":"me"}' * 3


def test_probes_are_the_targets() -> None:
    w = World([rule(path="/")])
    probe, other = w.ask(fields("/healthz", user_agent="kube-probe/1.33")), w.ask(fields("/"))
    w.run()
    assert (w.who(probe), w.who(other)) == ("program 0", "program 1")


def test_padding_is_given_back() -> None:
    w = world()
    w.ask(mine("/first"))
    w.run()
    for headers in (mine("/"), fields("/", "POST")):
        stream = w.client.conn.get_next_available_stream_id()
        w.client.conn.send_headers(stream, headers)
        w.client.streams[stream] = Message()
        for _ in range(600):
            if w.client.conn.local_flow_control_window(stream) < 300:
                w.run()
            w.client.conn.send_data(stream, b"abc", pad_length=200)
        w.client.conn.end_stream(stream)
        w.run()
        assert w.got(stream).data == b"abc" * 1800


def test_a_client_that_ends() -> None:
    w = world()
    w.ask(mine("/"))
    w.run()
    w.do(w.router.client_eof())
    assert w.log[-2:] == ["eof 0", "eof 1"]
    w = world()
    w.ask(fields("/"))
    w.run()
    w.do(w.router.client_eof())
    assert w.log[-2:] == ["eof 0", "splice 0"]


@pytest.mark.parametrize("seed", range(25))
def test_a_connection_of_any_kind(seed: int) -> None:
    """Windows, tables, slices, bodies, order: all by chance; each request is answered by its own program, whole."""
    rng = random.Random(seed)

    def some() -> Any:
        return {
            SettingCodes.INITIAL_WINDOW_SIZE: rng.choice([65535, 100_000, 1 << 20]),
            SettingCodes.HEADER_TABLE_SIZE: rng.choice([0, 100, 4096]),
            SettingCodes.MAX_FRAME_SIZE: rng.choice([16384, 20000, 1 << 17]),
        }

    late = {**some(), SettingCodes.HEADER_TABLE_SIZE: 4096}
    w = world(rng.choice([0, 0, 3, 700]), client=some(), pod=some(), mine=late, seed=seed)
    w.run()  # the library's own ends lose track of tables that change under way
    asked: list[tuple[int, bool, bytes]] = []
    for number in range(rng.randrange(5, 30)):
        me = rng.random() < 0.4
        body = rng.choice([b"", b"x" * 10, b"y" * rng.randrange(3000), b"z" * 50_000 if not w.slice else b"z"])
        headers = (mine if me else fields)(f"/{number}", method="POST", **{f"x_{rng.randrange(4)}": "v" * rng.randrange(30)})
        if rng.random() < 0.1:
            w.run()
        asked.append((w.ask(headers, body or None, [(b"t", b"1")] if body and rng.random() < 0.3 else None), me, body))
    w.run()
    for stream, me, body in asked:
        assert (w.who(stream), w.got(stream).data == body * 3, w.got(stream).ended) == (f"program {int(me)}", True, True)
    assert w.router.idle


def hand(own: bool = True) -> tuple[Play, bytes]:
    """A client whose first request is a session's (or the target's), with half of its body; the target has said nothing yet."""
    play = Play([rule(**ME)])
    named = (mine if own else fields)("/", method="POST")
    asked = http2.headers(1, [Field(name, value) for name, value in named], False, 16384, [])
    play.client(http2.PREFACE + http2.settings({}) + asked + http2.frame(http2.DATA, 0, 1, b"some"))
    return play, http2.settings({http2.FRAME_SIZE: 20_000})


def test_a_client_hears_nothing_before_the_target_s_settings() -> None:
    """RFC 9113 3.4; clients of Go give the connection up otherwise."""
    play, greeting = hand()
    answer = http2.settings({}) + http2.headers(1, [Field(b":status", b"200")], True, 16384, [])
    play.peer(1, answer)
    assert not play.answer
    play.peer(POD, greeting + http2.frame(http2.PING, 0, 0, b"12345678"))
    kinds = [frame.kind for frame in http2.Splitter().feed(play.take(CLIENT))]
    assert kinds[:2] == [http2.SETTINGS, http2.WINDOW_UPDATE] and http2.HEADERS in kinds and http2.PING in kinds


def test_a_target_that_ends_before_its_settings_is_spoken_for() -> None:
    play, _ = hand()
    play.peer(1, http2.settings({}) + http2.headers(1, [Field(b":status", b"200")], True, 16384, []))
    play.peer_eof(POD)
    frames = list(http2.Splitter().feed(play.take(CLIENT)))
    assert [(frame.kind, frame.flags) for frame in frames[:2]] == [(http2.SETTINGS, 0), (http2.SETTINGS, http2.ACK)]
    assert http2.HEADERS in [frame.kind for frame in frames]


def test_while_all_is_the_target_s_nothing_is_held() -> None:
    play, greeting = hand(own=False)
    play.peer(POD, greeting, 1)
    assert play.take(CLIENT) == greeting
