"""What a run costs: memory and processor time of all of its processes, and who had how much.

Memory is the proportional set size (/proc/PID/smaps_rollup), so that pages which processes share
count once. Processor time is the sum of each process's own time as last seen, or, where that is
more, what the kernel says of the processes that ended: sampling misses the last moment of each,
the kernel those that nobody waited for. Processes that lose their parent become children of this
one (PR_SET_CHILD_SUBREAPER), so that none is missed.

The kernel walks all pages of a process to tell its share, which costs milliseconds: it is asked
again when the resident size, which costs nothing, moved by MOVED_MB or REFRESH_S passed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

EVERY_S = 0.2
REFRESH_S, MOVED_MB = 2.0, 8.0
GONE_S = 20.0  # for Ray's daemons to end after their driver
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
SUBREAPER = 36  # of prctl(2)
DAEMON, WORKER, DRIVER, OTHER = "Ray's daemons", "worker", "driver", "other"
DAEMONS = (
    *(
        "raylet/raylet",
        "gcs/gcs_server",
        "ray/dashboard/",
        "ray::DashboardAgent",
        "ray::RuntimeEnvAgent",
    ),
    *("_private/log_monitor.py", "autoscaler/_private/monitor.py", "runtime_env/agent"),
)


@dataclass(frozen=True)
class Process:
    """A process at one moment. cpu_s: its own, children aside."""

    pid: int
    role: str
    name: str
    pss_mb: float
    cpu_s: float


@dataclass(frozen=True)
class Sample:
    """A run at one moment: seconds since its begin, and what the caller counts (such as rows)."""

    at_s: float
    count: int
    processes: tuple[Process, ...]

    def pss_mb(self, *, daemons: bool = True) -> float:
        return sum(p.pss_mb for p in self.processes if daemons or p.role != DAEMON)


@dataclass
class Usage:
    """What a run cost."""

    code: int = 0
    began_s: float = 0.0  # time.monotonic()
    seconds: float = 0.0
    cpu_s: float = 0.0
    watching_cpu_s: float = 0.0  # of the watch itself, not in cpu_s
    said: str = ""
    samples: list[Sample] = field(default_factory=list)
    own_cpu_s: list[float] = field(default_factory=list)  # of all so far, at each sample

    def peak_mb(self, *, daemons: bool = True) -> float:
        return max((s.pss_mb(daemons=daemons) for s in self.samples), default=0.0)

    def peak_by_role(self) -> dict[str, int]:
        """MB at most of the processes of each role together."""
        peaks: dict[str, float] = {}
        for sample in self.samples:
            now: dict[str, float] = {}
            for p in sample.processes:
                now[p.role] = now.get(p.role, 0) + p.pss_mb
            peaks = {role: max(peaks.get(role, 0), now.get(role, 0)) for role in peaks | now}
        return {role: round(mb) for role, mb in peaks.items()}

    def cpu_until_s(self, moment_s: float) -> float:
        """CPU seconds used when time.monotonic() was `moment_s`."""
        pairs = zip(self.samples, self.own_cpu_s, strict=True)
        before = [cpu for s, cpu in pairs if self.began_s + s.at_s <= moment_s]
        return before[-1] if before else 0.0


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    limit_s: float,
    address_space: int | None = None,
    count: Callable[[], int] | None = None,
) -> Usage:
    """Run a command to its end and watch its processes; what it prints goes to `log`.

    address_space: bytes that each of its processes may map (RLIMIT_AS).
    count: called with each sample, for its `count`.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    watch = _Watch(set(_children(os.getpid(), _parents())), count)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb") as stream:
        watch.usage.began_s = time.monotonic()
        child = subprocess.Popen(
            list(command),
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            preexec_fn=(lambda: _limit(address_space)) if address_space else None,  # noqa: PLW1509
            start_new_session=True,
        )
        watch.follow(child, limit_s)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    watch.usage.cpu_s = max(ended, sum(watch.cpu.values()))
    watch.usage.said = log.read_text(errors="replace")[-3000:]
    return watch.usage


def _limit(address_space: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


class _Watch:
    def __init__(self, others: set[int], count: Callable[[], int] | None) -> None:
        self.others, self.count = others, count
        self.root = 0
        self.usage = Usage()
        self.cpu: dict[tuple[int, str], float] = {}
        self.shares: dict[int, tuple[float, float, float]] = {}
        self.over = threading.Event()

    def follow(self, child: subprocess.Popen[bytes], limit_s: float) -> None:
        """Sample until the run's first process and all others have ended."""
        self.root = child.pid
        sampler = threading.Thread(target=self._run)
        sampler.start()
        try:
            self.usage.code = child.wait(limit_s)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            self.usage.seconds = time.monotonic() - self.usage.began_s
            self._rest()
            self.over.set()
            sampler.join()

    def _run(self) -> None:
        while not self.over.wait(EVERY_S):
            began = time.thread_time()
            self._sample()
            self.usage.watching_cpu_s += time.thread_time() - began

    def _pids(self) -> list[int]:
        """All processes of the run: what descends from its first one, or was left to us."""
        parents = _parents()
        left = set(_children(os.getpid(), parents)) - self.others
        return sorted({*left, *_below(left, parents)})

    def _sample(self) -> None:
        at_s = time.monotonic() - self.usage.began_s
        count = self.count() if self.count else 0
        seen = []
        for pid in self._pids():
            with suppress(OSError, ValueError):  # it may end while we look
                stat = _stat(pid)
                cpu_s = (int(stat[11]) + int(stat[12])) * TICK_S
                self.cpu[pid, stat[19]] = cpu_s
                role, name = _named(pid, self.root)
                seen.append(Process(pid, role, name, self._pss_mb(pid, at_s), cpu_s))
        self.usage.samples.append(Sample(at_s, count, tuple(seen)))
        self.usage.own_cpu_s.append(sum(self.cpu.values()))

    def _pss_mb(self, pid: int, at_s: float) -> float:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB
        seen_at, was, share = self.shares.get(pid, (-REFRESH_S, 0.0, 0.0))
        if at_s - seen_at >= REFRESH_S or abs(resident - was) >= MOVED_MB:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            share = next((int(x.split()[1]) for x in lines if x.startswith("Pss:")), 0) / 1024
            self.shares[pid] = at_s, resident, share
        return share

    def _rest(self) -> None:
        """Wait until the daemons are gone too; end those that stay."""
        until = time.monotonic() + GONE_S
        while pids := self._pids():
            for pid in pids:
                if time.monotonic() > until:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """All processes that descend from one."""
    return _below({pid}, _parents())


def title(pid: int) -> str:
    """How a process calls itself; empty where it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace")


def _below(roots: set[int], parents: Mapping[int, int]) -> list[int]:
    found, new = set[int](), roots
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def _parents() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                found[int(folder.name)] = int(_stat(int(folder.name))[1])
    return found


def _children(pid: int, parents: Mapping[int, int]) -> list[int]:
    return [child for child, parent in parents.items() if parent == pid]


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _named(pid: int, root: int) -> tuple[str, str]:
    """What a process is to the run, and how it calls itself."""
    words = title(pid)
    return _role(pid, root, words), words[:80].strip()


def _role(pid: int, root: int, words: str) -> str:
    if pid == root:
        return DRIVER
    if any(mark in words for mark in DAEMONS):
        return DAEMON
    return WORKER if words.startswith("ray::") or "spawn_main" in words else OTHER
