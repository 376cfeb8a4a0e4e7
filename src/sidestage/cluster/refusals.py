"""Why a cluster refuses an agent, read off its words: those of an answer, of a warning or of an event are the same. Pure.

Each pattern is the API server's own text, of the source file named beside it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sidestage.cluster.errors import ApiError, ClusterError


class Denied(NamedTuple):
    """What RBAC (or another authorizer) would not allow."""

    verb: str
    resource: str  # with its subresource: pods/exec
    group: str
    namespace: str


# k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go: forbiddenMessage
_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_KNOWN: tuple[tuple[str, str], ...] = (
    # k8s.io/pod-security-admission/admission/admission.go
    (r'violates? PodSecurity "(?P<level>[^"]+)"',
     "use --in-container or -e (ephemeral, which fits every level), or a namespace that allows more: --agent-namespace NS"),
    # k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go
    (r"exceeded quota:|failed quota:", "set agent.resources within the quota, or use another namespace: --agent-namespace NS"),
    # plugin/pkg/admission/limitranger/admission.go
    (r"(maximum|minimum) \S+ usage per (Container|Pod)", "set agent.resources within the namespace's LimitRange"),
    # openshift/apiserver-library-go securitycontextconstraints
    (r"unable to validate against any security context constraint",
     "OpenShift: name a service account with the SCC in agent.service_account, or use --in-container"),
    # k8s.io/apiserver/pkg/admission/plugin/policy/validating
    (r"ValidatingAdmissionPolicy '(?P<name>[^']+)'", "a policy of the cluster forbids it: set what it asks for in agent.*"),
    # k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go
    (r'admission webhook "(?P<name>[^"]+)" denied', "a policy of the cluster forbids it: set what it asks for in agent.*"),
    (r'failed calling webhook "(?P<name>[^"]+)"', "an admission webhook of the cluster is down; ask its administrator"),
    (r"error looking up service account|serviceaccount \"?\S+\"? not found", "correct agent.service_account"),
    (r"no PriorityClass with name", "correct agent.priority_class"),
    (r"because it is being terminated", "the namespace is being deleted: choose another"),
    # github.com/opencontainers/runc: libcontainer/setns_init_linux.go and standard_init_linux.go, through os/exec
    (r"executable file not found|exec: .* no such file or directory",
     "name an image with Python 3.9 or later in agent.image (--agent-image), or its interpreter in agent.python"),
    # pkg/kubelet/events, k8s.io/kubernetes/pkg/kubelet/images
    (r"ImagePullBackOff|ErrImagePull|ErrImageNeverPull|InvalidImageName|Failed to pull image|Back-off pulling image",
     "correct agent.image (--agent-image), agent.image_pull_policy or agent.image_pull_secrets"),
    # kubernetes/pkg/scheduler/framework/types.go
    (r"nodes? (are|is) available|FailedScheduling|Insufficient \w+|OutOf(cpu|memory|pods)|Too many pods",
     "no room for the agent: lower agent.resources, add agent.tolerations, or use -e, which needs no pod of its own"),
    (r"CreateContainerConfigError|runAsNonRoot", "set agent.security_context to what the namespace asks for"),
)  # fmt: skip


def cure(text: str) -> str:
    """What to do about a refusal; empty if its words are not known."""
    for pattern, advice in _KNOWN:
        if re.search(pattern, text):
            return advice
    return ""


def denied(error: ApiError) -> Denied | None:
    """What a 403 of the authorizer is about; None for other refusals."""
    found = _RBAC.search(error.message) if error.status == 403 else None
    return Denied(found["verb"], found["resource"], found["group"], found["namespace"] or "") if found else None


def explained(error: ApiError, doing: str) -> ClusterError:
    """An admission's refusal with its cure, `doing` what was wanted; the error itself if it is no such."""
    known = cure(error.message)
    if not known or denied(error):
        return error
    return ClusterError(f"{doing} was refused: {shorter(error.message)}", known)


def of_warnings(warnings: list[str], doing: str) -> ClusterError | None:
    """Pod Security only warns of a Job and then refuses its pod: known before the pod is missed."""
    for text in warnings:
        if "would violate PodSecurity" in text:
            return ClusterError(f"{doing} will be refused: {shorter(text)}", cure(text))
    return None


def shorter(text: str, limit: int = 400) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
