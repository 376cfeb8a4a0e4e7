"""What the keeper is to do: plain data, so that the session can import it without all of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidestage.config.schema import Agent
from sidestage.targets.spec import TargetSpec

EXEC_MAX_DATA = 32 << 10  # bytes in a data frame on the exec stream: no control message waits behind more


@dataclass(frozen=True, slots=True)
class Plan:
    target: TargetSpec
    session: str
    agent: Agent
    features: frozenset[str]  # files, write, unix, mirror, steal: what the agent needs rights for
    kubeconfig: str = ""
    context: str = ""
    insecure: bool | None = None  # any certificate of the API server will do; None: as the kubeconfig says
    kubectl: bool = False  # kubectl logs in
    limits: dict[str, float] = field(default_factory=dict)  # heartbeat and silence, for the agent
    pool: str = ""  # the pool that lends Jobs (pool.py); empty: this session makes its own
