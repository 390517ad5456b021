"""Selectors: the menu. Each is `select(pool, config) -> SQL` that gives uid, cluster and rank of at
most `pool.count` pairs of the view `pool`; rank counts from 0 in the selector's own order.

A new one has to beat `random` at equal budget in `curate ablate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from curate.selectors import all as everything
from curate.selectors import (
    balance,
    cluster,
    codebook,
    d4,
    density,
    facility,
    kcenter,
    ncl_normsim,
    random,
    top,
)
from curate.selectors.pool import Pool

SELECTORS: Mapping[str, Callable[[Pool, Any], str]] = {
    "all": everything.select,
    "random": random.select,
    "top": top.select,
    "cluster": cluster.select,
    "codebook": codebook.select,
    "balance": balance.select,
    "ncl_normsim": ncl_normsim.select,
    "d4": d4.select,
    "density": density.select,
    "kcenter": kcenter.select,
    "facility": facility.select,
}
