"""How much of a machine a process takes: as many threads as it has processors, waiting asleep.

`import kcdp_lib` calls `share`. Without it, OpenMP's threads spin while they wait for each other,
and on processors that others use, too, a picture takes twenty times as long as with one thread. In
a container they would be as many as the host has processors, not as many as the container may use.
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
    """Processors that this process may use: those it is bound to, within its cgroup's quota."""
    limit = quota()
    return _bound() if limit is None else max(1, min(_bound(), int(limit)))


def _bound() -> int:
    """Processors that this process is bound to; all of them where a system binds none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(function: Callable, items: Iterable, workers: int | None = None) -> Iterator:
    """What function(item) returns, for each item in order, by as many processes as processors.

    The processes start anew on every system: nothing is forked, and a script that calls this needs
    no `if __name__ == "__main__"`. function and items must be picklable.
    """
    from joblib import Parallel, delayed  # here, because few runs need it

    # Large arrays would be written to a folder of joblib's own.
    parallel = Parallel(workers or processors(), return_as="generator", max_nbytes=None)
    return parallel(delayed(function)(item) for item in items)


def quota(root: Path = Path("/")) -> float | None:
    """Processors that the cgroup of this process may use at a time, such as 1.5; None for all.

    The least of its own limit and those of the groups around it, by version 2 (`cpu.max`) or 1
    (`cpu.cfs_quota_us`). root: where `proc` and `sys` lie.
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
        # In a container the path may be the host's, of which only the mount itself can be seen.
        own = Path(path.strip("/"))
        limits += [
            _limit(root / mount / group) for mount in mounts for group in (own, *own.parents)
        ]
    return min((limit for limit in limits if limit), default=None)


def _limit(group: Path) -> float | None:
    """Processors that one group allows, or None."""
    words = " ".join(_lines(group / "cpu.max")).split() or [
        *_lines(group / "cpu.cfs_quota_us"),
        *_lines(group / "cpu.cfs_period_us"),
    ]
    try:
        share, period = map(int, words)
    except ValueError:  # "max 100000", or there is no such file
        return None
    return share / period if share > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def share() -> None:
    """Let OpenMP's threads sleep while they wait, and be no more than the cgroup's quota allows.

    What the environment says already stays as it is, and so does the number of threads where no
    quota limits it, because it decides how sums are rounded.
    """
    spinning = not any(name in os.environ for name in WAITING)
    too_many = THREADS not in os.environ and processors() < _bound()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if too_many:
        os.environ[THREADS] = str(processors())
    torch = sys.modules.get("torch")
    if torch is None:
        return
    # torch is there already, and its OpenMP has read the environment as it was.
    if too_many:
        torch.set_num_threads(min(torch.get_num_threads(), processors()))
    if spinning and sys.platform == "linux" and torch.get_num_threads() > 1:
        _stop_spinning(torch)


def _stop_spinning(torch) -> None:
    """Give GNU's OpenMP more threads than processors: then it spins 100 times and not 300,000.

    So its manual says (GOMP_SPINCOUNT). A second thread of Python has threads of its own there,
    which count although they are asleep for good.
    """
    ready = threading.Event()

    def sleep() -> None:
        torch.zeros(1 << 16).add_(1)  # large enough to be shared among threads
        ready.set()
        threading.Event().wait()

    threading.Thread(target=sleep, name="kcdp_lib.machine", daemon=True).start()
    ready.wait(timeout=10)
