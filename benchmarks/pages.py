"""What benchmarks write: targets held against measurements, JSON, and a section of benchmarks/README.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Target:
    """What is to be reached: ``sign`` says on which side of ``bound``."""

    name: str
    unit: str
    sign: str
    bound: float
    measured: float

    @property
    def reached(self) -> bool:
        """Whether it is reached."""
        return self.measured <= self.bound if self.sign == "<=" else self.measured >= self.bound

    def entry(self) -> dict[str, Any]:
        """Return what a report keeps of it."""
        return {**asdict(self), "reached": self.reached}


def where_and_when(report: Mapping[str, Any]) -> str:
    """Return the first line of a section: the date and the machine."""
    host = report["machine"]
    return f"{report['date']}; {host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / 1e9:.0f} GB."


def target_table(targets: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the targets of a report as the lines of a table."""
    return [
        "| target at full size | to reach | measured | |",
        "| --- | ---: | ---: | --- |",
        *map(_target_row, targets),
    ]


def _target_row(target: Mapping[str, Any]) -> str:
    verdict = "reached" if target["reached"] else "**missed**"
    bound = f"{target['sign']} {target['bound']:g} {target['unit']}"
    return f"| {target['name']} | {bound} | {target['measured']:.2f} {target['unit']} | {verdict} |"


def write_section(report: dict[str, Any], text: str, folder: Path, name: str) -> None:
    """Write a benchmark's JSON, and its text between its two markers in the folder's README.md."""
    begin, end = (f"<!-- {name}: {part} -->" for part in ("begin", "end"))
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    readme = folder / "README.md"
    page = readme.read_text(encoding="utf-8") if readme.is_file() else f"{begin}\n{end}\n"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{readme.name} has lost its markers {begin} and {end}: put them back.")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
