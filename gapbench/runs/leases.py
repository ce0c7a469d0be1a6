"""Leases: files that name the process that owns a resource; one owner over processes and hosts."""

from __future__ import annotations

import errno
import os
import signal
import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeGuard

from pydantic import BaseModel, Field, ValidationError

from gapbench.base.documents import read_json, write_json

# errors of os.link on a file system without hard links
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Lease(BaseModel):
    """The fields of a lease, which name its author; a file may hold more fields.

    Attributes:
        host: name of the machine.
        pid: number of the process in `processes`.
        began: start time of the process, as the kernel states it.
        processes: namespace of the process numbers, in this start of the machine.
        slurm_job: id of the SLURM job; an array task has an id such as 12_3.
        restarts: number of times that SLURM has started the job again.
    """

    model_config = {"strict": True}

    host: Annotated[str, Field(max_length=255)]
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    began: Annotated[str, Field(pattern=r"^[\w ]{1,64}$")]
    processes: Annotated[str, Field(max_length=255)] | None = None
    slurm_job: Annotated[str, Field(pattern=r"^\d+(_\d+)?$")] | None = None
    restarts: Annotated[int, Field(ge=0)] = 0


def this_process() -> dict[str, Any]:
    """Return fields that distinguish this process from all other processes, now and later."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": _process_start(os.getpid()),
        "processes": _processes(),
        "slurm_job": slurm_job(),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    }


def slurm_job() -> str | None:
    """Return the id of this process's SLURM job, such as 12 or (for an array) 12_3, or None."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def is_lease(value: object) -> TypeGuard[dict[str, Any]]:
    """Say whether a document is a valid lease, which names a process."""
    try:
        Lease.model_validate(value)
    except ValidationError:
        return False
    return True


def is_here(lease: Mapping[str, Any]) -> bool:
    """Say whether this process would see the author of a lease if the author is alive.

    Containers may share a host's name, but their process ids denote other processes here.
    """
    return (lease.get("host"), lease.get("processes")) == (socket.gethostname(), _processes())


def runs_here(lease: Mapping[str, Any]) -> bool:
    """Say whether the author of a lease is visible to this process and still runs."""
    return is_lease(lease) and is_here(lease) and _process_start(lease["pid"]) == lease["began"]


def terminate(path: Path, lease: Mapping[str, Any]) -> bool:
    """Send SIGTERM to the author of the lease in `path`; return whether the author was found here.

    A lease may be forged, so the author must be a process that has the file open.
    """
    if not runs_here(lease) or not _has_open(lease["pid"], path):
        return False
    with suppress(ProcessLookupError):
        os.kill(lease["pid"], signal.SIGTERM)
    return True


def _has_open(pid: int, path: Path) -> bool:
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for file in files:
        with suppress(OSError):
            if os.path.samestat(file.stat(), path.lstat()):
                return True
    return False


def outlived(lease: Mapping[str, Any]) -> bool:
    """Say whether SLURM has restarted this job since an earlier copy of the job made the lease.

    SLURM restarts a job if SLURM believes the earlier copy dead. A copy that is still alive, on a
    node without a working daemon, finds its lease gone and stops.
    """
    me = this_process()
    same = me["slurm_job"] is not None and me["slurm_job"] == lease.get("slurm_job")
    return same and me["restarts"] > lease.get("restarts", 0)


def create(path: Path, lease: Mapping[str, Any]) -> bool:
    """Write a lease unless one exists; return whether this process has written the lease."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_json(partial, lease, durable=False)
        _link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def remove(path: Path, lease: Mapping[str, Any] | None) -> None:
    """Remove the lease that was read from `path`, but no other lease that has replaced it."""
    grave = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return
    try:
        if read_json(grave) != lease:
            _link(grave, path)  # it was another's already: give it back
    except FileExistsError:
        pass
    finally:
        grave.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    """Give a file a second name, and fail if the name exists, also on NFS."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # without hard links the new name exists for a moment before its content
        with open(path, "xb") as file:
            file.write(source.read_bytes())


def _process_start(pid: int) -> str | None:
    """Return the kernel's start time of a process, which no later process of the same id shares."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self").exists() else _exists(pid)
    return None if stat[0] == "Z" else stat[19]


@cache
def _processes() -> str | None:
    """Return an id of this boot of the machine and this process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _exists(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "some process"
