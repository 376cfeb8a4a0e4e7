"""What kubectl's words mean, where all that we have of the API server is what kubectl says of it."""

from __future__ import annotations

import pytest

from sidestage.cluster.channels import Piped
from sidestage.cluster.commands import refusal
from sidestage.cluster.errors import ApiError


@pytest.mark.parametrize(
    "said, status, message",
    [
        ('Error from server (NotFound): pods "x" not found\n', 404, 'pods "x" not found'),
        ('Error from server (Forbidden): jobs is forbidden: "u"\nmay not\n', 403, 'jobs is forbidden: "u" may not'),
        ("Warning: old\nError from server (AlreadyExists): it is there\n", 409, "it is there"),
        ("error: You must be logged in to the server (Unauthorized)\n", 401, ""),
        ("Error from server (SomethingNew): hm\n", 500, "hm"),
    ],
)  # fmt: skip
def test_a_refusal_of_the_server(said: str, status: int, message: str) -> None:
    error = refusal(said)
    assert isinstance(error, ApiError)
    assert (error.status, error.message) == (status, message)


@pytest.mark.parametrize("said", ["", "Unable to connect to the server: dial tcp: no route\n", "ssh: bastion: no such host\n"])
def test_what_is_no_answer_of_the_server(said: str) -> None:
    error = refusal(said)
    assert not isinstance(error, ApiError)
    assert said.strip() in error.cause


@pytest.mark.parametrize(
    "words, stderr, code, message",
    [
        ("", "", None, None),
        ("there is no process 7\ncommand terminated with exit code 97\n", "there is no process 7", 97, None),
        ('error: exec: "python3": executable file not found in $PATH\n', None, None, "python3"),
    ],
)
def test_the_end_of_a_command(words: str, stderr: str | None, code: int | None, message: str | None) -> None:
    piped = Piped(lambda: words)
    assert stderr is None or piped.stderr == stderr
    assert piped.exit_code() == code
    assert (message or "") in str(piped.status().get("message", ""))
    assert bool(piped.status()) is (message is not None)
    assert (piped.feed(b"a"), piped.wrap(b"b"), piped.finish()) == ([b"a"], [b"b"], [])
