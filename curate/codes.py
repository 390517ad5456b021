"""Codes: samples -> codes_*.

What a codebook captioner sees in every downloaded image: a code per patch. Selectors make clusters
of them, so that there is a row for each pair, also where no caption is asked for; codes are null
where the image cannot be decoded. `cluster` is a selector's to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from curate.claims import Claim
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.shards import batches
from curate.storage import as_local
from schemas.configs import CodebookCaptioner, Workers
from schemas.tables import CODES

if TYPE_CHECKING:
    from models.captioners.codebook import Codebook


def write_codes(
    data: Dataset, config: CodebookCaptioner, key: str, workers: Workers | int = 0
) -> None:
    """Write the codes of all parts that lack them. key: of the trained captioner's artifact.

    At the default sizes 1.8 ms of CPU time per image, beside reading and decoding it.
    """
    table, of = f"codes_{config.name}", ("urls", "samples")
    claim = data.claim(table, without_decoding(config), of=of, artifact=key)
    folder = f"{data.path}/_artifacts/{config.name}/{key}"

    def build() -> Work:
        from models.captioners.codebook import Codebook

        with as_local(data.fs, folder) as local:
            captioner = Codebook(config, local)
        return lambda part: _part(data, part, config, claim, captioner)

    run_parts(build, data.missing(claim), workers, label=f"codes {config.name}", model=True)
    data.publish(claim)


def without_decoding(config: CodebookCaptioner) -> CodebookCaptioner:
    """The same with the default way of telling a caption: codes do not depend on it."""
    told = {name: CodebookCaptioner.model_fields[name].default for name in config.decoding}
    return config.model_copy(update=told)


def _part(
    data: Dataset,
    part: int,
    config: CodebookCaptioner,
    claim: Claim,
    captioner: Codebook,
) -> Stats:
    found = [
        pa.Table.from_pydict(
            {"uid": batch.uids, "codes": captioner.codes(batch), "cluster": [None] * len(batch)},
            schema=CODES,
        )
        for batch in batches(data, part, size=config.batch_size)
    ]
    rows = pa.concat_tables(found).sort_by("uid")
    data.write(claim, part, rows)
    return {"rows": rows.num_rows}
