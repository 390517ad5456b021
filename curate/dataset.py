"""Dataset: a folder of tables; a table is a folder of Parquet parts that never change; a version names the parts that count.

    root/_versions/00000003.json            the manifest: which file is which part of which table, and what it came from
    root/scores_clip/_claim.json            the config that makes this table
    root/scores_clip/00000007.g0.parquet    part 7, generation 0; its footer says what it was computed from
    root/images/00000007.g0.tar             the images of samples' part 7
    root/_artifacts/bootstrap/<hash>/       what a pool-level unit has fitted

A stage claims its tables, computes their missing parts, writes each beside and renames it, and publishes. A part that
exists is whole; one that was computed from other generations, another config or another artifact counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate import storage
from schemas.configs import Config
from schemas.tables import schema_of

_PART = re.compile(r"^(\d{8})\.g(\d+)\.parquet$")


def digest(value: object) -> str:
    """A short, stable hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Part:
    """One part as a manifest names it."""

    file: str  # in the table's folder
    rows: int
    inputs: Mapping[str, Any]  # "config", "artifact", and the generation of each table it was computed from

    @property
    def generation(self) -> int:
        match = _PART.match(self.file)
        return int(match[2]) if match else 0


@dataclass(frozen=True)
class Claim:
    """A stage's right to write a table.

    of: tables whose part p is what part p of this table is computed from; () where parts are numbered otherwise.
    artifact: hash of the fitted state or of the pool's state that the parts depend on.
    append: parts of other artifacts stay in the version (ingest batches, training runs).
    """

    table: str
    config: str
    of: tuple[str, ...] = ()
    artifact: str = ""
    append: bool = False


@dataclass
class Dataset:
    """Tables under a local folder or any fsspec URL, read at one version.

    version: None reads the newest and moves on with `publish`; a number reads that one.
    """

    root: str
    version: int | None = None
    storage_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fs, self.path = fsspec.core.url_to_fs(str(self.root), **self.storage_options)
        self.path = self.path.rstrip("/")
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("fs", "_footers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.fs, _ = fsspec.core.url_to_fs(str(self.root), **self.storage_options)
        self._footers: dict[str, Part] = {}

    # ------------------------------------------------------------------------------------ versions

    def versions(self) -> list[int]:
        """The published versions, oldest first."""
        names = storage.names(self.fs, f"{self.path}/_versions")
        return sorted(int(n.split(".")[0]) for n in names if re.fullmatch(r"\d{8}\.json", n))

    def refresh(self) -> None:
        """Read the manifest anew. Raises ValueError where the asked version does not exist."""
        self._footers = {}
        have = self.versions()
        if self.version is not None and self.version not in have:
            raise ValueError(f"{self.root} has no version {self.version}; it has {have or 'none'}")
        self.at = self.version if self.version is not None else max(have, default=0)
        self._claims: dict[str, str] = {}
        self._tables: dict[str, dict[int, Part]] = {}
        if self.at:
            raw = json.loads(self.fs.cat_file(f"{self.path}/_versions/{self.at:08d}.json"))
            for table, parts in raw["tables"].items():
                self._tables[table] = {int(p): Part(*entry) for p, entry in parts.items()}

    def publish(self, *claims: Claim) -> int:
        """Make the claims' whole parts the ones that everybody reads; returns the version's number.

        Nothing is published when nothing has changed. Two writers at once: the second one gets a ValueError.
        """
        tables = dict(self._tables)
        for claim in claims:
            tables[claim.table] = self._current(claim)
        if tables == self._tables:
            return self.at
        body = {
            "version": self.at + 1,
            "tables": {
                t: {str(p): [e.file, e.rows, dict(e.inputs)] for p, e in sorted(parts.items())}
                for t, parts in sorted(tables.items())
            },
        }
        path = f"{self.path}/_versions/{self.at + 1:08d}.json"
        if not storage.create(self.fs, path, json.dumps(body, indent=1).encode()):
            raise ValueError(f"version {self.at + 1} of {self.root} was published by another run meanwhile; run again")
        self._tables, self.at = tables, self.at + 1
        return self.at

    def drop(self, table: str) -> None:
        """Forget a table: its claim, its parts and, from the next version on, its name. For starting anew."""
        if table not in self.tables() and not storage.names(self.fs, f"{self.path}/{table}"):
            raise ValueError(f"{self.root} has no table {table!r}; it has {', '.join(self.tables()) or 'none'}")
        remaining = {t: p for t, p in self._tables.items() if t != table}
        if remaining != self._tables:
            body = {
                "version": self.at + 1,
                "tables": {t: {str(p): [e.file, e.rows, dict(e.inputs)] for p, e in parts.items()} for t, parts in remaining.items()},
            }
            storage.create(self.fs, f"{self.path}/_versions/{self.at + 1:08d}.json", json.dumps(body, indent=1).encode())
        if self.fs.exists(f"{self.path}/{table}"):
            self.fs.rm(f"{self.path}/{table}", recursive=True)
        self.refresh()

    # ------------------------------------------------------------------------------------ claims

    def claim(
        self,
        table: str,
        config: Config,
        *,
        of: Sequence[str] = (),
        artifact: str = "",
        append: bool = False,
        revisable: bool = False,
    ) -> Claim:
        """The right to write `table` with this config.

        Raises ValueError when parts made with another config are there, naming the field that differs, unless the
        table is revisable: decisions cost seconds, so a changed rule simply makes the next generation.
        """
        wanted = config.claimed()
        path = f"{self.path}/{table}/_claim.json"
        if not revisable and self.fs.exists(path):
            found = json.loads(self.fs.cat_file(path))
            if differing := [k for k in sorted(wanted | found) if wanted.get(k) != found.get(k)]:
                changes = ", ".join(f"{k}: {found.get(k)!r} -> {wanted.get(k)!r}" for k in differing)
                raise ValueError(
                    f"table {table!r} of {self.root} was made with another config ({changes}); give the unit another "
                    f"`name`, or start this table anew with `curate drop {self.root} {table}`"
                )
        storage.replace(self.fs, path, json.dumps(wanted, sort_keys=True, indent=1).encode())
        return Claim(table, digest(wanted), tuple(of), artifact, append)

    def inputs(self, claim: Claim, part: int) -> dict[str, Any]:
        """What part `part` of the claimed table has to be computed from, at this version."""
        wanted: dict[str, Any] = {"config": claim.config}
        if claim.artifact:
            wanted["artifact"] = claim.artifact
        for table in claim.of:
            wanted[table] = self._tables[table][part].generation
        return wanted

    def missing(self, claims: Claim | Iterable[Claim], parts: Iterable[int] | None = None) -> list[int]:
        """Part numbers that at least one of the claims has no valid part for.

        parts: the numbers there have to be; None: those of the tables that the claims are computed `of`.
        """
        some = [claims] if isinstance(claims, Claim) else list(claims)
        wanted = set(parts) if parts is not None else {p for c in some for p in self._aligned(c)}
        have = [set(self._current(c)) for c in some]
        return sorted(p for p in wanted if not all(p in h for h in have))

    def _aligned(self, claim: Claim) -> list[int]:
        shared = [set(self._tables.get(t, {})) for t in claim.of]
        return sorted(set.intersection(*shared)) if shared else []

    def _current(self, claim: Claim) -> dict[int, Part]:
        """The valid parts of a claim: newest generation first, published or not."""
        found = self._on_disk(claim.table)
        valid: dict[int, Part] = {}
        for part in self._aligned(claim) if claim.of else sorted(found):
            wanted = self.inputs(claim, part)
            for name in found.get(part, []):
                entry = self._entry(claim.table, name)
                if entry.inputs == wanted:
                    valid[part] = entry
                    break
        return self._tables.get(claim.table, {}) | valid if claim.append else valid

    def _on_disk(self, table: str) -> dict[int, list[str]]:
        found: dict[int, list[tuple[int, str]]] = {}
        for name in storage.names(self.fs, f"{self.path}/{table}"):
            if match := _PART.match(name):
                found.setdefault(int(match[1]), []).append((int(match[2]), name))
        return {part: [name for _, name in sorted(names, reverse=True)] for part, names in found.items()}

    def _entry(self, table: str, name: str) -> Part:
        key = f"{table}/{name}"
        if key not in self._footers:
            known = self._tables.get(table, {}).get(int(name[:8]))
            self._footers[key] = known if known and known.file == name else self._footer(key, name)
        return self._footers[key]

    def _footer(self, key: str, name: str) -> Part:
        with self.fs.open(f"{self.path}/{key}", "rb") as stream:
            meta = pq.read_metadata(stream)
        return Part(name, meta.num_rows, json.loads((meta.metadata or {}).get(b"curate", b"{}")))

    # ------------------------------------------------------------------------------------ tables and parts

    def tables(self) -> list[str]:
        """Names of the tables of this version."""
        return sorted(self._tables)

    def parts(self, table: str) -> dict[int, Part]:
        """The parts of a table at this version, by number. Raises ValueError where there is no such table."""
        if table not in self._tables:
            raise ValueError(f"{self.root} has no table {table!r}; it has {', '.join(self.tables()) or 'none'}")
        return self._tables[table]

    def rows(self, table: str) -> int:
        """Rows of a table at this version; 0 where it is not there yet."""
        return sum(p.rows for p in self._tables.get(table, {}).values())

    def files(self, table: str) -> list[str]:
        """Paths of a table's files, as the file system knows them."""
        return [f"{self.path}/{table}/{p.file}" for _, p in sorted(self.parts(table).items())]

    def fingerprint(self, tables: Sequence[str]) -> str:
        """A hash of the state of these tables at this version: what pool-level artifacts depend on."""
        return digest([[t, [[p, e.file, dict(e.inputs)] for p, e in sorted(self._tables.get(t, {}).items())]] for t in tables])

    def read(self, table: str, part: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One part of a table."""
        entry = self.parts(table)[part]
        data = self.fs.cat_file(f"{self.path}/{table}/{entry.file}")
        return pq.read_table(pa.BufferReader(data), columns=list(columns) if columns else None)

    def write(self, claim: Claim, part: int, rows: pa.Table) -> None:
        """Write the next generation of a part, whole or not at all. Columns are cast to the table's schema."""
        contract = schema_of(claim.table)
        if contract is not None:
            extra = [rows.schema.field(n) for n in rows.column_names if n not in contract.names]
            rows = rows.select([*contract.names, *(f.name for f in extra)])
            rows = rows.cast(pa.schema([*contract, *extra]))
        inputs = json.dumps(self.inputs(claim, part), sort_keys=True)
        rows = rows.replace_schema_metadata({"curate": inputs})
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        name = f"{part:08d}.g{self.next_generation(claim.table, part)}.parquet"
        storage.replace(self.fs, f"{self.path}/{claim.table}/{name}", sink.getvalue())

    def next_generation(self, table: str, part: int) -> int:
        """The generation that the next write of this part will have."""
        newest = self._on_disk(table).get(part, [])
        match = _PART.match(newest[0]) if newest else None
        return int(match[2]) + 1 if match else 0

    # ------------------------------------------------------------------------------------ files beside the tables

    @contextmanager
    def new_tar(self, part: int) -> Iterator[tuple[str, BinaryIO]]:
        """A stream for the images of the next generation of samples' part: (file name in images/, stream)."""
        name = f"{part:08d}.g{self.next_generation('samples', part)}.tar"
        with storage.writing(self.fs, f"{self.path}/images/{name}") as stream:
            yield name, stream

    def tar_path(self, shard: str) -> str:
        """Path of an image tar that samples.shard names."""
        return f"{self.path}/images/{shard}"

    def artifact(self, unit: str, key: str, make: Callable[[str], None]) -> str:
        """Path of the folder of an artifact, made by `make(folder)` (a local folder) unless it is there already."""
        path = f"{self.path}/_artifacts/{unit}/{key}"
        if not self.fs.exists(f"{path}/_done"):
            storage.fill_folder(self.fs, path, make)
        return path
