"""A throw-away SLURM cluster on this host: own key, own ports, own folder, stopped by process id.

It needs Debian's slurmctld, slurmd, slurm-client and munge, with accounting also slurmdbd and
mariadb-server. Nothing under /etc or /var is read or written; any user may start one.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing(accounting: bool = False) -> list[str]:
    """Return the programs that a cluster needs and that are not installed."""
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    return [name for name in wanted if shutil.which(name, path=PATH) is None]


class Cluster:
    """Four nodes of two processors, whatever this host has.

    Args:
        folder: an empty folder with a short path; the sockets' names must fit 107 bytes.
        accounting: whether slurmdbd and MariaDB record jobs, so that sacct answers.
        lines: further lines of slurm.conf.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 4,
        cpus: int = 2,
        accounting: bool = False,
        lines: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.names = [f"node{number + 1}" for number in range(nodes)]
        self.cpus = cpus
        self.accounting = accounting
        self.lines = lines
        self.conf = folder / "slurm.conf"
        self.env = {"SLURM_CONF": str(self.conf), "PATH": PATH}
        self._started: dict[str, int] = {}

    # -- as a whole ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and wait until all nodes are registered."""
        self.folder.chmod(0o755)  # munged insists that others can reach its socket
        for name in ("pid", "log", "state"):
            (self.folder / name).mkdir()
        self._configure()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for name in self.names:
            self.start_node(name)
        wait_until(self._all_idle, 30, "the nodes to register")

    def stop(self) -> None:
        """Cancel all jobs and stop every process that was started, the last one first."""
        if self._lives("slurmctld"):
            self.clear()
        for name in reversed(list(self._started)):
            self.kill(name, signal.SIGTERM)

    def clear(self) -> None:
        """Cancel all jobs and wait for their end.

        A controller that is killed forgets the last seconds: jobs cancelled then wait again.
        """
        self.run("scancel", "--user", getpass.getuser())
        self.wait_for_jobs(60)

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of SLURM's commands, whatever the shell sets for them; return what it prints."""
        words = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_")
        bare = {name: value for name, value in os.environ.items() if not name.startswith(words)}
        done = subprocess.run(
            command, env={**bare, **self.env}, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def wait_for_jobs(self, seconds: float) -> None:
        """Wait until no job is left, or or raise TimeoutError with those that are."""
        try:
            wait_until(lambda: not self.run("squeue", "--noheader").strip(), seconds, "jobs to end")
        except TimeoutError as error:
            said = (self.run("squeue", "--array", "--long"), self.run("sinfo", "--long", "--Node"))
            raise TimeoutError("\n".join([str(error), *said])) from None

    # -- its parts -----------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Start slurmctld, which goes on with the jobs it had."""
        self._daemon("slurmctld", "slurmctld", "-f", str(self.conf))
        wait_until(lambda: "UP" in self.run("scontrol", "ping", check=False), 15, "slurmctld")

    def start_node(self, name: str) -> None:
        """Start the slurmd of one node."""
        self._daemon(f"slurmd.{name}", "slurmd", "-f", str(self.conf), "-N", name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send one daemon ("slurmctld", "slurmd.node1", ...) a signal and wait for its end."""
        pid = self._pid(name)
        if pid is None:
            return
        os.kill(pid, number)
        try:
            wait_until(lambda: not alive(pid), 20, f"{name} to stop")
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
        del self._started[name]

    def _lives(self, name: str) -> bool:
        pid = self._pid(name)
        return pid is not None and alive(pid)

    def _pid(self, name: str) -> int | None:
        if name not in self._started:
            return None
        file = self.folder / "pid" / name
        return int(file.read_text()) if file.exists() else self._started[name]

    def _daemon(self, name: str, *command: str) -> None:
        """Run a command that puts itself into the background and writes its pid file."""
        file = self.folder / "pid" / name
        file.unlink(missing_ok=True)
        with open(self.folder / "log" / f"{name}.start", "ab") as log:
            done = subprocess.run(
                command,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if done.returncode:
            said = (self.folder / "log" / f"{name}.start").read_text().strip().splitlines()
            raise RuntimeError(f"{name} did not start: {said[-1] if said else 'no message'}")
        wait_until(lambda: file.exists() and bool(file.read_text().strip()), 10, f"{name}'s pid")
        self._started[name] = int(file.read_text())

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._daemon(
            "munged",
            "munged",
            f"--socket={self.folder}/munge.sock",
            f"--key-file={key}",
            f"--pid-file={self.folder}/pid/munged",
            f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={self.folder}/munge.seed",
            "--num-threads=2",
        )

    def _start_accounting(self) -> None:
        data, sock = self.folder / "mysql", self.folder / "mysql.sock"
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        install += [f"--user={getpass.getuser()}", "--auth-root-authentication-method=normal"]
        log = open(self.folder / "log" / "mariadbd.log", "ab")  # noqa: SIM115 - the daemon's
        subprocess.run(install, env={**os.environ, **self.env}, stdout=log, stderr=log, check=True)
        server = [
            "mariadbd",
            "--no-defaults",
            f"--user={getpass.getuser()}",
            f"--datadir={data}",
            f"--socket={sock}",
            f"--pid-file={self.folder}/pid/mariadbd",
            "--bind-address=127.0.0.1",
            f"--port={self.ports['mariadbd']}",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        process = subprocess.Popen(server, env={**os.environ, **self.env}, stdout=log, stderr=log)
        log.close()
        self._started["mariadbd"] = process.pid
        client = ["mariadb", "--no-defaults", "-uroot", "-S", str(sock), "-e"]
        wait_until(lambda: _succeeds([*client, "select 1"], self.env), 30, "mariadbd")
        for host in ("127.0.0.1", "localhost"):
            grant = (
                "create database if not exists slurm_acct_db; "
                f"create user slurm@'{host}' identified by 'slurm'; "
                f"grant all on slurm_acct_db.* to slurm@'{host}';"
            )
            self.run(*client, grant)
        self._daemon("slurmdbd", "slurmdbd")
        show = ["sacctmgr", "--noheader", "show", "cluster"]
        wait_until(lambda: _succeeds(show, self.env), 30, "slurmdbd")
        self.run("sacctmgr", "--immediate", "add", "cluster", "test")

    def _all_idle(self) -> bool:
        # a node that never registered is also called idle, but has no start time
        lines = self.run("scontrol", "--oneliner", "show", "node").splitlines()
        ready = [line for line in lines if " State=IDLE " in line]
        return len(ready) == len(self.names) and all("SlurmdStartTime=2" in li for li in ready)

    # -- configuration -------------------------------------------------------------------------

    def _configure(self) -> None:
        count = len(self.names)
        first = free_ports(count + 3)
        self.ports = {"slurmctld": first, "slurmdbd": first + 1, "mariadbd": first + 2}
        # slurmd 22.05 looks for a cgroup tree unless it is told which kind to expect
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        settings = _slurm_conf(self.folder, self.ports)
        if self.accounting:
            settings += [
                "AccountingStorageType=accounting_storage/slurmdbd",
                "AccountingStorageHost=127.0.0.1",
                f"AccountingStoragePort={self.ports['slurmdbd']}",
                f"AccountingStoragePass={self.folder}/munge.sock",
            ]
        host = socket.gethostname().partition(".")[0]
        settings += [
            f"NodeName=node[1-{count}] NodeHostname={host} NodeAddr=127.0.0.1 "
            f"Port=[{first + 3}-{first + 2 + count}] CPUs={self.cpus} RealMemory=8000",
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            *self.lines,
        ]
        self.conf.write_text("\n".join(settings) + "\n")
        dbd = self.folder / "slurmdbd.conf"
        dbd.touch(mode=0o600)
        dbd.write_text("\n".join(_slurmdbd_conf(self.folder, self.ports)) + "\n")


def _slurm_conf(folder: Path, ports: Mapping[str, int]) -> list[str]:
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    return [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={ports['slurmctld']}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        # a requeued job waits until its credential has expired: 5 s is the least, 120 the default
        f"AuthInfo=socket={folder}/munge.sock,cred_expire=5",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool.%n",
        f"SlurmctldPidFile={folder}/pid/slurmctld",
        f"SlurmdPidFile={folder}/pid/slurmd.%n",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/slurmd.%n.log",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "SlurmdParameters=config_overrides",  # more processors than the host has
        "ReturnToService=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,"
        "batch_sched_delay=0,defer_batch=0,requeue_delay=2",
        "KillWait=10",
        "MessageTimeout=5",  # how long commands wait for a controller that is not there
        "MinJobAge=300",
        "SlurmdTimeout=15",
        "SlurmctldTimeout=10",
        "JobRequeue=1",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=5",
    ]


def _slurmdbd_conf(folder: Path, ports: Mapping[str, int]) -> list[str]:
    return [
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge.sock",
        "DbdHost=localhost",
        "DbdAddr=127.0.0.1",
        f"DbdPort={ports['slurmdbd']}",
        f"SlurmUser={getpass.getuser()}",
        f"PidFile={folder}/pid/slurmdbd",
        f"LogFile={folder}/log/slurmdbd.log",
        "StorageType=accounting_storage/mysql",
        "StorageHost=127.0.0.1",
        f"StoragePort={ports['mariadbd']}",
        "StorageUser=slurm",
        "StoragePass=slurm",
        "StorageLoc=slurm_acct_db",
    ]


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something to become true, or raise TimeoutError."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has waited for yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def free_ports(count: int) -> int:
    """Return the first of `count` neighbouring ports that nothing listens on."""
    # clusters of several test workers start at the same time: their ranges must lie apart; and all
    # lie below the ports that the kernel gives to connections
    first = 20000 + os.getpid() * 16 % 12000
    while not all(_free(first + number) for number in range(count)):
        first += count
    return first


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _succeeds(command: Sequence[str], env: Mapping[str, str]) -> bool:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True)
    return done.returncode == 0
