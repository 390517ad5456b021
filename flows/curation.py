"""Curation: the way of the data, one line per stage. Read this file first.

With no server configured the flow runs by itself; with PREFECT_API_URL set the same run shows up
there, and a deployment schedules it. What is done is what the dataset holds: Prefect caches
nothing, and a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from curate.ablate import ablate
from curate.compress import compress
from curate.dataset import Dataset
from curate.dedup import dedup
from curate.download import download
from curate.export import export
from curate.filter import filter_pairs
from curate.ingest import ingest
from curate.recaption import recaption
from curate.score import score, score_captions
from flows.artifacts import show_download, show_funnel
from schemas.configs import CurationConfig


def is_passing(task: object, run: object, state: State[object]) -> bool:
    """Whether trying again may help: a ValueError is the user's to mend."""
    return not isinstance(state.result(raise_on_failure=False), ValueError)


step = task(
    retries=2, retry_delay_seconds=[2, 10], retry_condition_fn=is_passing, cache_policy=NO_CACHE
)


@flow(name="curation", validate_parameters=False)
def curation(config: CurationConfig) -> Any:
    """Everything from a list of URLs to a table of training results, which is returned."""
    data, workers = Dataset(config.root), config.workers
    for source in config.ingest:
        step(ingest)(data, source)  # a list -> urls, sightings
    show_download(data, step(download)(data, config.download, workers))  # urls -> samples, images
    step(score)(data, config.scorers, workers)  # samples -> scores_*, one pass
    step(filter_pairs)(data, config.rules, workers)  # scores_* -> decisions_quality
    if config.captioners:
        step(recaption)(data, config.captioners, config.rules, workers)  # survivors -> captions_*
        step(score_captions)(data, config.scorers, config.captioners, workers)  # -> their scores
    step(dedup)(data, config.dedup, workers)  # samples -> duplicates_*, decisions_dedup
    step(compress)(data, config.selectors, config.choosing, workers)  # survivors -> subset_*
    shards = {e.subset: step(export)(data, e, workers) for e in config.exports}  # -> shards
    show_funnel(data)
    if config.trainer and config.ablate:
        runs = (config.trainer, config.ablate, config.evaluations)
        return step(ablate)(data, *runs, shards, workers)  # shards -> checkpoints -> metrics
    return None
