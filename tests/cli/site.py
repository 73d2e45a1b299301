"""A prefix in which an experiment was run, for commands that only look; and how their output is compared."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.scripts import run_script, write_script

GOLDEN = Path(__file__).parent / "golden"

EXPERIMENT = """
from dataclasses import dataclass

from marin_trace import StepRef, deferred, executor_main, output, parse_flags, step, unversioned
from marin_trace.io import atomic_write


@dataclass(frozen=True)
class Flags:
    vocab_size: int = 4096
    texts: int = 2


@dataclass(frozen=True)
class CountConfig:
    text: str
    vocab_size: int
    workers: int = 2
    sizes: tuple[int, ...] = (1, 2)
    names: frozenset[str] = frozenset({"x", "y"})


def write(path: str, text: str) -> str:
    print("writing", text)
    with atomic_write(f"{path}/text", "w") as stream:
        stream.write(text)
    return text


def count(config: CountConfig) -> int:
    print("counting", config.vocab_size)
    if config.vocab_size == 13:
        raise ValueError("an unlucky number\\nof entries: 13")
    return config.vocab_size


def merge(parts: list[int], labels: dict[str, str]) -> int:
    return sum(parts)


@step(name="text/{name}")
def text(name: str) -> StepRef:
    return deferred(write)(output(), name)


@step(name="count/{name}")
def counted(name: str, source: StepRef, vocab_size: int) -> StepRef:
    return deferred(count)(CountConfig(source / "text", vocab_size, workers=unversioned(2)))


@step(name="merged")
def merged(parts: list[StepRef]) -> StepRef:
    return deferred(merge)([part.artifact for part in parts], {"title": "a", "note": unversioned("b")})


@step(name="sources")
def sources(number: int) -> list[StepRef]:
    return [text(f"t{index}") for index in range(number)]


@step(name="all")
def everything(flags: Flags) -> None:
    merged([counted(f"t{n}", ref, flags.vocab_size) for n, ref in enumerate(sources(flags.texts))])


if __name__ == "__main__":
    executor_main(steps=[everything(parse_flags(Flags))])
"""


@dataclass(frozen=True, slots=True)
class Site:
    """An experiment, and where it was run three times: as it is, with a failure, and with another vocabulary."""

    script: Path
    prefix: str

    def told(self, text: str) -> str:
        """What a command printed, without what differs between two runs of the tests."""
        text = text.replace(self.prefix, "PREFIX").replace(str(self.script.parent), "HERE")
        text = text.replace(sys.executable, "PYTHON")
        text = re.sub(r"(?<=-)[0-9a-f]{8}\b", "HASH", text)
        text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{9}", "RUN", text)
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "MOMENT", text)
        text = re.sub(r"\b\d+(\.\d)? (s|min|h|d)( \d+ (s|min|h))?(?!\w)", "TIME", text)
        text = text.replace("TIME → TIME", "TIME")  # they may be equal, and are told once then
        text = re.sub(r"\S+@\S+( at commit \w+( with changes)?)?", "SOMEBODY", text)
        text = re.sub(r"\S+ pid \d+", "PROCESS", text)
        # Which of two that fail side by side is seen first is a matter of chance.
        text = re.sub(r"(for|because of) count/t\d$", r"\1 count/tN", text, flags=re.MULTILINE)
        return re.sub(r" {2,}(?=\S)", "  ", text)


def made_site(directory: Path, *, prefix: str | None = None) -> Site:
    """Runs the experiment. Takes some seconds."""
    script = write_script(directory, EXPERIMENT)
    site = Site(script, prefix or str(directory / "outputs"))
    for flags, code in (([], 0), (["--vocab_size", "13"], 1), (["--vocab_size", "2048"], 0)):
        done = run_script(script, *flags, prefix=site.prefix)
        assert done.returncode == code, done.stderr
    return site


def golden(name: str) -> str:
    """What a command prints."""
    return (GOLDEN / f"{name}.txt").read_text()
