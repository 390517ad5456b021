"""Dataset: a folder of tables; a table is a folder of Parquet parts that never change once written.

    root/_versions/00000003.json            a version: which parts count, and what they came from
    root/scores_clip/_claim.json            the config that makes this table
    root/scores_clip/00000007.g0.parquet    part 7, generation 0; its footer says what it is made of
    root/images/00000007.g0.tar             the images of part 7 of samples
    root/_artifacts/bootstrap/<hash>/       what a pool-level unit has fitted

A stage claims its tables, computes their missing parts, writes each beside and renames it, and
publishes. A part that exists is whole; one that was computed from other generations, another config
or another artifact counts as missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import claims, storage, versions
from curate.claims import Claim, digest
from curate.compaction import compact
from curate.versions import PART_FILE, Part, Tables
from schemas.configs import Config
from schemas.tables import schema_of


@dataclass
class Dataset:
    """Tables under a local folder or any fsspec URL, read at one version.

    version: None reads the newest and moves on with `publish`; a number reads that one for good.
    """

    root: str
    version: int | None = None
    storage_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open()
        self.refresh()

    def _open(self) -> None:
        if "://" not in str(self.root):  # workers on a cluster have other working directories
            self.root = str(Path(self.root).absolute())
        self.fs, path = fsspec.core.url_to_fs(str(self.root), **self.storage_options)
        self.path = str(path).rstrip("/")
        self._footers: dict[str, Part] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("fs", "_footers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    # -------------------------------------------------------------------------------- versions

    def versions(self) -> list[int]:
        """The published versions, oldest first."""
        return versions.numbers(self.fs, self.path)

    def refresh(self) -> None:
        """Read the manifest anew. Raises ValueError where the asked version does not exist."""
        have = self.versions()
        if self.version is not None and self.version not in have:
            raise ValueError(f"{self.root} has no version {self.version}; it has {have or 'none'}")
        self.at = self.version if self.version is not None else max(have, default=0)
        self._tables: Tables = versions.load(self.fs, self.path, self.at) if self.at else {}
        self._footers.clear()

    def publish(self, *done: Claim) -> int:
        """Make the claims' whole parts the ones that everybody reads; returns the version.

        Nothing is published when nothing has changed. Raises ValueError where another run has
        published meanwhile.
        """
        tables = self._tables | {
            c.table: compact(
                self.fs,
                f"{self.path}/{c.table}",
                self._current(c),
                self._tables.get(c.table, {}),
            )
            for c in done
        }
        if tables != self._tables:
            versions.publish(self.fs, self.path, self.at + 1, tables)
            self._tables, self.at = tables, self.at + 1
        return self.at

    def retire(self, *tables: str) -> int:
        """Publish a version without these tables; their parts stay for older versions."""
        remaining = {t: parts for t, parts in self._tables.items() if t not in tables}
        if len(remaining) < len(self._tables):
            versions.publish(self.fs, self.path, self.at + 1, remaining)
            self._tables, self.at = remaining, self.at + 1
        return self.at

    def drop(self, table: str) -> None:
        """Retire a table and let it be made anew, with another config or the same one.

        Older versions keep its parts. Raises ValueError for an unknown table, and for the two that
        everything else is made of.
        """
        if table in ("urls", "sightings"):
            raise ValueError(f"{table} is what everything else is made of: start another dataset")
        if not claims.release(self.fs, f"{self.path}/{table}"):
            raise ValueError(f"{self.root} has no table {table!r}; it has {self._have()}")
        self.retire(table)

    # -------------------------------------------------------------------------------- claims

    def claim(
        self,
        table: str,
        config: Config,
        *,
        of: Sequence[str] = (),
        also: Sequence[str] = (),
        artifact: str = "",
        append: bool = False,
        revisable: bool = False,
    ) -> Claim:
        """The right to write `table` with this config.

        Raises ValueError where parts made with another config are there, naming the field that
        differs, unless the table is revisable: decisions cost seconds, so a changed rule simply
        makes the next generation.
        """
        folder = f"{self.path}/{table}"
        revisable = revisable or not self._on_disk(table)  # a claim alone binds nobody
        key = claims.stake(self.fs, folder, config, revisable=revisable)
        return Claim(table, key, tuple(of), tuple(also), artifact, append)

    def config_of(self, table: str) -> dict[str, Any]:
        """What this version's parts of a table were made with; {} where there is no such table."""
        keys = {str(p.inputs.get("config")) for p in self._tables.get(table, {}).values()}
        return claims.config_of(self.fs, f"{self.path}/{table}", sorted(keys))

    def inputs(self, claim: Claim, part: int) -> dict[str, Any]:
        """What a part of the claimed table has to be computed from, at this version."""
        wanted: dict[str, Any] = {"config": claim.config}
        if claim.artifact:
            wanted["artifact"] = claim.artifact
        for table in claim.of:
            wanted[table] = self._tables[table][part].content
        for table in claim.also:
            known = self._tables.get(table, {}).get(part)
            wanted[table] = known.content if known else None
        return wanted

    def artifact_in_use(self, table: str) -> str:
        """The artifact that this version's parts of a table were computed with; "" for none."""
        parts = self._tables.get(table, {}).values()
        return max((str(p.inputs.get("artifact", "")) for p in parts), default="")

    def missing(
        self, wanted_by: Claim | Iterable[Claim], parts: Iterable[int] | None = None
    ) -> list[int]:
        """Part numbers that at least one of the claims has no valid part for.

        parts: the numbers that have to be there; None: those of the tables the claims are `of`.
        """
        some = [wanted_by] if isinstance(wanted_by, Claim) else list(wanted_by)
        wanted = set(parts) if parts is not None else {p for c in some for p in self._aligned(c)}
        have = [set(self._current(c)) for c in some]
        return sorted(p for p in wanted if not all(p in h for h in have))

    def _aligned(self, claim: Claim) -> list[int]:
        shared = [set(self._tables.get(t, {})) for t in claim.of]
        return sorted(set.intersection(*shared)) if shared else []

    def _current(self, claim: Claim) -> dict[int, Part]:
        """The valid parts of a claim, the newest generation of each, published or not."""
        found, published = self._on_disk(claim.table), self._tables.get(claim.table, {})
        valid: dict[int, Part] = {}
        for part in self._aligned(claim) if claim.of else sorted(found):
            wanted = self.inputs(claim, part)
            entries = (self._entry(claim.table, part, name) for name in found.get(part, []))
            entry = next((e for e in entries if e.inputs == wanted), published.get(part))
            if entry and entry.inputs == wanted:
                valid[part] = entry
        return published | valid if claim.append else valid

    def _on_disk(self, table: str) -> dict[int, list[str]]:
        """File names by part, the newest generation first."""
        found: dict[int, list[tuple[int, str]]] = {}
        for name in storage.names(self.fs, f"{self.path}/{table}"):
            if match := PART_FILE.match(name):
                found.setdefault(int(match[1]), []).append((int(match[2]), name))
        return {part: [name for _, name in sorted(n, reverse=True)] for part, n in found.items()}

    def _entry(self, table: str, part: int, name: str) -> Part:
        """What a part's file is, by the manifest where that names this generation of it."""
        key, generation = f"{table}/{name}", int(name[10:].split(".", 1)[0])
        known = self._tables.get(table, {}).get(part)
        if known and known.generation == generation:
            return known
        if key not in self._footers:
            with self.fs.open(f"{self.path}/{key}", "rb") as stream:
                meta = pq.read_metadata(stream)
            told = meta.metadata or {}
            inputs, notes = (json.loads(told.get(k, b"{}")) for k in (b"curate", b"curate_notes"))
            self._footers[key] = Part(name, generation, meta.num_rows, inputs, notes=notes)
        return self._footers[key]

    # -------------------------------------------------------------------------------- tables

    def tables(self) -> list[str]:
        """Names of the tables of this version."""
        return sorted(self._tables)

    def parts(self, table: str) -> dict[int, Part]:
        """The parts of a table, by number. Raises ValueError where there is no such table."""
        if table not in self._tables:
            raise ValueError(f"{self.root} has no table {table!r}; it has {self._have()}")
        return self._tables[table]

    def _have(self) -> str:
        return ", ".join(self.tables()) or "none"

    def rows(self, table: str) -> int:
        """Rows of a table at this version; 0 where it is not there yet."""
        return sum(p.rows for p in self._tables.get(table, {}).values())

    def files(self, table: str) -> list[str]:
        """Paths of a table's files, as the file system knows them."""
        names = dict.fromkeys(p.file for _, p in sorted(self.parts(table).items()))
        return [f"{self.path}/{table}/{name}" for name in names]

    def fingerprint(self, tables: Sequence[str]) -> str:
        """A hash of the state of these tables: what pool-level artifacts depend on."""
        return digest(
            [
                [t, [[p, e.content, dict(e.inputs)] for p, e in sorted(self._tables[t].items())]]
                for t in tables
                if t in self._tables
            ]
        )

    def read(self, table: str, part: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One part of a table."""
        entry, names = self.parts(table)[part], list(columns) if columns else None
        path = f"{self.path}/{table}/{entry.file}"
        if entry.row_group is None:
            return pq.read_table(pa.BufferReader(self.fs.cat_file(path)), columns=names)
        with self.fs.open(path, "rb") as stream:
            return pq.ParquetFile(stream).read_row_group(entry.row_group, columns=names)

    def write(
        self,
        claim: Claim,
        part: int,
        rows: pa.Table,
        *,
        again: bool = False,
        notes: Mapping[str, int] | None = None,
    ) -> None:
        """Write the next generation of a part, whole or not at all, cast to the table's schema.

        A part that is there with the same inputs stays, as after a kill between writing and
        saying so; `again` is for a retry, whose inputs are the same and whose rows are not.
        notes: kept in the manifest; `content` says which generation it still is for others.
        """
        if not again and self.has(claim, part):
            return
        contract = schema_of(claim.table)
        if contract is not None:
            more = [rows.schema.field(n) for n in rows.column_names if n not in contract.names]
            schema = pa.schema([*contract, *more])
            rows = rows.select(schema.names).cast(schema)
        inputs = json.dumps(self.inputs(claim, part), sort_keys=True)
        said = {"curate_notes": json.dumps(dict(notes), sort_keys=True)} if notes else {}
        rows = without_nan(rows).replace_schema_metadata({"curate": inputs} | said)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        written = False
        while not written:  # another run may have taken the generation meanwhile
            name = f"{part:08d}.g{self.next_generation(claim.table, part)}.parquet"
            path = f"{self.path}/{claim.table}/{name}"
            written = storage.create(self.fs, path, sink.getvalue().to_pybytes())

    def has(self, claim: Claim, part: int) -> bool:
        """Whether the newest generation of a part has the inputs that the claim asks for."""
        newest = self.next_generation(claim.table, part) - 1
        if newest < 0:
            return False
        name = f"{part:08d}.g{newest}.parquet"
        return self._entry(claim.table, part, name).inputs == self.inputs(claim, part)

    def previous(self, claim: Claim, part: int) -> pa.Table | None:
        """The published rows of a part that this config and artifact made, from whatever inputs."""
        known = self._tables.get(claim.table, {}).get(part)
        made = (claim.config, claim.artifact)
        if known is None or (known.inputs["config"], known.inputs.get("artifact", "")) != made:
            return None
        return self.read(claim.table, part)

    def next_generation(self, table: str, part: int) -> int:
        """The generation that the next write of this part will have."""
        known = self._tables.get(table, {}).get(part)
        generation = known.generation + 1 if known else 0
        while self.fs.exists(f"{self.path}/{table}/{part:08d}.g{generation}.parquet"):
            generation += 1
        return generation

    # -------------------------------------------------------------------------------- other files

    @contextmanager
    def new_tar(self, part: int) -> Iterator[tuple[str, BinaryIO]]:
        """(file name in images/, stream) for the images of the next generation of samples' part."""
        name = f"{part:08d}.g{self.next_generation('samples', part)}.tar"
        with storage.writing(self.fs, self.tar_path(name)) as stream:
            yield name, stream

    def tar_path(self, shard: str) -> str:
        """Path of an image tar that samples.shard names."""
        return f"{self.path}/images/{shard}"

    def artifact(self, unit: str, key: str, make: Callable[[str], None]) -> str:
        """Path of an artifact's folder, filled by `make(local folder)` unless it is there."""
        path = f"{self.path}/_artifacts/{unit}/{key}"
        if not self.fs.exists(f"{path}/_done"):
            storage.fill_folder(self.fs, path, make)
        return path


def without_nan(rows: pa.Table) -> pa.Table:
    """NaN as null: no number is no number. Parquet's statistics leave NaN out, and DuckDB, which
    answers from them, takes it for whatever value the others have.
    """
    for at, column in enumerate(rows.schema):
        if pa.types.is_float32(column.type) or pa.types.is_float64(column.type):
            nan = pc.is_nan(rows[at])
            if pc.any(nan).as_py():
                known = pc.if_else(nan, pa.scalar(None, column.type), rows[at])
                rows = rows.set_column(at, column, known)
    return rows


def existing(root: str, version: int | None = None) -> Dataset:
    """A dataset that is there. Raises ValueError where the folder holds none."""
    data = Dataset(root, version)
    if not data.tables():
        raise ValueError(f"{root} holds no dataset: `curate run` or `curate demo` makes one")
    return data
