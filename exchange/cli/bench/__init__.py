"""Benchmarks: what each part of an exchange can do on this machine, next to something that it can be compared with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `ratio` is `value` / `reference` where there is a reference to compare with."""

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    detail: str = ""
