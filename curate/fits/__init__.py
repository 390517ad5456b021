"""Pool-level units: `fit(data, config, workers) -> key`, fitted once per state of the pool, then
applied part by part.
"""

from collections.abc import Callable, Mapping
from typing import Any

from curate.dataset import Dataset
from curate.fits import bootstrap, counts, ncl, near_reference, noise, references
from schemas.configs import Workers

Fit = Callable[[Dataset, Any, Workers | int], str]  # -> key of the artifact in _artifacts/<name>/
Columns = Callable[
    [Dataset, Any, str, int], dict[str, list[Any]]
]  # columns that a part's batches need, by row of samples

FITS: Mapping[str, tuple[Fit, Columns]] = {
    "bootstrap": (bootstrap.fit, bootstrap.columns),
    "text_stats": (counts.fit, counts.columns),
    "ncl": (ncl.fit, references.columns),
    "near_reference": (near_reference.fit, references.columns),
    "noise": (noise.fit, references.columns),
}
