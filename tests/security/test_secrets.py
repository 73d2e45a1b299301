"""Secrets: values of environment variables are written nowhere; credentials of URLs and secret keys are left out."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from marin_trace import deferred, executor_main, lower, output, parse_flags, step, trace
from marin_trace.errors import ConfigError, FlagError, OptionsConflictError, PrefixError, RunFailedError, explain
from marin_trace.runtime.attempt import failure_of
from marin_trace.runtime.disk_cache import Cached
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.log_records import AttemptLog, FailurePhase
from marin_trace.runtime.prefix import normalise_prefix
from marin_trace.runtime.redaction import redact, redact_arguments, redact_parts
from marin_trace.runtime.remote import RemoteCallable, remote
from marin_trace.safe_text import REDACTED, redact_text
from marin_trace.storage.store_probe import PROBED_VARIABLE
from marin_trace.workers.client import JobHandle, JobRequest
from tests.scripts import ROOT, write_script

CANARY = "c4n4ry-5e54m3"

SCRIPT = """
import os
import sys
from dataclasses import dataclass

from marin_trace import *
from marin_trace.runtime.remote import remote


@dataclass(frozen=True)
class Flags:
    hf_token: str = "none"
    source: str = ""
    tokenizer: str = "gpt2"


@dataclass(frozen=True)
class Config:
    path: str
    source: str
    api_key: str
    tokenizer: str


def use(config: Config) -> str:
    assert os.environ["MY_SECRET"] and os.environ["HF_TOKEN"]
    if config.path.rpartition("/")[2].startswith("bad"):
        raise ValueError(f"cannot fetch {config.source} with {config}")
    if config.path.rpartition("/")[2].startswith("dies"):
        print("on the way out", flush=True)
        os.kill(os.getpid(), 9)
    return "used"


@step(name="{name}", env_vars={"MY_SECRET": "CANARY"}, description="with {flags.source}")
def secretive(name: str, flags: Flags):
    return deferred(use)(Config(output(), flags.source, flags.hf_token, flags.tokenizer))


@step(name="all")
def everything(flags: Flags):
    secretive("good", flags)
    secretive("bad", flags)
    secretive("dies", flags)


@remote(env_vars={"OTHER": "CANARY"})
def elsewhere() -> None:
    assert os.environ["OTHER"]


if __name__ == "__main__":
    flags = parse_flags(Flags)
    elsewhere()
    print(trace(everything, flags))
    print(repr(elsewhere))
    executor_main(steps=[everything(flags)])
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Every directory that a run writes into."""
    made = {name: tmp_path / name for name in ("prefix", "runtime", "tmp", "cache")}
    for place in made.values():
        place.mkdir(mode=0o700)
    return made


def everything_written(places: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    for place in places.values():
        for path in place.rglob("*"):
            yield str(path), path.read_bytes() if path.is_file() else b""


def test_a_canary_is_in_no_byte_that_a_run_writes(tmp_path: Path, places: dict[str, Path]) -> None:
    source = f"https://me:{CANARY}@host/x?X-Amz-Signature={CANARY}&part=1"
    script = write_script(tmp_path, SCRIPT.replace("CANARY", CANARY))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(places["runtime"]),
        "TMPDIR": str(places["tmp"]),
        "XDG_CACHE_HOME": str(places["cache"]),
        "HF_TOKEN": CANARY,
        "WANDB_API_KEY": CANARY,
    }
    flags = ["--prefix", str(places["prefix"]), "--hf_token", CANARY, "--source", source, "--tokenizer=gpt2"]
    done = subprocess.run(
        [sys.executable, script.name, *flags],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "2 of 3 steps failed" in done.stderr
    assert "env=MY_SECRET" in done.stdout
    written = list(everything_written(places))
    assert [path for path, content in written if CANARY.encode() in content or CANARY in path] == []
    assert CANARY not in done.stdout + done.stderr
    # What is no secret is there.
    info = next(content.decode() for path, content in written if path.endswith(".executor_info"))
    assert '"tokenizer": "gpt2"' in info
    assert "host/x" in info
    assert info.count(REDACTED) >= 4


class Recorder:
    """A cluster that only remembers what it was asked for."""

    name, is_local = "cluster", False

    def __init__(self) -> None:
        self.requests: list[JobRequest] = []

    def submit(self, request: JobRequest) -> JobHandle:
        self.requests.append(request)
        raise ConfigError(f"{request} was not started")

    def find(self, name: str) -> JobHandle | None:
        return None


def test_what_is_forwarded_to_a_cluster_is_in_no_payload_and_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.delenv(PROBED_VARIABLE, raising=False)
    recorder = Recorder()
    job = remote(lambda: None, env_vars={"A": CANARY}, client=recorder)
    with pytest.raises(ConfigError, match="was not started") as caught:
        job()
    (request,) = recorder.requests
    assert request.env_vars == {"HF_TOKEN": CANARY, "A": CANARY}
    assert CANARY.encode() not in cloudpickle.dumps(request.entrypoint)
    assert CANARY not in f"{caught.value} {request!r} {job!r}"


def test_the_payload_of_a_step_holds_no_environment() -> None:
    (spec,) = lower(secretive(CANARY), prefix="/p")
    from marin_trace.runtime.options import RunOptions

    job: Any = spec.executable(RunOptions(prefix="/p"))
    assert isinstance(job, RemoteCallable)
    assert job.env_vars == {"A": CANARY}
    assert isinstance(job.fn, Cached)
    assert CANARY.encode() not in cloudpickle.dumps(job.fn)
    assert CANARY not in repr(job) + repr(spec.options)


def note(path: str) -> None: ...


def secretive(value: str) -> Any:
    @step(name="secretive", env_vars={"A": value})
    def entry():
        return deferred(note)(output())

    return entry()


def test_the_environment_is_no_part_of_a_hash() -> None:
    specs = [lower(secretive(value), prefix="/p")[0] for value in (CANARY, "other")]
    assert specs[0].fingerprint == specs[1].fingerprint
    assert CANARY not in str(specs[0].recipe_parts()) + str(specs[0].record()) + str(trace(lambda: secretive(CANARY)))


def test_two_values_that_contradict_each_other_are_named_and_not_shown() -> None:
    with pytest.raises(OptionsConflictError, match="called with two different env_vars") as caught:
        lower([secretive(CANARY), secretive("other")], prefix="/p")
    assert CANARY not in str(caught.value)
    with pytest.raises(ConfigError, match=r"env_vars\['A'\] is text, not int") as refused:
        step(env_vars={"A": 7345123})(note)  # pyright: ignore[reportArgumentType]
    assert "7345123" not in str(refused.value)


URL = f"https://me:{CANARY}@host/x?a=1&X-Goog-Signature={CANARY}"


def explode(path: str) -> None:
    raise ValueError(f"403 from {URL}")


@step(name="explodes")
def explodes():
    return deferred(explode)(output())


def test_a_url_in_an_error_is_kept_without_its_credentials(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunFailedError) as caught:
        executor_main([explodes()], argv=["--prefix", prefix])
    assert CANARY in str(caught.value.exceptions[0])  # the caller's own exception is the caller's
    assert CANARY not in caplog.text
    written = [path.read_text() for path in Path(prefix).rglob("*") if path.is_file()]
    assert any("403 from https://" in text for text in written)
    assert not any(CANARY in text for text in written)


def test_a_failure_is_cut_after_it_was_redacted() -> None:
    error = ValueError("x" * 99_990 + URL)
    failure = failure_of(error, FailurePhase.BODY)
    assert len(failure.message) == 100_000
    assert CANARY not in failure.message + failure.traceback


SIGNED = [
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "X-Goog-Signature",
    "sig",
    "token",
    "access_token",
    "client_secret",
]


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("mark", ["?", "?a=1&", "#"])
def test_signed_values_are_left_out_and_their_names_stay(name: str, mark: str) -> None:
    assert redact_text(f"see https://h/x{mark}{name}={CANARY}&b=2.") == f"see https://h/x{mark}{name}={REDACTED}&b=2."


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{CANARY}@host/x",
        f"https://me:p@{CANARY}@host/x",
        f"s3://AKIA:{CANARY}@bucket/key",
        f"Config(api_key='{CANARY}')",
        f'{{"password": "{CANARY}"}}',
        f'Client(hf_token="{CANARY}", n=1)',
        f"curl -H 'Authorization: Bearer {CANARY}'",
        f"--header=authorization=Basic {CANARY}",
        f"secret: 'it\\'s {CANARY}'",
    ],
)
def test_what_is_plainly_a_secret_is_left_out_of_any_text(text: str) -> None:
    assert CANARY not in redact_text(text)
    assert CANARY not in explain(text, facts={"of": text}, hint=text)


@pytest.mark.parametrize(
    "text",
    [
        "Config(tokenizer='gpt2', eos_token='</s>', num_tokens='7')",
        "https://h/x?tokenizer=gpt2&eos_token=7&signature_version=4",
        "gs://bucket/a@b token: 50256",
        "keep 'secret' and \"password\" as words; the token is 'a'",
        "mail me@host: see https://h/@me",
    ],
)
def test_what_only_resembles_a_secret_stays(text: str) -> None:
    assert redact_text(text) == text


def test_the_command_line_keeps_no_secret() -> None:
    given = ["x.py", "--password", "-pw", "-e", f"HF_TOKEN={CANARY}", f'--cfg={{"api_key": "{CANARY}"}}', "--n=1"]
    kept = redact_arguments([*given, f"--url=https://a:{CANARY}@h/", "tokenizer=gpt2"])
    assert CANARY not in " ".join(kept)
    assert "-pw" not in kept
    assert kept[-1] == "tokenizer=gpt2"


def test_a_number_under_a_secret_name_is_a_secret_but_for_a_token() -> None:
    assert redact({"password": 1234, "token": 50256, "secret": True}) == {
        "password": REDACTED,
        "token": 50256,
        "secret": True,
    }
    assert redact_parts({"c.password": "1234", "c.token": "50256"}) == {"c.password": REDACTED, "c.token": "50256"}


@dataclass
class Flags:
    password: int = 0
    api_key: str = ""


@pytest.mark.parametrize("argv", [[f"--password={CANARY}"], ["--api_key", CANARY, "--api_key", "other"]])
def test_a_flag_that_does_not_fit_is_named_without_its_secret(argv: list[str]) -> None:
    with pytest.raises(FlagError, match=r"--password does not take|--api_key was given 2 values") as caught:
        parse_flags(Flags, argv)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("prefix_with_secret", [f"s3://AKIA:{CANARY}@bucket/x", f"gs://me:{CANARY}@bucket"])
def test_a_prefix_with_credentials_is_refused_without_repeating_them(prefix_with_secret: str) -> None:
    def run_with_override() -> object:
        return executor_main([explodes.with_options(override_output_path=f"{prefix_with_secret}/out")()], argv=[])

    for attempt in (lambda: normalise_prefix(prefix_with_secret), run_with_override):
        with pytest.raises(PrefixError, match="holds credentials") as caught:
            attempt()
        assert CANARY not in str(caught.value)


def test_what_a_body_prints_is_its_own(prefix: str) -> None:
    """Said in SECURITY.md: what a step prints is kept as it was printed."""
    from marin_trace.runtime.capture import routed_output

    def say(path: str) -> None:
        print(f"my own {CANARY}")

    with routed_output():
        distributed_lock(say)(f"{prefix}/out")
    assert re.search(CANARY, Path(AttemptLog(f"{prefix}/out").directory, "000001.log").read_text())
