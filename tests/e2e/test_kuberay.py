"""deploy/kuberay.yaml is docker-compose.yml on Kubernetes: the same commands, settings and secrets.

No Kubernetes is at hand where this is tested. With ATTUNE_KUBERAY_CRD naming a copy of KubeRay's
`ray.io_rayclusters.yaml`, the RayCluster is held against its schema too, in which unknown fields are refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.e2e.house import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text()))
SECRETS = {
    "attune-database": {"ATTUNE_DATABASE_URL"},
    "attune-ray": {"RAY_AUTH_TOKEN"},
    "attune-api": {"ATTUNE_TOKEN"},
    "attune-messages": {name for name in COMPOSE["dispatcher"]["environment"] if name.startswith("ATTUNE_SMTP_")}
    | {"ATTUNE_HOOK_HOSTS"},
}
"""What the manifest's own instructions put into each Secret."""
ONLY_HERE = {"ATTUNE_AUTOSCALE"}


def the(kind: str, name: str) -> dict[str, Any]:
    [found] = [item for item in OBJECTS if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def pod_templates() -> dict[str, dict[str, Any]]:
    """Pod templates by the name of docker-compose's service."""
    cluster = the("RayCluster", "attune")["spec"]
    return {
        "migrate": the("Job", "attune-migrate")["spec"]["template"],
        "ray-head": cluster["headGroupSpec"]["template"],
        "worker": cluster["workerGroupSpecs"][0]["template"],
        "dispatcher": the("Deployment", "attune-dispatcher")["spec"]["template"],
        "api": the("Deployment", "attune-api")["spec"]["template"],
    }


def variables(container: dict[str, Any]) -> set[str]:
    """The names of all environment variables that a container gets."""
    names = {item["name"] for item in container.get("env", [])}
    for source in container.get("envFrom", []):
        names |= SECRETS[source["secretRef"]["name"]]
    return names


def test_every_service_has_its_pod() -> None:
    assert pod_templates().keys() == COMPOSE.keys() - {"postgres"}


@pytest.mark.parametrize("service", sorted(pod_templates()))
def test_a_pod_runs_its_services_own_command_with_its_variables(service: str) -> None:
    [container] = pod_templates()[service]["spec"]["containers"]
    assert container["command"] == COMPOSE[service]["command"]
    assert variables(container) - ONLY_HERE == COMPOSE[service]["environment"].keys()
    mounted = {
        (mount["mountPath"], mount.get("readOnly", False))
        for mount in container.get("volumeMounts", [])
        if mount["mountPath"] != "/dev/shm"
    }
    wanted = COMPOSE[service].get("volumes", [])
    assert mounted == {(volume["target"], volume.get("read_only", False)) for volume in wanted}


def test_the_same_places_and_names() -> None:
    for service, template in pod_templates().items():
        for item in template["spec"]["containers"][0].get("env", []):
            if item["name"] not in ONLY_HERE | {"ATTUNE_ALLOWED_HOSTS", "ATTUNE_HOOK_HOSTS"}:
                assert item["value"] == COMPOSE[service]["environment"][item["name"]], item["name"]
    assert the("RayCluster", "attune")["spec"]["headGroupSpec"]["headService"]["metadata"]["name"] == "ray-head"
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for template in pod_templates().values()
        for volume in template["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    assert claims == {item["metadata"]["name"] for item in OBJECTS if item["kind"] == "PersistentVolumeClaim"}


def test_selectors_find_their_pods() -> None:
    for name in ("attune-dispatcher", "attune-api"):
        spec = the("Deployment", name)["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    labels = the("Deployment", "attune-api")["spec"]["template"]["metadata"]["labels"]
    assert the("Service", "attune")["spec"]["selector"] == labels


def test_the_head_offers_no_cpu_and_workers_have_bounds_and_gpus() -> None:
    spec = the("RayCluster", "attune")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [group] = spec["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    [container] = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def strict(schema: Any) -> Any:
    """The schema as a server applies it with field validation: unknown fields are refused, quantities are either."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {name: strict(item) for name, item in schema.items()}
    open_ended = schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and not open_ended:
        made["additionalProperties"] = False
    return made


@pytest.mark.skipif("ATTUNE_KUBERAY_CRD" not in os.environ, reason="ATTUNE_KUBERAY_CRD names no copy of KubeRay's CRD")
def test_the_ray_cluster_is_one_by_kuberays_own_schema() -> None:
    crd = yaml.load(Path(os.environ["ATTUNE_KUBERAY_CRD"]).read_text(), yaml.CSafeLoader)
    [schema] = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1"]
    validator = jsonschema.Draft202012Validator(
        strict(schema) | {"properties": {**strict(schema)["properties"], "metadata": {"type": "object"}}}
    )
    cluster = the("RayCluster", "attune")
    assert [error.message for error in validator.iter_errors(cluster)] == []
    wrong = {**cluster, "spec": {**cluster["spec"], "workerGroups": []}}
    assert list(validator.iter_errors(wrong)), "the schema refuses nothing"
