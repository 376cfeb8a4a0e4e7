"""Jobs that services share: made ahead with all rights of a node's services, lent over real sockets, removed after the last.

The API answers as told; the pool is the real one, in a thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidestage.cluster import launch, lease, pool, sharing
from sidestage.cluster.errors import ApiError, ClusterError
from sidestage.cluster.launch import Cancelled, Created
from sidestage.cluster.plan import Plan
from sidestage.cluster.pods import PodTarget
from sidestage.config.schema import Agent
from sidestage.targets.spec import TargetSpec

JOBS = "/apis/batch/v1/namespaces/shop/jobs"
ON_NODE2 = ("far",)


class Api:
    """Every pod is there and runs, every Job is made at once."""

    namespace = "shop"

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.warnings: list[str] = []
        self.refusal: Exception | None = None
        self.alive = True
        self.slow = threading.Event()
        self.slow.set()

    def request(self, method: str, path: str, *, query: Any = None, body: Any = None, **_: Any) -> Any:
        if method == "POST":
            if self.refusal:
                raise self.refusal
            self.made.append(body)
        elif method == "DELETE":
            self.deleted.append(path.rpartition("/")[2])
        elif query and "labelSelector" in query:
            return {"items": [_pod("agent-x")] if self.alive else []}
        elif path.startswith("/api/v1/namespaces/shop/pods/"):
            name = path.rpartition("/")[2]
            if name == "lost":
                self.slow.wait(30)
                raise ApiError(404, "NotFound", "no such pod")
            return _pod(name)
        else:
            raise ApiError(404, "NotFound", path)
        return {}

    def watch(self, _path: str, *, query: Any, timeout: float) -> Iterator[dict[str, Any]]:
        if self.slow.wait(timeout):
            yield {"type": "ADDED", "object": _pod("agent-of-" + query["labelSelector"].partition("=")[2], "agent")}

    def rights(self, number: int = 0) -> list[str]:
        security = self.made[number]["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        return list(security["capabilities"]["add"])


def _pod(name: str, container: str = "") -> dict[str, Any]:
    container = container or ("agent" if name == "agent-x" else "app")
    status = {"name": container, "state": {"running": {}}, "containerID": "containerd://" + "a" * 64, "ready": True}
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"nodeName": "node2" if name in ON_NODE2 else "node1", "containers": [{"name": container}]},
        "status": {"phase": "Running", "containerStatuses": [status], "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Up:
    """A pool, and what its services do."""

    def __init__(self, api: Api, plans: list[Plan]) -> None:
        self.api, self.name = api, uuid.uuid4().hex[:16]
        self.ours, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        listener.bind(lease.address(self.name))
        listener.listen(64)
        self._kept = [theirs, listener]
        self._taken: list[Created] = []
        made = pool.Pool(theirs, listener, self.name, plans, {sharing.access(each): api for each in plans})  # type: ignore[misc]
        self.thread = threading.Thread(target=made.run, daemon=True)
        self.thread.start()

    def take(
        self, name: str, *features: str, agent: Agent | None = None, say: Callable[[str, str], None] = lambda *_: None
    ) -> Created:
        created = Created(1)
        asked = plan(name, *features, agent=agent, pool=self.name)
        target = PodTarget("shop", name, name, "node2" if name in ON_NODE2 else "node1", "app", "containerd://a", {})
        lease.take(asked, created, target, say)
        self._taken.append(created)
        return created

    def give_back(self, created: Created) -> None:
        launch.remove(self.api, created)  # type: ignore[arg-type]

    def jobs(self) -> list[str]:
        return [each["job"].rpartition("/")[2] for each in lease.jobs(self.name)]

    def end(self) -> None:
        self.ours.close()

    def close(self) -> None:
        self.end()
        self.api.slow.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        for sock in (*self._kept, *(each.lease for each in self._taken if each.lease)):
            sock.close()


def plan(name: str, *features: str, agent: Agent | None = None, pool: str = "") -> Plan:
    return Plan(TargetSpec("pod", name), name, agent or Agent(), frozenset(features), pool=pool)


Start = Callable[..., Up]


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(pool, "END_SECONDS", 0.5)
    started: list[Up] = []

    def start(*plans: Plan) -> Up:
        started.append(Up(Api(), list(plans)))
        monkeypatch.setattr(pool, "connect", lambda *_: started[-1].api)
        return started[-1]

    yield start
    for each in started:
        each.close()


def soon(probe: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_job_a_node_with_the_rights_of_all_that_are_there(up: Start) -> None:
    run = up(plan("a", "files"), plan("b", "mirror"), plan("far", "steal"))
    taken = [run.take("a", "files"), run.take("b", "mirror"), run.take("far", "steal")]
    assert len({each.job for each in taken[:2]}) == 1
    assert taken[2].job != taken[0].job
    assert all(each.guard and each.pod.startswith("agent-of-") and each.container == "agent" for each in taken)
    nodes = {each["spec"]["template"]["spec"]["nodeName"]: number for number, each in enumerate(run.api.made)}
    assert run.api.rights(nodes["node1"]) == ["DAC_READ_SEARCH", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"]
    assert run.api.rights(nodes["node2"]) == ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]
    assert {each["metadata"]["labels"]["sidestage.dev/session"] for each in run.api.made} == {run.name}
    about = {each["node"]: each["sessions"] for each in lease.jobs(run.name)}
    assert about == {"node1": ["a", "b"], "node2": ["far"]}


def test_who_starts_again_gets_the_same_job(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    first = run.take("a")
    run.give_back(first)
    again = run.take("a")
    assert again.job == first.job
    assert (len(run.api.made), run.api.deleted) == (1, [])


def test_a_job_that_nobody_has_any_more_is_removed(up: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LINGER", 0.1)
    run = up(plan("a"), plan("b"))
    one, two = run.take("a"), run.take("b")
    run.give_back(one)
    time.sleep(0.4)
    assert run.api.deleted == [], "one of two still has it"
    run.give_back(two)
    soon(lambda: run.api.deleted == [one.job.rpartition("/")[2]])
    assert run.jobs() == []
    assert run.take("a").job != one.job


def test_what_was_made_ahead_for_nobody_is_removed(up: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FIRST", 0.1)
    run = up(plan("a"), plan("b"))
    soon(lambda: (len(run.api.made), len(run.api.deleted)) == (1, 1))


def test_who_comes_late_hears_what_is_waited_for(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    run.api.slow.clear()
    soon(lambda: run.api.made)
    said: list[str] = []

    def say(_kind: str, text: str) -> None:
        said.append(text)
        run.api.slow.set()

    created = run.take("a", say=say)
    assert created.pod
    assert said[0] == "creating the agent on node1"


def test_wider_needs_get_a_job_of_their_own(up: Start) -> None:
    run = up(plan("a", "files"), plan("b", "files"))
    one = run.take("a", "files")
    wide = run.take("b", "files", "steal")
    assert (wide.job == one.job, "NET_ADMIN" in run.api.rights(0), "NET_ADMIN" in run.api.rights(1)) == (False, False, True)
    assert run.take("a", "files").job == one.job


def test_another_agent_pod_is_another_job(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    assert run.take("a").job != run.take("b", agent=Agent(privileged=True)).job
    assert run.take("b", agent=Agent(heartbeat=1.0)).job == run.take("a").job


def test_a_job_whose_pod_has_ended_is_not_lent_again(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    one = run.take("a")
    run.api.alive = False
    two = run.take("b")
    assert two.job != one.job
    soon(lambda: one.job.rpartition("/")[2] in run.api.deleted)
    run.api.alive = True
    assert run.take("a").job == two.job


def test_a_refusal_is_told_to_all_and_tried_again_later(up: Start) -> None:
    run = up(plan("lost"), plan("lost"))  # nothing is made ahead
    run.api.refusal = ApiError(403, "Forbidden", 'jobs "x" is forbidden: exceeded quota: small')
    for name in ("a", "b"):
        with pytest.raises(ClusterError, match="exceeded quota"):
            run.take(name)
    run.api.refusal = None
    assert run.take("a").job.startswith(f"{JOBS}/sidestage-{run.name}")


def test_a_target_that_is_not_found_keeps_nobody(up: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PLAN_SECONDS", 0.3)
    run = up(plan("a"), plan("lost"))
    run.api.slow.clear()
    threading.Timer(1.5, run.api.slow.set).start()
    assert run.take("a").job


def test_at_the_end_all_is_removed(up: Start) -> None:
    run = up(plan("a"), plan("far"))
    soon(lambda: len(run.api.made) == 2)
    run.end()
    run.thread.join(20)
    assert len(run.api.deleted) == 2


def test_at_the_end_services_have_time_but_not_for_ever(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    one = run.take("a")
    run.end()
    with pytest.raises(ClusterError, match="is ending"):
        run.take("b")
    run.thread.join(20)
    assert run.api.deleted == [one.job.rpartition("/")[2]]


def test_the_end_of_a_job_that_is_being_made(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    run.api.slow.clear()
    soon(lambda: run.api.made)
    run.end()
    run.thread.join(20)
    assert len(run.api.deleted) >= 1


def test_a_session_that_ends_meanwhile_waits_no_longer(up: Start) -> None:
    run = up(plan("a"), plan("b"))
    run.api.slow.clear()
    created = Created(1)
    created.cancelled.set()
    with pytest.raises(Cancelled):
        lease.take(plan("a", pool=run.name), created, PodTarget("shop", "a", "a", "node1", "app", "", {}), lambda *_: None)


@pytest.mark.parametrize("data", [b"nonsense", b'{"node": 1}', b"[]"])
def test_nonsense_gets_no_answer(up: Start, data: bytes) -> None:
    run = up(plan("a"), plan("b"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect(lease.address(run.name))
        sock.send(data)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(99) == b""
    assert run.take("a").job


def test_without_a_pool_a_session_has_its_own_agent() -> None:
    api, created = Api(), Created(1)
    asked = plan("a", pool="nobody")
    notes = launch.beside(api, asked, created, PodTarget("shop", "a", "a", "node1", "app", "", {}), lambda *_: None)  # type: ignore[arg-type]
    assert (created.job, created.lease) == (f"{JOBS}/sidestage-a", None)
    assert "no agent is shared" in notes[0]
