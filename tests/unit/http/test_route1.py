"""HTTP/1 routing, as traces: what is sent in, and what each side has got."""

from __future__ import annotations

from typing import Any

import pytest
from tests.testkit.route import Play, rule

from sidestage.http.orders import CLIENT, MAX_WAITING, POD, REPLAY
from sidestage.http.route1 import FAILED

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
MINE = b"GET /a HTTP/1.1\r\nHost: x\r\nX-User: me\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nX-User: me\r\nContent-Length: 5\r\n\r\n"
ME: dict[str, Any] = {"header": "^x-user: me$"}


def play(**spec: Any) -> Play:
    return Play([rule(**(spec or ME))])


@pytest.fixture(params=[0, 1, 7], ids=["whole", "byte by byte", "by seven"])
def step(request: pytest.FixtureRequest) -> int:
    value = request.param
    assert isinstance(value, int)
    return value


def test_requests_of_one_connection_go_to_two_programs(step: int) -> None:
    p = play()
    for mine in (False, True, True, False, True, False):
        p.client(MINE if mine else GET, step)
        assert (p.take(1), p.pod) == ((MINE, b"") if mine else (b"", GET))
        p.peer(1 if mine else POD, OK, step)
        assert p.answer == OK
    assert p.log == ["open 0", "open 1"]
    assert p.spliced is None


def test_an_unused_connection_to_the_target_is_given_up_and_made_again() -> None:
    p = play().client(MINE)
    assert p.log == ["open 0", "close 0", "open 1"]
    p.peer(1, OK).client(GET)
    assert p.log[3:] == ["open 0"]
    assert p.pod == GET


def test_pipelined_requests_are_answered_in_order(step: int) -> None:
    p = play().client(GET + MINE + GET, step)
    assert (p.pod, p.take(1)) == (GET, b"")
    p.peer(POD, OK)
    assert (p.pod, p.take(1)) == (b"", MINE)
    p.peer(1, OK + b"")
    assert p.pod == GET
    assert p.peer(POD, OK).answer == OK * 3


def test_pipelined_requests_of_the_target_pass_at_once(step: int) -> None:
    head = GET.replace(b"GET", b"HEAD")
    p = play().client(GET + head + POST.replace(b"me", b"no") + b"12345" + MINE + GET, step)
    assert p.pod == GET + head + POST.replace(b"me", b"no") + b"12345"
    p.peer(POD, OK + OK[:-2] + OK, step)
    assert (p.take(1), p.pod, p.answer) == (MINE, b"", OK + OK[:-2] + OK)
    p.peer(1, OK)
    assert p.pod == GET


def test_what_is_ambiguous_behind_others_is_spliced() -> None:
    p = play().client(GET + GET + b"GET /\n\n" + MINE)
    assert (p.pod, p.spliced, p.take(1)) == (GET + GET + b"GET /\n\n" + MINE, POD, b"")


def test_a_slow_head_behind_others() -> None:
    p = play().client(GET + MINE[:-2])
    assert (p.pod, p.timer) == (GET, 10)
    assert p.timeout().spliced == POD
    assert p.pod == MINE[:-2]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_ends_of_answers(method: str, answer: bytes, step: int) -> None:
    p = play()
    for mine in (True, False):
        request = (MINE if mine else GET).replace(b"GET", method.encode())
        p.client(request).peer(1 if mine else POD, answer, step)
        assert p.answer == answer
    p.client(MINE)  # the connection goes on
    assert p.take(1).endswith(MINE)


def test_an_answer_that_ends_with_the_connection() -> None:
    p = play().client(MINE).peer(1, b"HTTP/1.1 200 OK\r\n\r\nall of").peer(1, b" it").peer_eof(1)
    assert p.answer.endswith(b"all of it")
    assert p.log[-2:] == ["eof -1", "close 1"]
    p = play().client(GET).peer(POD, b"HTTP/1.1 200 OK\r\n\r\nall of")
    assert p.spliced == POD


def test_what_ends_after_a_request_is_spliced_at_once() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    p = play().client(request)
    assert (p.spliced, p.pod) == (POD, request)
    p = play().client(b"GET / HTTP/1.0\r\n\r\n")
    assert p.spliced == POD


def test_a_session_takes_a_last_request() -> None:
    request = b"GET / HTTP/1.0\r\nX-User: me\r\n\r\n"
    p = play().client(request + b"GET /smuggled HTTP/1.0\r\n\r\n")
    assert p.take(1) == request
    p.peer(1, OK)
    assert (p.answer, p.log[-2:]) == (OK, ["eof -1", "close 1"])
    p.client(b"more")
    assert (p.pod, p.take(1)) == (b"", b"")
    p.client_eof()
    assert p.router.done


def test_bodies_go_with_their_request(step: int) -> None:
    chunked = POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    chunked += b'3\r\nabc\r\nA;x="y"\r\n0123456789\r\n0\r\nT: 1\r\n\r\n'
    p = play().client(chunked + POST + b"12345" + GET, step)
    assert p.take(1) == chunked
    p.peer(1, OK)
    assert p.take(1) == POST + b"12345"
    p.peer(1, OK)
    assert p.pod == GET


def test_the_client_waits_for_100() -> None:
    request = POST.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length")
    p = play().client(request).peer(1, b"HTTP/1.1 100 Continue\r\n\r\n")
    assert p.answer == b"HTTP/1.1 100 Continue\r\n\r\n"
    p.client(b"12345").peer(1, OK)
    assert p.answer == OK
    p.client(GET)
    assert p.pod == GET


def test_a_refusal_instead_of_100_ends_the_connection() -> None:
    """The client may or may not send its body then: RFC 9110 10.1.1."""
    request = POST.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length")
    refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
    p = play().client(request).peer(1, refusal)
    assert (p.answer, p.log[-2:]) == (refusal, ["eof -1", "close 1"])
    p = play().client(request.replace(b"me", b"you")).peer(POD, refusal)
    assert (p.answer, p.spliced) == (refusal, POD)


@pytest.mark.parametrize("to", [POD, 1])
def test_upgrades_follow_their_request(to: int, step: int) -> None:
    request = (MINE if to else GET)[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi"
    p = play().client(request, step).peer(to, switched, step)
    assert (p.spliced, p.answer, p.take(to)) == (to, switched, request)
    assert p.client(b"\x81\x00").take(to) == b"\x81\x00"


def test_an_upgrade_that_is_not_taken() -> None:
    request = MINE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    p = play().client(request + GET).peer(1, OK)
    assert (p.spliced, p.pod) == (None, GET)


def test_connect_is_spliced_when_it_succeeds() -> None:
    request = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nX-User: me\r\n\r\n"
    p = play().client(request).peer(1, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
    assert p.spliced == 1
    p = play().client(request).peer(1, b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    assert p.spliced is None


H2C = b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def test_h2c_by_upgrade_is_not_offered_to_a_session(step: int) -> None:
    assert play().client(MINE[:-2] + H2C, step).take(1) == MINE[:-2] + b"Connection: keep-alive\r\n\r\n"


def test_a_body_that_was_waited_for_is_whole_and_untouched(step: int) -> None:
    """Though it looks like fields, and without a line's end: a lost byte would make the next request a part of this one."""
    body = b'{"b": 1,\r\n"c":\r\n2}'
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    p = play(body={"body": "json", "query": "$.b", "matches": "1"}).client(head + H2C + body, step)
    assert p.take(1) == head + b"Connection: keep-alive\r\n\r\n" + body


def test_a_session_that_switches_unasked_is_given_nothing_more() -> None:
    """Else all that a client asks on the connection would be its own."""
    p = play().client(MINE[:-2] + H2C).peer(1, SWITCHED)
    p.take(1)
    p.client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert p.spliced is None and not p.take(1)


def test_a_target_that_upgrades_has_the_connection_and_it_is_told() -> None:
    p = play().client(b"GET /b HTTP/1.1\r\nHost: x\r\n" + H2C).peer(POD, SWITCHED)
    assert p.spliced == POD and p.pod == b"GET /b HTTP/1.1\r\nHost: x\r\n" + H2C and p.answer == SWITCHED
    assert "no filter sees" in p.notes[0]


def test_a_session_that_fails_leaves_the_upgrade_to_the_target() -> None:
    p = play().client(MINE[:-2] + H2C).peer_reset(1)
    assert p.pod == MINE[:-2] + H2C
    assert p.peer(POD, SWITCHED).spliced == POD


NOT_HTTP = [
    b"\x16\x03\x01\x02\x00", b"SSH-2.0-OpenSSH_9.2\r\n", b"EHLO me\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"get / HTTP/1.1\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET key\r\n", b"GET / HTTP/3.0\r\n", b"\r\nGET / HTTP/1.1\r\n",
    b"GET /\xc3 HTTP/1.1\r\n", b"A" * 40,
]  # fmt: skip


@pytest.mark.parametrize("data", NOT_HTTP)
def test_other_protocols_pass_at_once(data: bytes, step: int) -> None:
    p = play().client(data, step)
    assert (p.spliced, p.pod, p.timer) == (POD, data, 0)
    assert not p.notes or data[:1] == b"\x16"


def test_that_a_filter_sees_nothing_in_tls_is_told() -> None:
    p = play().client(b"\x16\x03\x01\x02\x00\x01")
    assert p.spliced == POD and "feature.network.incoming.tls.certificate" in p.notes[0]


def test_a_server_that_speaks_first_is_not_waited_for() -> None:
    p = play().peer(POD, b"220 mail\r\n")
    assert (p.spliced, p.answer) == (POD, b"220 mail\r\n")
    p = play().client(b"GE").peer(POD, b"hello")
    assert (p.spliced, p.answer, p.pod) == (POD, b"hello", b"GE")


def test_a_beginning_that_may_be_http_is_waited_for_a_moment() -> None:
    p = play().client(b"HELLO")
    assert (p.spliced, p.timer) == (None, 0.5)
    assert p.timeout().spliced == POD
    assert p.pod == b"HELLO"
    p = play().client(b"GET / HTTP/1.1\r\nHost")
    assert p.timer == 10
    p.client(b": x\r\n").client(b"\r\n")
    assert (p.timer, p.spliced, p.pod) == (0, None, GET.replace(b"/a", b"/"))


def test_a_slow_head_is_the_targets() -> None:
    p = play()
    for byte in b"GET / HTTP/1.1\r\nX-User: me\r\n":
        p.client(bytes([byte]))
    assert p.timeout().spliced == POD
    assert p.pod == b"GET / HTTP/1.1\r\nX-User: me\r\n"


SMUGGLING = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "one length twice": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "a list of lengths": b"Content-Length: 5, 5\r\n",
    "a signed length": b"Content-Length: +5\r\n",
    "a length in hex": b"Content-Length: 0x5\r\n",
    "an endless length": b"Content-Length: 99999999999999999999999\r\n",
    "no length": b"Content-Length: \r\n",
    "both": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "both, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n",
    "a coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "a folded line": b"X-A: b\r\n c\r\nContent-Length: 5\r\n",
    "folded at once": b" Content-Length: 5\r\n",
    "a space before the colon": b"Content-Length : 5\r\n",
    "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
    "a bare LF": b"X-A: b\nContent-Length: 5\r\n",
    "a bare CR": b"X-A: b\rContent-Length: 5\r\n",
    "CR CR LF": b"X-A: b\r\r\n",
    "a NUL": b"X-A: b\0c\r\n",
    "no colon": b"Content-Length\r\n",
    "no name": b": 5\r\n",
    "a name with a space": b"Content Length: 5\r\n",
    "an underscore": b"Content_Length: 5\r\n",
    "another underscore": b"Transfer_Encoding: chunked\r\n",
    "two hosts": b"Host: y\r\n",
    "an odd expectation": b"Expect: 200-ok\r\n",
    "a NUL in a name": b"Content-Length\0: 5\r\n",
    "a quoted name": b'"Content-Length": 5\r\n',
    "a long head": b"X-A: " + b"b" * 70000 + b"\r\n",
}


@pytest.mark.parametrize("fields", SMUGGLING.values(), ids=SMUGGLING.keys())
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
def test_two_opinions_mean_the_target(fields: bytes, before: bytes, step: int) -> None:
    """The session's own header stands in it, and still it is the target's, with all that follows."""
    attack = MINE[:-2] + fields + b"\r\n" + MINE
    p = play()
    if before:
        p.client(before).peer(POD, OK)
    p.client(attack, step)
    assert (p.spliced, p.pod, p.take(1)) == (POD, before + attack, b"")


LINES = [
    b"GET  /a HTTP/1.1", b"GET /a  HTTP/1.1", b"GET\t/a HTTP/1.1", b" GET /a HTTP/1.1", b"GET /a HTTP/1.1 ",
    b"GET /a HTTP/01.1", b"GET /a http/1.1", b"GET /a HTTP/1.2", b"GET /a b HTTP/1.1", b"GET /a", b"GET HTTP/1.1",
    b"G\xcbT /a HTTP/1.1", b"GET /a\0 HTTP/1.1",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_request_lines_of_two_opinions(line: bytes, step: int) -> None:
    attack = line + MINE[MINE.index(b"\r\n") :]
    p = play().client(attack, step)
    assert (p.spliced, p.pod, p.take(1)) == (POD, attack, b"")


CHUNKS = [
    b"5\nhello\r\n", b"5\r\nhelloX\r\n", b"5\r\nhello\n0\r\n", b"0x5\r\nhello\r\n", b"-1\r\n", b"5 \r\nhello\r\n",
    b" 5\r\nhello\r\n", b"\r\n", b"5;a\nb\r\nhello\r\n", b"5;a\0\r\nhello\r\n", b"G\r\n", b"1" * 16 + b"\r\n",
    b"5;" + b"a" * 9000, b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\n folded: 1\r\n\r\n", b"0\r\nno colon\r\n\r\n",
    b"0\r\na : b\r\n\r\n", b"0\r\n" + b"a: b\r\n" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda c: repr(c[:20]))
@pytest.mark.parametrize("mine", [True, False])
def test_broken_chunks_are_the_targets(chunks: bytes, mine: bool, step: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n" + (b"X-User: me\r\n" if mine else b"") + b"Transfer-Encoding: chunked\r\n\r\n"
    p = play().client(head + b"3\r\nabc\r\n" + chunks + MINE, step)
    assert (p.spliced, p.pod) == (POD, head + b"3\r\nabc\r\n" + chunks + MINE)
    assert MINE not in p.take(1)


def test_a_broken_body_beyond_replay_is_cut() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-User: me\r\nTransfer-Encoding: chunked\r\n\r\n"
    p = play().client(head).client(b"%x\r\n" % (REPLAY + 1) + b"a" * REPLAY).client(b"aX")
    assert p.log[-2:] == ["reset 1", "reset -1"]


def test_a_program_that_fails_is_replaced_by_the_target(step: int) -> None:
    p = play().client(POST + b"123", step).peer_reset(1)
    p.client(b"45", step)
    assert p.pod == POST + b"12345"
    assert p.peer(POD, OK, step).answer == OK
    p.client(MINE)
    assert p.take(1).endswith(MINE)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_program_that_ends_before_its_answer_is_replaced(begun: bytes) -> None:
    p = play().client(MINE).peer(1, begun or b"H").peer_eof(1)
    assert p.pod == MINE
    assert p.peer(POD, OK).answer == OK


def test_a_program_that_fails_after_its_answer_began_is_seen_to() -> None:
    p = play().client(MINE).peer(1, OK[:-1]).peer_reset(1)
    assert (p.answer, p.log[-1]) == (OK[:-1], "reset -1")
    p = play().client(MINE).peer(1, OK[:-1]).peer_eof(1)
    assert p.log[-1] == "reset -1"


def test_a_body_beyond_replay_is_answered_502() -> None:
    big = REPLAY + 1
    p = play().client(POST.replace(b"5", b"%d" % (big + 5)) + b"a" * big).peer_reset(1)
    answer = p.answer
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n") and answer.endswith(FAILED)
    assert p.log[-1] == "eof -1"
    p.client(b"aaaaa")


def test_502_when_the_rule_says_so() -> None:
    p = Play([rule(down="502", **ME)]).client(MINE).peer_reset(1)
    assert p.answer.startswith(b"HTTP/1.1 502 ")


def test_a_last_request_is_asked_again_too() -> None:
    request = b"GET / HTTP/1.0\r\nX-User: me\r\n\r\n"
    p = play().client(request).peer_reset(1)
    assert (p.spliced, p.pod) == (POD, request)


def test_the_target_closes_what_it_served() -> None:
    p = play().client(GET).peer(POD, OK).peer_eof(POD)
    assert p.log == ["open 0", "eof -1", "splice 0"]
    p = play().client(GET).peer(POD, OK).peer_reset(POD)
    assert p.log[-1] == "reset -1"
    p = play().peer_eof(POD)
    assert p.log == ["open 0", "eof -1", "splice 0"]
    p = play().peer_reset(POD)
    assert p.log == ["open 0", "reset -1"]


def test_the_target_may_leave_while_a_session_serves() -> None:
    p = play().client(GET).peer(POD, OK).client(MINE).peer_eof(POD).peer(1, OK)
    assert p.log == ["open 0", "open 1", "close 0"]
    p.client(GET)
    assert p.log[-1] == "open 0"
    assert p.pod == GET + GET


def test_an_idle_sessions_end_gives_the_connection_to_the_target() -> None:
    p = play().client(MINE).peer(1, OK).peer_eof(1)
    assert p.log == ["open 0", "close 0", "open 1", "close 1", "open 0"]
    assert p.peer_eof(POD).log[-2:] == ["eof -1", "splice 0"]


def test_a_connection_kept_idle_for_a_session_may_be_stale() -> None:
    p = play().client(GET).peer(POD, OK).client(MINE).peer(1, OK).client(GET).peer_eof(POD)
    assert p.pod == GET * 3
    assert p.log[-2:] == ["close 0", "open 0"]
    assert p.peer(POD, OK).answer == OK * 3
    p.client(GET).peer_eof(POD)  # this one isn't
    assert p.log[-3:] == ["eof -1", "close 1", "splice 0"]


def test_a_client_that_ends_its_half() -> None:
    p = play().client(GET).client_eof()
    assert p.log == ["open 0", "eof 0", "splice 0"]
    p = play().client(MINE).client_eof()
    assert p.log[-1] == "eof 1"
    p.peer(1, OK)
    assert (p.answer, p.log[-2:]) == (OK, ["eof -1", "close 1"])
    assert p.router.done
    p = play().client(MINE + GET).client_eof()
    assert p.log[-1] == "open 1"
    p.peer(1, OK)
    assert (p.pod, p.log[-2:]) == (GET, ["open 0", "eof 0"])


def test_a_client_that_ends_within_a_head_or_body() -> None:
    p = play().client(MINE[:-1]).client_eof()
    assert (p.pod, p.log) == (MINE[:-1], ["open 0", "eof 0", "splice 0"])
    p = play().client(POST + b"12").client_eof()
    assert p.log[-1] == "eof 1"


def test_a_client_that_goes() -> None:
    assert play().client(GET).peer(POD, OK).client(MINE).client_reset().log[-2:] == ["reset 0", "reset 1"]


def test_more_than_an_answer() -> None:
    p = play().client(GET).peer(POD, OK + b"more")
    assert (p.answer, p.spliced) == (OK + b"more", POD)
    p = play().client(MINE).peer(1, OK + b"HTTP/1.1 200 more")
    assert p.spliced is None
    p.client(GET)
    assert p.pod == b""
    p.peer_eof(1)
    assert p.log[-2:] == ["eof -1", "close 1"]
    p = play().client(MINE).peer(1, OK).peer(1, b"unasked")
    assert (p.answer, p.log[-1]) == (OK, "close 1")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", b"what?\r\n\r\n",
     b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b"HTTP/1.1 101 Why\r\n\r\nabc"],
)  # fmt: skip
def test_answers_of_two_opinions(answer: bytes) -> None:
    p = play().client(GET).peer(POD, answer)
    assert (p.spliced, p.answer) == (POD, answer)
    p = play().client(MINE).peer(1, answer)
    assert (p.spliced, p.answer) == (None, answer)
    p.client(GET).peer_eof(1)
    assert (p.pod, p.log[-2:]) == (b"", ["eof -1", "close 1"])


def test_an_early_answer_does_not_end_the_request() -> None:
    p = play().client(POST + b"12").peer(1, OK)
    assert p.answer == OK
    p.client(b"345" + GET)
    assert (p.take(1), p.pod) == (POST + b"12345", GET)


def test_first_match_in_order_of_registration() -> None:
    rules = [rule(3, path="^/a"), rule(1, header="x-user: me")]
    p = Play(rules).client(MINE)
    assert p.take(3) == MINE
    del rules[0]
    p.peer(3, OK).client(MINE)
    assert p.take(1) == MINE
    rules.clear()
    p.peer(1, OK).client(MINE)
    assert (p.spliced, p.pod) == (POD, MINE)


def test_probes_are_the_targets() -> None:
    probe = b"GET /healthz HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.33\r\n\r\n"
    assert play(path="/").client(probe).pod == probe
    assert play(path="/", probes=True).client(probe).take(1) == probe


BODY = {"body": {"body": "json", "query": "$.user", "matches": "^me$"}}


def post(body: bytes, extra: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (len(body), extra) + body


def test_a_body_decides(step: int) -> None:
    p = play(**BODY)
    for user, to in (("me", 1), ("you", POD), ("me", 1)):
        request = post(b'{"user": "%s"}' % user.encode())
        assert p.client(request, step).take(to) == request
        p.peer(to, OK)
    chunked = b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"use\r\n8\r\nr":"me"}\r\n0\r\n\r\n'
    assert p.client(chunked + GET, step).take(1) == chunked
    assert p.peer(1, OK).pod.endswith(GET)


@pytest.mark.parametrize(
    "request_",
    [post(b'{"user":"me","x":"' + b"y" * 70000 + b'"}'), post(b'{"user":"me"}', b"Expect: 100-continue\r\n"), post(b""),
     post(b'{"user":"me"}', b"Content-Encoding: gzip\r\n"), GET, post(b"not json"), post(b"[" * 50000)],
)  # fmt: skip
def test_bodies_that_never_match(request_: bytes, step: int) -> None:
    step = step and 500
    assert play(**BODY).client(request_, step).pod == request_


def test_a_body_is_waited_for_a_moment() -> None:
    request = post(b'{"user":"me"}')
    p = play(**BODY).client(request[:-3])
    assert (p.timer, p.pod) == (1.0, b"")
    assert p.timeout().pod == request[:-3]
    assert p.client(request[-3:]).pod == request[-3:]
    p.peer(POD, OK).client(request)
    assert p.take(1) == request


def test_a_long_chunked_body_is_not_waited_for() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    p = play(**BODY).client(head)
    for _ in range(200):
        p.client(b"400\r\n" + b"a" * 1024 + b"\r\n")
    assert len(p.pod) == len(head) + 200 * (1024 + 7)


def test_the_client_is_read_no_faster_than_its_program_reads() -> None:
    p = play().client(POST.replace(b"5", b"500000")).blocked(1)
    assert p.paused == {CLIENT}
    assert p.ready(1).paused == set()
    p.blocked(POD)
    assert p.paused == set()
    p.blocked(CLIENT)
    assert p.paused == {1}
    assert p.ready(CLIENT).paused == set()
    p.blocked(1).peer_reset(1)  # the target takes over, and reads
    assert p.paused == set()


def test_pipelined_requests_are_bounded() -> None:
    p = play().client(MINE)
    while not p.paused:
        p.client(GET)
    assert p.paused == {CLIENT}
    waiting = MAX_WAITING // len(GET) + 1
    p.peer(1, OK)
    for _ in range(waiting):
        p.peer(POD, OK)
    assert p.paused == set()
    assert p.pod == GET * waiting
