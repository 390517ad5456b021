"""Claims: what a table is made with, remembered beside its parts.

<table>/_claim.json             the config of the next part, and how often the table was dropped
<table>/_config.<digest>.json   every config that parts were made with; parts name the digest
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.spec import AbstractFileSystem

from curate import storage
from schemas.configs import Config

ANEW = "_anew"  # in a claim: how often its table was dropped
UNSET = "its default"


def digest(value: object) -> str:
    """A short, stable hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Claim:
    """A stage's right to write a table.

    of: tables whose part p is what part p of this one is made of; () where parts are numbered
    otherwise. also: such tables that need not have the part. artifact: hash of the fitted state,
    or of the state of the pool, that all parts depend on. append: parts of other artifacts stay in
    the version (ingest batches, training runs).
    """

    table: str
    config: str
    of: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    artifact: str = ""
    append: bool = False


def stake(fs: AbstractFileSystem, folder: str, config: Config, *, revisable: bool) -> str:
    """Remember that a table is made with this config; returns the digest that its parts will name.

    Raises ValueError where it was made with another one, naming the fields, unless `revisable`.
    """
    wanted = json.loads(json.dumps(config.claimed()))  # tuples as the lists they become
    found = _read(fs, f"{folder}/_claim.json")
    anew = {ANEW: found.pop(ANEW)} if ANEW in found else {}
    if found and not revisable:
        _refuse_another(folder, wanted, found)
    key = digest(wanted | anew)
    body = json.dumps(wanted | anew, sort_keys=True, indent=1)
    storage.replace(fs, f"{folder}/_claim.json", body.encode())
    storage.replace(fs, f"{folder}/_config.{key}.json", json.dumps(wanted).encode())
    return key


def release(fs: AbstractFileSystem, folder: str) -> bool:
    """Let a table be made anew, even with the same config; False where nobody has claimed it."""
    if not fs.exists(f"{folder}/_claim.json"):
        return False
    times = _read(fs, f"{folder}/_claim.json").get(ANEW, 0) + 1
    storage.replace(fs, f"{folder}/_claim.json", json.dumps({ANEW: times}).encode())
    return True


def config_of(fs: AbstractFileSystem, folder: str, keys: Sequence[str]) -> dict[str, Any]:
    """The config of the last of these digests that is known; {} for none."""
    known = (_read(fs, f"{folder}/_config.{key}.json") for key in reversed(keys))
    return next((config for config in known if config), {})


def _read(fs: AbstractFileSystem, path: str) -> dict[str, Any]:
    return dict(json.loads(fs.cat_file(path))) if fs.exists(path) else {}


def _refuse_another(folder: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    changed = [k for k in sorted(wanted | found) if wanted.get(k) != found.get(k)]
    if changed:
        root, table = folder.rsplit("/", 1)
        changes = ", ".join(
            f"{k}: {found.get(k, UNSET)!r} -> {wanted.get(k, UNSET)!r}" for k in changed
        )
        raise ValueError(
            f"table {table!r} of {root} was made with another config ({changes}); give the unit"
            f" another `name`, or start anew with `curate drop {root} {table}`"
        )
