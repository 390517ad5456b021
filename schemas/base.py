"""What every config is: frozen, strict, and able to say what of it decides the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# no double underscore: columns of `pairs` are called <table>__<column>
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=40)]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

Positive = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A frozen set of knobs; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    runtime: ClassVar[frozenset[str]] = frozenset()
    # of the unit that this configures: raised by hand when its results change
    version: ClassVar[int] = 1

    def claimed(self) -> dict[str, Any]:
        """What decides the result, JSON-ready: all a table remembers.

        Knobs at their default are left out, so that a new knob refuses no dataset that is there; a
        default that changes raises `version`.
        """
        return _chosen(self) | {"version": self.version}


def _chosen(config: Config) -> dict[str, Any]:
    return {
        name: _plain(getattr(config, name))
        for name, field in type(config).model_fields.items()
        if name not in config.runtime
        and (name in ("kind", "name") or getattr(config, name) != field.default)
    }


def _plain(value: Any) -> Any:
    """A knob's value as JSON has it."""
    if isinstance(value, Config):
        return _chosen(value)
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


class Workers(Config):
    """Where work runs: `count: 0` in this process, else that many Ray actors (grown to
    `max_count`).
    """

    count: int = Field(0, ge=0)
    max_count: int | None = Field(None, ge=1)  # None: as many as `count`
    cpus: float = Field(1.0, gt=0)  # logical CPUs of one worker
    gpus: float | None = Field(
        None, ge=0
    )  # of one worker; None: 1 where the cluster has one, for stages with a model
    # of a running Ray cluster; None: a local one, started once per process
    address: str | None = None


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: where, what is wrong, what was seen."""
    lines = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"]) or "recipe"
        seen = "" if isinstance(item["input"], dict | list) else f" (found {item['input']!r})"
        lines.append(f"{where}: {item['msg']}{seen}")
    return "; ".join(lines)


def refuse_unknown(field: str, wanted: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raise ValueError for the first name that is wanted and not known."""
    if missing := [name for name in wanted if name not in known]:
        has = ", ".join(known) or "none"
        raise ValueError(f"{field}: {missing[0]!r} is not among the {what}: {has}")
