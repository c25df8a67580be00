# SPDX-License-Identifier: Apache-2.0
"""The Helm chart: values to the schema, and what it makes is valid, confined and without secrets.

Without helm the templates are looked at as text; with it they are rendered, and the result is looked at. The resources
themselves are judged by the schemas of Kubernetes where the package kubernetes-validate is installed.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pq_registry.settings import SETTINGS
from tests.deploy.tooling import DEPLOY, needs, run

CHART = DEPLOY / "helm" / "pq-registry"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
EXAMPLE = yaml.safe_load((CHART / "ci" / "example-values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = sorted((CHART / "templates").iterdir())
KUBERNETES = ("1.29", "1.32")


def merged(base: Any, over: Any) -> Any:
    """As helm merges values."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def refusals(values: Any) -> set[str]:
    return {"/".join(map(str, error.path)) for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(values)}


def test_the_example_is_to_the_schema_and_the_defaults_lack_only_what_must_be_given() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert not refusals(merged(VALUES, EXAMPLE))
    assert refusals(VALUES) == {
        "image/repository", "image/digest", "hosts", "database/existingSecret", "storage/url", "storage/endpoint",
        "storage/existingSecret", "log/existingSecret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("image.digest", "latest"),
        ("image.tag", "v1"),
        ("replica", 2),
        ("replicas", 0),
        ("storage.url", "https://bucket"),
        ("storage.endpoint", "https://user:password@s3.example.org"),
        ("settings.extra", {"PQREG_DATABASE": "postgresql://u:p@h/d"}),
        ("settings.extra", {"AWS_SECRET_ACCESS_KEY": "x"}),
        ("database.url", "postgresql://u:p@h/d"),
        ("log.existingSecret", "Not A Name"),
        ("jobs.fsck.schedule", "daily"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(where: str, value: Any) -> None:
    over: Any = value
    for part in reversed(where.split(".")):
        over = {part: over}
    assert refusals(merged(merged(VALUES, EXAMPLE), over)), where


def test_every_value_is_used_and_every_used_value_exists() -> None:
    text = "\n".join(path.read_text() for path in TEMPLATES)
    used = set(re.findall(r"\.Values\.([A-Za-z.]+)", text))
    for name in used:
        at: Any = VALUES
        for part in name.split("."):
            assert part in at, name
            at = at[part]
    for name, value in leaves(VALUES):
        if name.split(".")[0] in ("networkPolicy", "jobs"):  # read through a variable
            assert f".{name.split('.')[-1]}" in text, name
        else:
            assert any(name == one or name.startswith(f"{one}.") for one in used), name
        assert value is None or isinstance(value, str | int | bool | list | dict)


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in ("resources", "requests", "limits"):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_settings_of_the_pods_exist() -> None:
    known = {setting.variable: setting for setting in SETTINGS}
    named = set(re.findall(r"\bPQREG_[A-Z0-9_]+", (CHART / "templates" / "_pod.tpl").read_text()))
    named |= set(EXAMPLE["settings"]["extra"])
    assert named <= set(known)
    assert not [name for name in named if known[name].secret]
    secret = {name for name, setting in known.items() if setting.secret}
    extra = SCHEMA["properties"]["settings"]["properties"]["extra"]
    assert set(extra["propertyNames"]["not"]["enum"]) == secret


def test_the_alerts_of_the_chart_are_those_of_the_project() -> None:
    for path in (DEPLOY / "prometheus").glob("*.rules.yml"):
        assert (CHART / "rules" / path.name).resolve() == path


# -- rendered ----------------------------------------------------------------------------------------------------------


@cache
def rendered(*more: str) -> list[Any]:
    words = ["template", "site", str(CHART), "--values", str(CHART / "ci" / "example-values.yaml")]
    done = run("helm", *words, "--kube-version", "1.32", *more)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pods() -> Iterator[tuple[str, Any]]:
    for document in rendered():
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", {}).get("template") or spec.get("template")
        if template:
            yield document["metadata"]["name"], template


@needs("helm")
def test_helm_lints_and_renders_everything() -> None:
    run("helm", "lint", "--strict", CHART, "--values", CHART / "ci" / "example-values.yaml")
    kinds = [document["kind"] for document in rendered()]
    assert sorted(kinds) == sorted(
        ["ConfigMap", "CronJob", "CronJob", "CronJob", "CronJob", "Deployment", "Ingress", "NetworkPolicy",
         "PodDisruptionBudget",
         "PrometheusRule", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor"]
    )  # fmt: skip
    assert "existingSecret" in run("helm", "template", "site", CHART, "--kube-version", "1.32", status=1).stderr


@needs("helm")
def test_resources_are_to_the_schemas_of_kubernetes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kubernetes_validate = pytest.importorskip("kubernetes_validate")
        for document in rendered():
            if not document["apiVersion"].startswith("monitoring.coreos.com/"):
                for version in KUBERNETES:
                    kubernetes_validate.validate(document, version, strict=True)


@needs("helm")
def test_every_pod_is_confined() -> None:
    found = dict(pods())
    assert set(found) == {"site", "site-fsck", "site-gc", "site-backup", "site-events"}
    for name, template in found.items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec["initContainers"], *spec["containers"]]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])
            assert container["resources"]["limits"]["memory"]
            for mount in container["volumeMounts"]:
                assert mount["name"] in {volume["name"] for volume in spec["volumes"]}, f"{name}: {mount}"
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


@needs("helm")
def test_no_secret_is_in_what_is_rendered() -> None:
    assert not [document for document in rendered() if document["kind"] == "Secret"]
    for _, template in pods():
        for container in template["spec"]["containers"]:
            for variable in container["env"]:
                assert not re.search(r"(?i)password|secret_access|token", variable["name"])


@needs("helm")
def test_probes_name_a_host_the_service_answers_to_and_monitoring_reaches_each_pod() -> None:
    container = dict(pods())["site"]["spec"]["containers"][0]
    for kind, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        asked = container[kind]["httpGet"]
        assert asked["path"] == path
        assert asked["httpHeaders"] == [{"name": "Host", "value": "models.example.org"}]
    hosts = next(variable["value"] for variable in container["env"] if variable["name"] == "PQREG_HOSTS")
    assert hosts == "models.example.org,$(POD_IP)"


@needs("helm")
def test_selectors_find_the_pods_of_the_service_and_no_jobs() -> None:
    found = {document["kind"]: document for document in rendered()}
    labels = {name: template["metadata"]["labels"] for name, template in pods()}
    for selector in (
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["Deployment"]["spec"]["selector"]["matchLabels"],
    ):
        matched = [name for name, given in labels.items() if selector.items() <= given.items()]
        assert matched == ["site"]
    everyone = found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert all(everyone.items() <= given.items() for given in labels.values())


@needs("helm")
@pytest.mark.parametrize(
    "left_out", ["networkPolicy.from=[]", 'log.witnessesPolicy=""', 'adminToken.existingSecret=""']
)
def test_parts_can_be_left_out(left_out: str) -> None:
    assert len(rendered("--set-json", left_out)) >= len(rendered()) - 1


def test_the_chart_is_of_this_version() -> None:
    import pq_registry

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == pq_registry.__version__
    assert Path(CHART.name).name == chart["name"]
