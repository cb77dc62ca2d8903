"""The chart: rendered by helm with many values, held against Kubernetes' schemas, and to what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

import lb
from lb.config import Config, loads
from tests.certificates import write_pair
from tests.deploy.chart import (
    CHART,
    EXAMPLES,
    RELEASE,
    Objects,
    Values,
    configuration,
    helm,
    render,
    render_anew,
    template_of,
    with_values,
)
from tests.deploy.manifests import containers, must_be_known, must_be_restricted, must_find_its_volumes

STATIC = {"pools": {"api": {"backends": ["127.0.0.1:9001"]}}}
COMBINATIONS: dict[str, Values] = {
    **yaml.safe_load((Path(__file__).parent / "chart_values.yaml").read_text()),
    **{path.name: yaml.safe_load(path.read_text()) for path in EXAMPLES},
}
combinations = pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS.keys())


def checked(objects: Objects, directory: Path) -> Config:
    """The configuration as the balancer understands it. Certificates are some that there are."""
    text = objects["ConfigMap", RELEASE]["data"]["lb.yaml"]
    cert, key = write_pair(directory, trustme.CA(), "tls")
    return loads(text.replace("/etc/lb-tls/tls.crt", cert).replace("/etc/lb-tls/tls.key", key), "lb.yaml")


@combinations
def test_the_linter_finds_nothing(values: Values) -> None:
    assert "0 chart(s) failed" in with_values("lint", "--strict", values=values)


@combinations
def test_what_it_makes_is_good(values: Values, tmp_path: Path) -> None:
    there = render(values)
    must_be_known(there.values(), tmp_path)
    for (kind, _), each in there.items():
        if kind == "Deployment":
            pod = each["spec"]["template"]["spec"]
            must_be_restricted(pod)
            must_find_its_volumes(pod, there)
            (ours,) = [each for each in containers(pod) if each["name"] in ("lb", "greeter")][:1]
            ports = [port["containerPort"] for port in ours.get("ports", ())]
            assert len(set(ports)) == len(ports)


@combinations
def test_the_balancer_takes_its_configuration(values: Values, tmp_path: Path) -> None:
    there = render(values)
    config = checked(there, tmp_path)
    assert config.admin is not None
    assert not config.admin.bind.is_loopback
    for kind, name in there:
        if kind == "Deployment" and name == RELEASE:
            grace = template_of(there)["spec"]["terminationGracePeriodSeconds"]
            pause = values.get("preStopSleepSeconds", 0)
            others = 0 if values.get("mode", "front") == "front" else 30
            others = values.get("workload", {}).get("drainSeconds", others)
            assert grace >= config.drain.delay + config.drain.timeout + pause + others + 5


def test_lb_check_says_so_too(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text(render()["ConfigMap", RELEASE]["data"]["lb.yaml"])
    done = subprocess.run(
        [sys.executable, "-m", "lb.cli", "check", "-c", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_large_numbers_stay_what_they_are(tmp_path: Path) -> None:
    config = checked(render(COMBINATIONS["all switched off"]), tmp_path)
    assert config.max_connections == 1_000_000
    assert config.access_log is None
    assert config.request_records == 0
    assert config.watch is False


# --- what belongs together ---


@combinations
def test_services_lead_to_ports_that_are_there(values: Values) -> None:
    there = render(values)
    pods = [each["spec"]["template"] for (kind, _), each in there.items() if kind == "Deployment"]
    for (kind, _), service in there.items():
        if kind == "Service":
            labels = service["spec"]["selector"].items()
            (pod,) = [each["spec"] for each in pods if labels <= each["metadata"]["labels"].items()]
            names = [port["name"] for each in containers(pod) for port in each.get("ports", ())]
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= {*names}


@combinations
def test_each_of_them_selects_one_deployment(values: Values) -> None:
    """Pods of a Deployment are those that its budget and its scaling mean, and nobody else's."""
    there = render(values)
    pods = {
        name: template_of(there, name)["metadata"]["labels"] for kind, name in there if kind == "Deployment"
    }
    for (kind, name), each in there.items():
        if kind in ("Deployment", "PodDisruptionBudget"):
            labels = each["spec"]["selector"]["matchLabels"]
            assert [other for other in pods if labels.items() <= pods[other].items()] == [name]
        if kind == "HorizontalPodAutoscaler":
            assert each["spec"]["scaleTargetRef"]["name"] in pods
            assert "replicas" not in there["Deployment", name]["spec"]


def test_a_budget_says_one_of_the_two() -> None:
    def said(**values: Any) -> Any:
        spec = render({"podDisruptionBudget": values})["PodDisruptionBudget", "lb"]["spec"]
        return {name: each for name, each in spec.items() if name != "selector"}

    assert said() == {"maxUnavailable": 1}
    assert said(maxUnavailable="25%") == {"maxUnavailable": "25%"}
    assert said(maxUnavailable=None, minAvailable=2) == {"minAvailable": 2}
    assert said(maxUnavailable=0) == {"maxUnavailable": 0}


def test_the_monitor_finds_the_admin_port_and_the_token() -> None:
    there = render(COMBINATIONS["prometheus"])
    monitor = there["ServiceMonitor", "lb"]["spec"]
    labels = monitor["selector"]["matchLabels"]
    services = [name for (kind, name), each in there.items()
                if kind == "Service" and labels.items() <= each["metadata"]["labels"].items()]  # fmt: skip
    assert services == ["lb-admin"]
    token = monitor["endpoints"][0]["authorization"]["credentials"]
    assert token["key"] in there["Secret", token["name"]]["data"]
    annotations = template_of(there)["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9901"


# --- rights ---


def test_it_may_see_endpoints_where_its_configuration_asks_for_them_and_nothing_else() -> None:
    there = render(COMBINATIONS["other namespaces"])
    roles = {
        (each["metadata"]["namespace"], name): each["rules"]
        for (kind, name), each in there.items() if kind == "Role"
    }  # fmt: skip
    may = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]
    assert roles == {("here", "lb"): may, ("there", "here:lb"): may}
    for (kind, name), each in there.items():
        if kind == "RoleBinding":
            assert each["roleRef"]["name"] == name
            assert each["subjects"] == [{"kind": "ServiceAccount", "name": "lb", "namespace": "here"}]
    assert not [kind for kind, _ in there if kind.startswith("Cluster")]


def test_without_a_source_in_the_cluster_there_is_no_role_and_no_token_of_the_api_server() -> None:
    there = render({"config": STATIC})
    assert not [kind for kind, _ in there if kind.startswith("Role")]
    assert template_of(there)["spec"]["automountServiceAccountToken"] is False
    assert template_of(render())["spec"]["automountServiceAccountToken"] is True
    asked = render({"config": STATIC, "serviceAccount": {"automount": True}})
    assert template_of(asked)["spec"]["automountServiceAccountToken"] is True


# --- the admin token ---


def test_a_token_is_made_up_or_given_or_somebody_elses() -> None:
    one, other = (render_anew()["Secret", "lb-admin"]["data"]["token"] for _ in range(2))
    assert one != other
    assert len(one) >= 40
    assert render({"adminToken": {"value": "abc"}})["Secret", "lb-admin"]["data"] == {"token": "YWJj"}
    for values in ("a Secret", "a token from the environment"):
        assert not [kind for kind, _ in render(COMBINATIONS[values]) if kind == "Secret"]


def test_a_token_that_is_made_up_rolls_no_pods() -> None:
    first, second = render_anew(), render_anew()
    assert first.pop(("Secret", "lb-admin")) != second.pop(("Secret", "lb-admin"))
    assert first == second


def test_the_token_lies_where_the_configuration_looks() -> None:
    pod = template_of(render(COMBINATIONS["a Secret"]))["spec"]
    (volume,) = [each for each in pod["volumes"] if "secret" in each]
    assert volume["secret"]["secretName"] == "tokens"
    (item,) = volume["secret"]["items"]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    file = configuration(render())["admin"]["token"]["file"]
    assert (item["key"], f"{mount['mountPath']}/{item['path']}") == ("admin.token", file)


# --- what changes what ---


def rolls(one: Values, other: Values) -> bool:
    """Whether the step from one to the other replaces pods."""
    return template_of(render({"config": one})) != template_of(render({"config": other}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trusted_proxies": ["10.0.0.0/8"]}, False),
        ({"pools": {"other": {"backends": ["127.0.0.1:1"]}}}, False),
        ({"workers": 2}, True),  # can't be reloaded
        ({"registry": {"store": {"etcd": ["http://etcd:2379"]}}}, True),  # nor can this
        ({"registry": {"bind": "0.0.0.0:8500"}}, False),
        ({"watch": False}, True),
        ({"drain": {"timeout": "1m"}}, True),  # for the grace
    ],
)
def test_another_configuration_is_reloaded_where_it_can_be(change: Values, expected: bool) -> None:
    assert configuration(render())["watch"] is True
    assert rolls(STATIC, {**STATIC, **change}) is expected


def test_without_watch_it_rolls_the_pods() -> None:
    fixed = {**STATIC, "watch": False}
    assert not rolls(fixed, fixed)
    assert rolls(fixed, {**fixed, "trusted_proxies": ["10.0.0.0/8"]})


def test_selectors_never_change_and_a_new_chart_alone_rolls_no_pods(tmp_path: Path) -> None:
    helm("package", str(CHART), "--version=9.9.9+b.1", "--app-version=0.1.0", f"--destination={tmp_path}")
    (package,) = tmp_path.iterdir()
    values = {"adminToken": {"existingSecret": "a"}}
    before, after = render(values), render(values, chart=package)
    assert template_of(before) == template_of(after)
    assert before["Deployment", "lb"]["metadata"] != after["Deployment", "lb"]["metadata"]
    for change in COMBINATIONS.values():
        there = render({**change, "podLabels": {"app.kubernetes.io/instance": "evil"}})
        if ("Deployment", "lb") in there:
            spec = there["Deployment", "lb"]["spec"]
            assert spec["selector"] == before["Deployment", "lb"]["spec"]["selector"]
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


# --- names ---

LONG = "a" * 53  # what helm takes for a release


@pytest.mark.parametrize(
    ("release", "values"),
    [
        (LONG, {}),
        ("x", {"nameOverride": "n" * 80}),
        ("x", {"fullnameOverride": "f" * 80}),
        (LONG, {"nameOverride": "n" * 63, "mode": "sidecar-server"}),
        ("a.b", {}),
    ],
)
def test_names_fit(release: str, values: Values, tmp_path: Path) -> None:
    there = render({**values, "metrics": {"serviceMonitor": {"enabled": True}}}, release)
    must_be_known(there.values(), tmp_path)
    for (_, name), each in there.items():
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
        for value in each["metadata"]["labels"].values():
            assert len(value) <= 63


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        ("one", "other", {}),
        ("lb", "lb-two", {}),
        (LONG, LONG[:-1] + "b", {}),
        ("one", "other", {"nameOverride": "n" * 80}),
    ],
)
def test_two_releases_in_one_namespace_share_nothing(one: str, other: str, values: Values) -> None:
    first, second = render(values, one), render(values, other)
    assert not first.keys() & second.keys()
    for (kind, name), each in first.items():
        if kind == "Deployment":
            labels = each["spec"]["selector"]["matchLabels"]
            for item in second.values():
                if item["kind"] == "Deployment":
                    assert not labels.items() <= item["spec"]["template"]["metadata"]["labels"].items(), name


# --- the package ---


def test_the_versions_are_those_of_the_balancer() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (lb.__version__, lb.__version__)
    assert template_of(render())["spec"]["containers"][0]["image"] == f"lb:{lb.__version__}"


def test_it_is_packaged(tmp_path: Path) -> None:
    helm("package", str(CHART), f"--destination={tmp_path}")
    package = tmp_path / f"lb-{lb.__version__}.tgz"
    values = {"adminToken": {"existingSecret": "a"}}
    assert render(values, chart=package) == render(values)
    for what in ("values", "readme"):
        assert helm("show", what, str(package)).strip()


def test_another_chart_includes_the_sidecar_as_the_readme_says(tmp_path: Path) -> None:
    readme = (CHART / "README.md").read_text()
    needs, values, spec = re.findall(r"^```yaml\n(.*?)^```$", readme, re.M | re.S)
    (tmp_path / "lb").symlink_to(CHART)
    chart = tmp_path / "app"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 1.0.0\n" + needs)
    (chart / "values.yaml").write_text(values)
    pod = "kind: Deployment\nmetadata: {name: app}\nspec:\n  template:\n" + re.sub(
        r"^", "    ", spec, flags=re.M
    )
    (chart / "templates" / "app.yaml").write_text(pod.replace("| nindent 4 }}", "| nindent 8 }}"))
    helm("dependency", "build", str(chart))
    there = render(chart=chart, release="app")
    made: dict[str, Any] = template_of(there, "app")["spec"]
    (sidecar,) = made["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("lb", "Always")
    assert [kind for kind, _ in there if kind == "Deployment"] == ["Deployment"]
    must_find_its_volumes(made, there)
    assert ("ServiceAccount", made["serviceAccountName"]) in there
    assert made["automountServiceAccountToken"] is True
    assert made["terminationGracePeriodSeconds"] == 35
    assert list(configuration(there, "app-lb")["pools"]) == ["api"]
    assert made["securityContext"]["runAsNonRoot"] is True
