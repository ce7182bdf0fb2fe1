"""A dask.distributed cluster of processes of its own on this machine, as a person would start one."""

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lake

SECONDS_TO_START = 60


@dataclass
class Cluster:
    """A scheduler and its workers, each a process.

    Attributes
    ----------
    address : str
    scheduler : subprocess.Popen
    workers : list of subprocess.Popen
    start_worker : callable
        One more.
    """

    address: str
    scheduler: "subprocess.Popen[bytes]"
    folder: Path
    options: tuple[str, ...]
    environment: Mapping[str, str]
    processes: ExitStack
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_worker(self) -> None:
        """One more worker, with one thread."""
        where = self.folder / f"worker{len(self.workers)}"
        where.mkdir()
        command = ["distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny"]
        named = ["--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(where)]
        self.workers.append(
            self.processes.enter_context(_running([*command, *named, *self.options], where, self.environment))
        )


@contextmanager
def cluster(
    folder: Path, *, workers: int = 2, tls: Path | None = None, path: Sequence[Path] = ()
) -> Iterator[Cluster]:
    """Start a scheduler and its workers on 127.0.0.1, and end them.

    Parameters
    ----------
    folder : pathlib.Path
        For their files; none of them works in this directory.
    workers : int
    tls : pathlib.Path, optional
        Folder of `certificates`.
    path : sequence of pathlib.Path
        Folders of modules that the workers find.
    """
    options = tls_options(tls) if tls else ()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    told = folder / "scheduler.json"
    command = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    where = ["--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(told)]
    with ExitStack() as processes:
        scheduler = processes.enter_context(_running([*command, *where, *options], folder, environment))
        made = Cluster(_address(told, scheduler), scheduler, folder, options, environment, processes)
        for _ in range(workers):
            made.start_worker()
        with lake.connect(made.address, **(tls_files(tls) if tls else {})) as client:
            if workers:
                client.wait_for_workers(workers, timeout=SECONDS_TO_START)
        yield made


@contextmanager
def _running(
    module: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A module as a process, killed at the end."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _address(told: Path, scheduler: "subprocess.Popen[bytes]") -> str:
    ends = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < ends and scheduler.poll() is None:
        if told.exists() and (text := told.read_text()).endswith("}"):
            return str(json.loads(text)["address"])
        time.sleep(0.05)
    raise AssertionError((told.parent / "log.txt").read_text())


def certificates(folder: Path) -> dict[str, str]:
    """A certificate that vouches for itself, and its key, in a new folder; as `lake.connect` takes them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return tls_files(folder)


def tls_files(folder: Path) -> dict[str, str]:
    """The files of `certificates`, as `lake.connect` takes them."""
    own = f"{folder}/certificate.pem"
    return {"ca_file": own, "cert": own, "key": f"{folder}/key.pem"}


def tls_options(folder: Path) -> tuple[str, ...]:
    """The same for the command line of schedulers and workers."""
    names = {"ca_file": "--tls-ca-file", "cert": "--tls-cert", "key": "--tls-key"}
    return tuple(word for name, file in tls_files(folder).items() for word in (names[name], file))
