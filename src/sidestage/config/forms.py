"""Other ways to write `target` and `agent`, written out: the object forms that mirrord's users know."""

from __future__ import annotations

from typing import Any

# Keys of a target's object form -> kind. https://metalbear.com/mirrord/docs/config/options#target
TARGET_KINDS = {
    "pod": "pod", "deployment": "deployment", "statefulset": "statefulset", "stateful_set": "statefulset",
    "replicaset": "replicaset", "replica_set": "replicaset", "daemonset": "daemonset", "daemon_set": "daemonset",
    "rollout": "rollout", "job": "job", "cronjob": "cronjob", "cron_job": "cronjob", "service": "service",
    "label": "label", "labels": "label", "process": "process",
}  # fmt: skip

SECURITY = {"seccomp_profile": "seccompProfile", "app_armor_profile": "appArmorProfile"}  # mirrord's, to Kubernetes' names


def target(value: Any) -> Any:
    """{path, namespace}. What is not understood stays, for the check of keys to name."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"path": value}
    if not isinstance(value, dict):
        return value
    inner = value.get("path", value)
    if not isinstance(inner, dict) or (inner is value and not TARGET_KINDS.keys() & value.keys()):
        return {key: item for key, item in value.items() if item is not None}
    kinds = [key for key in inner if key in TARGET_KINDS]
    if len(kinds) != 1:
        return {"path": inner}
    name = inner[kinds[0]]
    if isinstance(name, dict):  # labels
        name = ",".join(f"{key}={item}" for key, item in name.items())
    text = f"{TARGET_KINDS[kinds[0]]}/{name}" + (f"/container/{inner['container']}" if inner.get("container") else "")
    others = {key: item for key, item in {**inner, **value}.items() if key not in (kinds[0], "container", "path")}
    return {"path": text, **others}


def agent(value: Any) -> Any:
    """image {registry, tag}, image_pull_secrets [{name}], security_context's profiles in mirrord's spelling."""
    if not isinstance(value, dict):
        return value
    found = dict(value)
    image = found.get("image")
    if isinstance(image, dict) and image.get("registry") and image.keys() <= {"registry", "tag"}:
        found["image"] = f"{image['registry']}:{image['tag']}" if image.get("tag") else image["registry"]
    secrets = found.get("image_pull_secrets")
    if isinstance(secrets, list):
        found["image_pull_secrets"] = [
            item["name"] if isinstance(item, dict) and item.keys() == {"name"} else item for item in secrets
        ]
    context = found.get("security_context")
    if isinstance(context, dict):
        found["security_context"] = {SECURITY.get(key, key): item for key, item in context.items()}
    return found


OTHER_FORMS = {"target": target, "agent": agent}
