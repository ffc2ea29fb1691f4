"""Whole commands over one mutated file each, every one in a forked child of a process that has imported everything.

    python -m tests.faults.mutated_commands --seed 3 --runs 2000            a sweep; each fault is a line with what replays it
    python -m tests.faults.mutated_commands --seed 3 --only 17 --show       that run of that seed again, with its output

A run is at fault when it crashes, hangs, ends as an internal error, names neither the mutated file nor its folder, or
succeeds with other products although the mutated file is one whose hash a run recorded.
"""

import argparse
import functools
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import typer.main

from tests.faults.mutated_world import COMMANDS, VOLATILE, Mutable, make
from tests.faults.mutations import mutate
from tests.model_toys import line

CPU_SECONDS, WALL_SECONDS = 20, 90
MEMORY = 3 << 30  # bytes over what the parent has
WHOLE = ("gone", "a folder in its place", "a pipe in its place", "a link to /dev/zero")
HARMLESS = ("libraries", "linux")  # what a line of an error may be beside ours


@dataclass(frozen=True)
class Outcome:
    """How one command ended: exit code or minus the signal, its output, CPU seconds, and the hash of each product."""

    code: int
    out: str
    err: str
    seconds: float
    products: dict[str, str]


@dataclass(frozen=True)
class Case:
    """One command over one mutated file; `seed` and `number` make it again."""

    seed: int
    number: int
    name: str
    command: Mutable
    file: str
    what: str

    def __str__(self) -> str:
        return f"--seed {self.seed} --only {self.number}: zhllama {' '.join(self.command.words)} | {self.file}: {self.what}"


@dataclass
class Harness:
    """A world in `folder`, what each command makes of it unmutated, and the runs over mutations of it."""

    folder: Path
    expected: dict[str, Outcome] = field(default_factory=dict)
    volatile: dict[str, set[str]] = field(default_factory=dict)
    content: str = ""  # of the mutated file

    def prepare(self, world: Callable[[Path], None] = make) -> None:
        """Import what commands import, and make the world."""
        import_everything()
        code, _ = self._forked(lambda: world(self.folder), 600, 600)
        assert code == 0, f"{code}: {(self.folder / 'stderr').read_text(encoding='utf-8')}"
        self.import_what_a_child_did()
        self._warm()

    def expect(self, name: str) -> Outcome:
        """What a command makes of the world as it is, and which of its products differ from run to run."""
        if name not in self.expected:
            first = self.run(COMMANDS[name])
            self.import_what_a_child_did()
            second = self.run(COMMANDS[name])
            assert second.code == 0, f"{name}: {second.code}: {second.out}{second.err}"
            names = first.products.keys() | second.products.keys()
            self.volatile[name] = {n for n in names if first.products.get(n) != second.products.get(n)}
            self.expected[name] = second
        return self.expected[name]

    def _warm(self) -> None:
        """Build the command line and compile the encoder here, not in each child."""
        typer.main.get_command = functools.cache(typer.main.get_command)
        told = line(self.folder, *COMMANDS["pack"].line(self.folder / "warmed"))
        assert told.code == 0, told.err
        gc.freeze()

    def import_what_a_child_did(self) -> None:
        for name in (self.folder / "modules").read_text(encoding="utf-8").splitlines():
            if name not in sys.modules and not name.startswith("tests."):
                with suppress(Exception):
                    importlib.import_module(name)

    def run(self, command: Mutable) -> Outcome:
        """The command in the world as it is now, with an --out of its own."""
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        if command.copied:
            shutil.copytree(self.folder / command.copied, work / "out")
        return self._finish(command, work)

    def _finish(self, command: Mutable, work: Path) -> Outcome:
        def child() -> None:
            from zhllama.cli import main

            main(command.line(work / "out"))

        code, seconds = self._forked(child, CPU_SECONDS, WALL_SECONDS, command.said)
        products = {}
        if command.out and (work / "out").exists():
            products = {
                str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted((work / "out").rglob("*"))
                if path.is_file() and path.name not in VOLATILE
            }
        out, err = (
            (self.folder / name).read_text(encoding="utf-8", errors="replace")
            for name in ("stdout", "stderr")
        )
        if command.printed:
            products["stdout"] = re.sub(r"\d+(\.\d+)? (s|MB)\b|\"seconds\": [\d.]+", "", out)
        return Outcome(code, out, err, seconds, products)

    def _forked(self, work: Callable[[], object], cpu: int, wall: int, said: str = "") -> tuple[int, float]:
        """Exit code and CPU seconds of `work` in a child whose output goes into stdout and stderr of the world."""
        (self.folder / "stdin").write_text(said, encoding="utf-8")
        sys.stdout.flush()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        pid = os.fork()
        if pid == 0:
            self._be_child(work, cpu)
        ends = time.monotonic() + wall
        status, wait = 0, 0.001
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > ends:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                status = signal.SIGALRM
                break
            time.sleep(wait)
            wait = min(wait * 1.5, 0.02)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # whatever it left behind
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return os.waitstatus_to_exitcode(status) if status != signal.SIGALRM else -signal.SIGALRM, seconds

    def _be_child(self, work: Callable[[], object], cpu: int) -> None:
        code = 99
        try:
            os.setsid()
            os.chdir(self.folder)
            os.dup2(os.open("stdin", os.O_RDONLY), 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
            sys.stdin, sys.stdout, sys.stderr = (
                open(n, m, encoding="utf-8", closefd=False)  # noqa: SIM115
                for n, m in ((0, "r"), (1, "w"), (2, "w"))
            )
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
            taken = (
                int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            )
            resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work()
            code = 0
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with suppress(BaseException):
                (self.folder / "modules").write_text("\n".join(sys.modules), encoding="utf-8")
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def cases(
        self, seed: int, numbers: Sequence[int], names: Sequence[str]
    ) -> Iterator[tuple[Case, list[str]]]:
        """Each case of a seed with the faults that its run showed."""
        weights = [COMMANDS[name].weight for name in names]
        for number in numbers:
            random = Random(f"{seed}/{number}")
            name = random.choices(names, weights)[0]
            yield self.case(seed, number, name, random)

    def case(
        self, seed: int, number: int, name: str, random: Random, file: str | None = None
    ) -> tuple[Case, list[str]]:
        """One run over one mutated file of the command, the given one or one of chance."""
        self.expect(name)
        command = COMMANDS[name]
        file = file or random.choice(self.files(command))
        with self.mutated(file, random) as what:
            self.outcome = self.run(command)
        case = Case(seed, number, name, command, file, what)
        return case, self.faults(case, self.outcome)

    @contextmanager
    def mutated(self, file: str, random: Random) -> Iterator[str]:
        """The world with one file mutated, and what was done to it; the file is whole again afterwards."""
        path = self.folder / file
        whole = path.read_bytes()
        what = random.choice(WHOLE) if random.random() < 0.04 else ""
        content, what = (None, what) if what else mutate(whole, path.name, random)
        path.unlink()
        try:
            self.content = (content or b"").decode("utf-8", "replace")
            if content is not None:
                path.write_bytes(content)
            elif what == WHOLE[1]:
                path.mkdir()
            elif what == WHOLE[2]:
                os.mkfifo(path)
            elif what == WHOLE[3]:
                path.symlink_to("/dev/zero")
            yield what
        finally:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
            path.write_bytes(whole)

    def seconds(self) -> float:
        """CPU seconds of all children until now."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def files(self, command: Mutable) -> list[str]:
        """The files that the command reads, as named from the world."""
        found = [
            str(p.relative_to(self.folder))
            for glob in command.reads
            for p in sorted(self.folder.glob(glob))
            if p.is_file()
        ]
        assert found, command
        return found

    def faults(self, case: Case, outcome: Outcome) -> list[str]:
        """What the outcome of a case breaks."""
        faults = []
        if outcome.code == -signal.SIGXCPU or outcome.code == -signal.SIGALRM:
            faults.append("hang")
        elif outcome.code not in (0, 1, 2):
            faults.append(f"exit code {outcome.code}")
        for word in ("Traceback", "internal error"):
            if word in outcome.err or word in outcome.out:
                faults.append(word)
        if outcome.code == 1 and not faults:
            faults += self._faults_of_error(case, outcome)
        if outcome.code == 0 and self._recorded(case):
            expected, volatile = self.expect(case.name).products, self.volatile[case.name]
            names = expected.keys() | outcome.products.keys()
            differ = sorted(n for n in names - volatile if expected.get(n) != outcome.products.get(n))
            if differ:
                faults.append(f"silent difference in {', '.join(differ[:3])}")
        return faults

    def _faults_of_error(self, case: Case, outcome: Outcome) -> list[str]:
        if case.command.may_fail and "zhllama: " not in outcome.err:
            return []
        lines = [line for line in outcome.err.splitlines() if line.strip()]
        if not lines or not lines[-1].startswith("zhllama: ") or len(lines[-1]) > 1500:
            return ["the last line is no error of ours"]
        inside = case.file.removeprefix(case.command.copied + "/") if case.command.copied else case.file
        named = [inside, *(str(p) for p in Path(case.file).parents if str(p) != ".")]
        if case.command.copied:
            named.append(str(self.folder / "work" / "out"))
        where = lines[-1].removeprefix("zhllama: ").partition(": ")[0]
        if case.file.endswith(".yaml") and (where.startswith("--") or where in self.content):
            return []  # an option that a recipe sets, or a file that it names, is reported as if given on the command line
        if not any(name in lines[-1] for name in named):
            return ["the error does not name the file"]
        return []

    def _recorded(self, case: Case) -> bool:
        """Whether the mutated file is part of a run that the command reads, or was an input of it."""
        runs = [name for name in case.command.runs if (self.folder / name).is_dir()]
        if case.file in case.command.unrecorded:
            return False
        if any(case.file.startswith(f"{run}/") for run in runs):
            return True
        read = [
            json.loads((self.folder / run / "manifest.json").read_text(encoding="utf-8"))
            for run in runs
            if (self.folder / run / "manifest.json").exists()
        ]
        return any(
            Path(given["path"]) == self.folder / case.file
            for manifest in read
            for given in manifest["inputs"]
        )


def import_everything() -> None:
    """All of zhllama's modules, and the libraries' that its commands import when they run."""
    import zhllama

    for module in pkgutil.walk_packages(zhllama.__path__, "zhllama."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    for name in (
        "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto", "peft",
        "transformers.trainer", "pyarrow.parquet", "zstandard", "jieba", "opencc", "gguf", "datatrove", "torch._dynamo",
    ):  # fmt: skip
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--only", type=int, help="this run alone")
    parser.add_argument("--show", action="store_true", help="print the output of each run")
    parser.add_argument(
        "--command", action="append", help="these commands alone (a seed then makes other runs)"
    )
    parser.add_argument("--limit", type=float, default=1e9, help="seconds after which no further run begins")
    parser.add_argument("--times", action="store_true", help="print the CPU seconds of each command")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zhllama-mutated-") as folder:
        harness = Harness(Path(folder).resolve() / "world")
        harness.folder.mkdir()
        harness.prepare()
        print(
            f"prepared in {time.process_time():.0f} CPU seconds, and {harness.seconds():.0f} of children",
            flush=True,
        )
        if given.times:
            for name in COMMANDS:
                print(
                    f"{harness.expect(name).seconds:6.2f} {name} {sorted(harness.volatile[name])}", flush=True
                )
        numbers = [given.only] if given.only is not None else range(given.first, given.first + given.runs)
        counts: Counter[str] = Counter()
        faulty = done = 0
        for case, faults in harness.cases(given.seed, numbers, given.command or list(COMMANDS)):
            done += 1
            counts[case.name] += 1
            faulty += bool(faults)
            if faults:
                print(
                    f"{'; '.join(faults)} | {case}\n    {harness.outcome.err.strip().splitlines()[-1:]}",
                    flush=True,
                )
            if given.show:
                print(case, harness.outcome.code, harness.outcome.out, harness.outcome.err, sep="\n")
            if time.monotonic() - began > given.limit:
                break
        seconds = time.process_time() + harness.seconds()
        print(f"runs: {dict(counts)}")
        print(f"{done} runs of seed {given.seed} in {seconds:.0f} CPU seconds, {faulty} at fault")


if __name__ == "__main__":
    main()
