"""Marks: files that say which process holds something. One at a time, over processes and hosts."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard


def write_json(path: Path, value: Mapping[str, Any], durable: bool = True) -> None:
    """Write `value` so that `path` always holds one whole document.

    Args:
        path: the file.
        value: its content.
        durable: whether to wait until it would survive a loss of power.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the document in `path`, or None if it is absent, broken or no object.

    A link counts as absent: nothing here makes one, and it could lead out of the run folder.
    """
    try:
        with open(path, "rb", opener=_opened) as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def this_process() -> dict[str, Any]:
    """Return what tells this process from every other one, now and later."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": _process_start(os.getpid()),
        "slurm_job": slurm_job(),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    }


def slurm_job() -> str | None:
    """Return the id of the SLURM job that this process belongs to, an array's as 12_3."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def is_mark(value: object) -> TypeGuard[dict[str, Any]]:
    """Say whether a document names a process; a damaged mark is none."""
    if not isinstance(value, dict):
        return False
    host, pid, restarts = value.get("host"), value.get("pid"), value.get("restarts", 0)
    return isinstance(host, str) and isinstance(pid, int) and isinstance(restarts, int)


def is_here(mark: Mapping[str, Any]) -> bool:
    """Say whether the author of a mark is a process of this host."""
    return mark.get("host") == socket.gethostname()


def runs_here(mark: Mapping[str, Any]) -> bool:
    """Say whether the author of a mark is a process of this host that still runs."""
    return is_mark(mark) and is_here(mark) and _process_start(mark["pid"]) == mark.get("began")


def outlived(mark: Mapping[str, Any]) -> bool:
    """Say whether SLURM has started this job anew since its earlier copy made the mark.

    SLURM does so when it believes that copy dead. A copy that lives on a node without a working
    daemon finds its mark gone and stops.
    """
    me = this_process()
    same = me["slurm_job"] is not None and me["slurm_job"] == mark.get("slurm_job")
    return same and me["restarts"] > mark.get("restarts", 0)


def create(path: Path, mark: Mapping[str, Any]) -> bool:
    """Write a mark unless there is one; return whether this process did."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_json(partial, mark, durable=False)
        os.link(partial, path)  # fails where the name exists, on NFS too
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def remove(path: Path, mark: Mapping[str, Any] | None) -> None:
    """Remove the mark that was read from `path`, but not another one that has replaced it."""
    grave = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return
    try:
        if read_json(grave) != mark:
            os.link(grave, path)  # it was another's already: give it back
    except FileExistsError:
        pass
    finally:
        grave.unlink(missing_ok=True)


def _process_start(pid: int) -> str | None:
    """Return the kernel's start time of a process, which no later process of that id shares."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self").exists() else _exists(pid)
    return None if stat[0] == "Z" else stat[19]


def _exists(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "some process"
