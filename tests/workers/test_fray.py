"""Laws of the fray adapter that need no cluster: which package it is, and what it asks of it."""

import pickle
import signal
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import ResourcesUnavailableError, UnpicklableError, WorkerError
from marin_trace.workers.client import JobRequest
from marin_trace.workers.fray import FrayClient
from marin_trace.workers.fray_engine import JobNews
from marin_trace.workers.fray_main import JobPayload, Place
from marin_trace.workers.fray_package import FrayPackage, load_fray
from marin_trace.workers.fray_request import fray_request
from marin_trace.workers.outcome import opened, sealed
from marin_trace.workers.resources import ResourceConfig
from tests.workers.iris_site import require_iris

# Which package it is. The modules are stand-ins on the path.

OLD_TYPES = """
from dataclasses import dataclass, field
from typing import Any

@dataclass
class ResourceConfig:
    cpu: float = 1
    preemptible: bool = True
    replicas: int = 1

@dataclass
class EnvironmentConfig:
    env_vars: dict = field(default_factory=dict)

@dataclass
class Entrypoint:
    call: Any
    args: Any
    @staticmethod
    def from_callable(call, args=()):
        return Entrypoint(call, args)

@dataclass
class JobRequest:
    name: str
    entrypoint: Any
    resources: Any
    environment: Any = None
    max_retries_failure: int = 0

def create_environment(**fields):
    return EnvironmentConfig(**fields)
"""
OLD_CURRENT = """
class Cluster: ...
class Iris:
    _cluster_client = Cluster()
class Client:
    _iris = Iris()
def current_client():
    return Client()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts modules in place of whatever is installed, by their file names."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"fray", "iris", "rigging"}]:
        monkeypatch.delitem(sys.modules, name)

    def put(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield put
    for name in [name for name in sys.modules if name.partition(".")[0] in {"fray", "iris", "rigging"}]:
        del sys.modules[name]


OLD = {
    "fray/__init__.py": "",
    "fray/types.py": OLD_TYPES,
    "fray/current_client.py": OLD_CURRENT,
    "fray/local_backend.py": "class LocalClient: ...",
    "fray/iris_backend.py": "",
    "iris/__init__.py": "",
    "iris/cluster/types.py": "",
    "iris/client/workload_codec.py": "",
    "iris/rpc/controller_pb2.py": "",
    "iris/resources/state.py": "",
    "rigging/timing.py": "class Duration:\n    from_seconds = staticmethod(float)",
    "marin_fray-0.1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: marin-fray\nVersion: 0.1.5\n",
}


class Hidden(MetaPathFinder):
    """Makes packages look as if they were not installed."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname in self.packages:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def test_without_marin_fray_the_extra_is_named(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [Hidden("fray"), *sys.meta_path])
    with pytest.raises(WorkerError, match=r"^--cluster fray needs marin-fray, which is not installed") as caught:
        FrayClient("127.0.0.1:1")
    assert "hint: pip install 'marin-trace[fray]'" in str(caught.value)


@pytest.mark.parametrize("files", [{}, {"fray/types.py": "class Target: ..."}])
def test_the_unrelated_package_of_the_same_name_is_told_apart(install: Any, files: dict[str, str]) -> None:
    install({"fray/__init__.py": "", **files})
    with pytest.raises(WorkerError, match=r"^the installed package `fray` is not Marin's") as caught:
        FrayClient("127.0.0.1:1")
    assert "fray/__init__.py" in str(caught.value)
    assert "hint: pip uninstall fray" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, "its JobRequest does not know max_task_failures"),
        ({"timeout": 5.0}, "its JobRequest does not know max_task_failures, timeout"),
        ({"env_vars": {"HF_TOKEN": "x"}}, "its EnvironmentConfig does not know secrets"),
        ({"resources": ResourceConfig.with_cpu(1, ram="1g")}, "its ResourceConfig does not know ram"),
    ],
)
def test_an_old_marin_fray_is_told_what_it_lacks(install: Any, fields: dict[str, Any], missing: str) -> None:
    install(OLD)
    with pytest.raises(WorkerError, match=rf"^marin-fray 0.1.5 is too old: {missing}\n") as caught:
        FrayClient().submit(JobRequest("job", int, **fields))
    assert "hint: pip install --upgrade" in str(caught.value)


def test_a_marin_fray_without_its_engine_names_the_module(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install({name: text for name, text in OLD.items() if not name.startswith("iris/")})
    monkeypatch.setattr(sys, "meta_path", [Hidden("iris"), *sys.meta_path])
    with pytest.raises(WorkerError, match=r"^marin-fray 0.1.5 cannot be used: there is no module 'iris'"):
        load_fray()


def test_a_client_that_leads_to_no_controller_is_refused(install: Any) -> None:
    install({**OLD, "fray/current_client.py": "def current_client():\n    return object()"})
    with pytest.raises(WorkerError, match=r"^marin-fray's client is a object, which leads to no Iris controller"):
        FrayClient()


# What it asks for, of the real package.


@pytest.fixture
def package() -> FrayPackage:
    require_iris()
    return load_fray()


def asked(package: FrayPackage, resources: ResourceConfig, **fields: Any) -> Any:
    return fray_request(package, JobRequest("job", int, resources, **fields), outcomes=None)


def test_threads_of_the_launcher_are_no_cluster(package: FrayPackage) -> None:
    with pytest.raises(WorkerError, match=r"^no cluster is chosen: marin-fray would run jobs as threads") as caught:
        FrayClient()
    assert "--cluster fray://HOST:PORT" in str(caught.value)
    with package.current.set_current_client(package.local.LocalClient()), pytest.raises(WorkerError, match="threads"):
        FrayClient()


def test_an_unknown_cluster_is_named(package: FrayPackage) -> None:
    with pytest.raises(WorkerError, match=r"^cannot connect to fray://moon: Unknown cluster 'moon'"):
        FrayClient("moon")


def test_processors_memory_and_place(package: FrayPackage) -> None:
    resources = ResourceConfig.with_cpu(8, ram="32g", disk="1 TiB", preemptible=False, regions=("us-east5",), zone="a")
    found = asked(package, resources).resources
    assert (found.cpu, found.preemptible, list(found.regions), found.zone) == (8, False, ["us-east5"], "a")
    parse = package.names.parse_memory_string
    assert (parse(found.ram), parse(found.disk)) == (32_000_000_000, 2**40)


def test_what_is_not_asked_for_is_left_to_the_cluster(package: FrayPackage) -> None:
    default = package.types.ResourceConfig()
    assert asked(package, ResourceConfig()).resources == default
    assert asked(package, ResourceConfig()).timeout is None


def test_gpus(package: FrayPackage) -> None:
    found = asked(package, ResourceConfig.with_gpu("H100", 8)).resources
    assert (found.device.kind, found.device.variant, found.device.count) == ("gpu", "H100", 8)
    assert asked(package, ResourceConfig.with_gpu()).resources.device.variant == "auto"


@pytest.mark.parametrize(("kind", "slices", "replicas"), [("v5p-8", 1, 1), ("v5p-32", 1, 4), ("v5p-8", 3, 3)])
def test_a_slice_is_a_process_for_each_machine(package: FrayPackage, kind: str, slices: int, replicas: int) -> None:
    request = asked(package, ResourceConfig.with_tpu(kind, slices))
    assert (request.resources.device.variant, request.replicas) == (kind, replicas)


def test_several_slices_of_several_machines_are_refused(package: FrayPackage) -> None:
    with pytest.raises(ResourcesUnavailableError, match=r"^job asks for 2 slices of v5p-32 at once") as caught:
        asked(package, ResourceConfig.with_tpu("v5p-32", slice_count=2))
    assert "4 machines" in str(caught.value)


def test_a_device_that_marin_fray_does_not_know_is_refused_with_those_it_does(package: FrayPackage) -> None:
    with pytest.raises(ResourcesUnavailableError, match=r"^job asks for tpu=v3-8, which is nothing") as caught:
        asked(package, ResourceConfig.with_tpu("v3-8"))
    assert "v5p-N" in str(caught.value)


def test_failures_are_not_the_engines_to_retry_and_preemptions_are(package: FrayPackage) -> None:
    request, default = asked(package, ResourceConfig()), package.types.JobRequest
    assert (request.max_retries_failure, request.max_task_failures) == (0, 0)
    assert request.max_retries_preemption == default.max_retries_preemption > 0


def test_the_engines_timeout_is_behind_the_jobs_own(package: FrayPackage) -> None:
    request = asked(package, ResourceConfig(), timeout=5.0)
    assert request.timeout.to_ms() == 65_000
    assert payload_of(request).timeout == 5.0


def payload_of(request: Any) -> JobPayload:
    (payload,) = request.entrypoint.callable_entrypoint.args
    return payload


def test_secrets_travel_as_files_and_the_rest_as_variables(package: FrayPackage) -> None:
    variables = {"HF_TOKEN": "s3cr3t", "MY_API_KEY": "k3y", "XLA_FLAGS": "--a", "TOKENIZERS_PARALLELISM": "true"}
    request = asked(package, ResourceConfig(), env_vars=variables)
    environment = request.environment
    assert environment.secrets == {"HF_TOKEN": "s3cr3t", "MY_API_KEY": "k3y"}
    assert environment.env_vars["XLA_FLAGS"] == "--a"
    assert environment.env_vars["TOKENIZERS_PARALLELISM"] == "true"
    assert "HF_TOKEN" not in environment.env_vars
    assert payload_of(request).secrets == ("HF_TOKEN", "MY_API_KEY")
    assert not any(value in f"{request!r} {pickle.dumps(payload_of(request))!r}" for value in ("s3cr3t", "k3y"))


def test_packages_are_extras_of_the_project_or_requirements(
    package: FrayPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "p"\noptional-dependencies.tpu = ["a"]\n[dependency-groups]\nlint = ["ruff>=1"]\n'
    )
    monkeypatch.chdir(tmp_path)
    environment = asked(package, ResourceConfig(), pip_dependency_groups=("tpu", "lint", "numpy>=2")).environment
    assert (environment.extras, environment.pip_packages) == (["tpu"], ["ruff>=1", "numpy>=2"])
    with pytest.raises(WorkerError, match="names 'tpi', which the project does not declare"):
        asked(package, ResourceConfig(), pip_dependency_groups=("tpi",))


def test_what_cannot_be_sent_is_refused_before_the_cluster_is_asked(package: FrayPackage) -> None:
    generator = (number for number in range(3))
    with pytest.raises(UnpicklableError, match="`generator`"):
        fray_request(package, JobRequest("job", lambda: next(generator)), outcomes=None)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.submit(JobRequest("job", int)),
        lambda client: client.find("x"),
        lambda client: client.check_placeable("step", ResourceConfig()),
        lambda client: client._look(["/me/job"]),
    ],
)
def test_a_controller_out_of_reach_is_said_after_a_while(package: FrayPackage, ask: Any) -> None:
    client = FrayClient("127.0.0.1:9", patience_s=0.5)
    asked = "(take job|find a job|answer|tell of jobs)"
    with pytest.raises(WorkerError, match=f"^the Iris controller of fray://127.0.0.1:9 did not {asked} within 0.5 s"):
        ask(client)


# What it makes of the answers.


def test_a_place_is_read_from_what_iris_sets() -> None:
    assert Place.of({"IRIS_TASK_ID": "/me/outer/job/3:2", "IRIS_NUM_TASKS": "4"}) == Place(3, 4, 2)
    with pytest.raises(WorkerError, match="names no task of an Iris job"):
        Place.of({"IRIS_TASK_ID": "/me/job"})


@pytest.mark.parametrize(
    ("waits_for", "never"),
    [
        ("Scheduler: none\n\nAutoscaler: Unsatisfied autoscaler demand: no_matching_group: x", "no_matching_group: x"),
        ("Autoscaler: Unsatisfied autoscaler demand: tier_blocked: quota", None),
        ("Autoscaler: (scaling up) Waiting for worker scale-up", None),
        ("", None),
    ],
)
def test_a_job_waits_for_ever_only_for_what_time_does_not_change(waits_for: str, never: str | None) -> None:
    assert JobNews(0, waits_for).never_runs_because == never


def test_signals_are_told_from_exit_codes() -> None:
    from marin_trace.workers.fray import _how

    assert _how(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert "out of memory" in (_how(137) or "")
    assert _how(3) == "exited with code 3"
    assert _how(None) is None


def test_what_a_job_left_is_opened_only_with_its_seal() -> None:
    record = sealed(b"content", b"key")
    assert opened(record, b"key") == b"content"
    assert opened(record, b"another") is None
    assert opened(record[:-1] + b"!", b"key") is None
    assert opened(b"", b"key") is None
