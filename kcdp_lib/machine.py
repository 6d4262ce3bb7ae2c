"""Threads: as many as the processors that this process may use, and asleep while they wait.

`import kcdp_lib` calls `share`. Without it, OpenMP's threads spin while they wait for each other,
and on processors that others use, too, a picture takes twenty times as long as with one thread. In
a container there would be a thread for each of the host's processors, not the container's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's threads wait
THREADS = "OMP_NUM_THREADS"


def processors() -> int:
    """Return how many processors this process may use, by its binding and its cgroup's quota."""
    limit = quota()
    return _bound() if limit is None else max(1, min(_bound(), int(limit)))


def _bound() -> int:
    """Return how many processors this process is bound to; all of them if the system binds none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(function: Callable, items: Iterable, workers: int | None = None) -> Iterator:
    """Yield function(item) for each item in order, computed in one process per processor.

    Processes start anew on every system: nothing is forked, and a script that calls this needs no
    `if __name__ == "__main__"`. function and items must be picklable.
    """
    from joblib import Parallel, delayed  # imported here, because few runs need it

    # By default, joblib writes large arrays to a folder of its own.
    parallel = Parallel(workers or processors(), return_as="generator", max_nbytes=None)
    return parallel(delayed(function)(item) for item in items)


def quota(root: Path = Path("/")) -> float | None:
    """Return how many processors this process's cgroup may use, such as 1.5; None for all.

    It is the smallest limit of the group and its parents, in version 2 (`cpu.max`) or 1
    (`cpu.cfs_quota_us`). root: the folder that holds `proc` and `sys`.
    """
    limits = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        else:
            continue
        # In a container the path may be the host's; then only the mount itself is visible.
        own = Path(path.strip("/"))
        limits += [
            _limit(root / mount / group) for mount in mounts for group in (own, *own.parents)
        ]
    return min((limit for limit in limits if limit), default=None)


def _limit(group: Path) -> float | None:
    """Return how many processors one group allows, or None."""
    words = " ".join(_lines(group / "cpu.max")).split() or [
        *_lines(group / "cpu.cfs_quota_us"),
        *_lines(group / "cpu.cfs_period_us"),
    ]
    try:
        share, period = map(int, words)
    except ValueError:  # "max 100000", or no such file
        return None
    return share / period if share > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def share() -> None:
    """Make OpenMP's threads sleep while they wait, and limit their number to the cgroup's quota.

    Settings in the environment are kept. So is the number of threads if no quota limits it, because
    it decides how sums are rounded.
    """
    spinning = not any(name in os.environ for name in WAITING)
    too_many = THREADS not in os.environ and processors() < _bound()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if too_many:
        os.environ[THREADS] = str(processors())
    torch = sys.modules.get("torch")
    if torch is None:
        return
    # torch is imported already, and its OpenMP has read the old environment.
    if too_many:
        torch.set_num_threads(min(torch.get_num_threads(), processors()))
    if spinning and sys.platform == "linux" and torch.get_num_threads() > 1:
        _stop_spinning(torch)


def _stop_spinning(torch) -> None:
    """Give GNU's OpenMP more threads than processors, so that it spins 100 times and not 300,000.

    Its manual says so (GOMP_SPINCOUNT). A second Python thread has OpenMP threads of its own, which
    count although they sleep for good.
    """
    ready = threading.Event()

    def sleep() -> None:
        torch.zeros(1 << 16).add_(1)  # large enough to be split among threads
        ready.set()
        threading.Event().wait()

    threading.Thread(target=sleep, name="kcdp_lib.machine", daemon=True).start()
    ready.wait(timeout=10)
