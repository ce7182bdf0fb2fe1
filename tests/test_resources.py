"""How much of the machine a run takes where nothing is said, and what it makes of what is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lake import resources
from lake.errors import RequestError
from lake.resources import BASE_BYTES, SHARE_OF_MEMORY, WORKER_BYTES, Resources, machine_memory, peak_memory

Machine = Callable[..., None]
GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of 64 GiB whose control groups are these."""

    def made(membership: str, limits: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for place, limit in limits.items():
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_text(limit)

    monkeypatch.setattr(resources, "CGROUPS", tmp_path)
    monkeypatch.setattr(resources, "MEMBERSHIP", tmp_path / "membership")
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}
    monkeypatch.setattr(resources.os, "sysconf", lambda name: sizes[name])  # type: ignore[attr-defined]
    return made


JOB = "0::/slurm/job_7/step_0\n"
MEMBER = "5:cpu,cpuacct:/a\n4:hugetlb,memory:/docker/a:b\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {}, 64 * GIB),
        ("0::/\n", {"memory.max": "max\n"}, 64 * GIB),
        ("0::/\n", {"memory.max": f"{8 * GIB}\n"}, 8 * GIB),
        (JOB, {"memory.max": "max", "slurm/job_7/memory.max": str(4 * GIB)}, 4 * GIB),
        (JOB, {"slurm/memory.max": str(2 * GIB), "slurm/job_7/memory.max": str(4 * GIB)}, 2 * GIB),
        (JOB, {"slurm/job_8/memory.max": str(GIB)}, 64 * GIB),
        (MEMBER, {"memory/docker/a:b/memory.limit_in_bytes": str(3 * GIB)}, 3 * GIB),
        (MEMBER, {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory.max": str(6 * GIB)}, 6 * GIB),
        ("0::/../outside\n", {"memory.max": str(5 * GIB)}, 5 * GIB),
    ],
    ids=["bare", "no limit", "container", "job", "outer", "another's", "version 1", "hybrid", "elsewhere"],
)
def test_the_least_limit_of_its_groups_counts(
    membership: str, limits: dict[str, str], expected: int, machine: Machine
) -> None:
    machine(membership, limits)
    assert machine_memory() == expected
    assert Resources.of(workers=1).memory == int(expected * SHARE_OF_MEMORY)


def test_without_groups_it_is_the_machines(machine: Machine) -> None:
    assert machine_memory() == 64 * GIB  # there is no file of them


def test_what_is_allowed_is_divided(machine: Machine) -> None:
    limit = BASE_BYTES + 3 * WORKER_BYTES + 7
    assert Resources.of(workers=9, memory_limit=limit) == Resources(workers=3, memory=limit)
    assert Resources.of(workers=2, memory_limit=limit).room == WORKER_BYTES + 7


@pytest.mark.parametrize("limit", ["much", "1 parsec", "infGB"])
def test_what_is_no_amount_is_refused(limit: str) -> None:
    with pytest.raises(RequestError, match=f"memory_limit='{limit}' is no amount of memory; write 2GB"):
        Resources.of(memory_limit=limit)


@pytest.mark.parametrize("limit", ["-1GB", 0, "619MiB"])
def test_too_little_is_refused(limit: str | int) -> None:
    with pytest.raises(RequestError, match=r"a run needs 620.00 MiB or more"):
        Resources.of(memory_limit=limit)


def test_the_peak_is_never_less_than_what_is_held() -> None:
    before = peak_memory()
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory() >= before
    assert peak_memory() > 64 << 20
