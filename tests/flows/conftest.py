"""One web, one list and one run without interruptions for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curate.dataset import Dataset
from schemas.configs import CurationConfig
from tests.flows.small_web import SmallWeb, recipe, run_all, small_web, write_list


@dataclass(frozen=True)
class Whole:
    """A finished run, and recipes that differ from its own in nothing but the root."""

    web: SmallWeb
    list: Path
    data: Dataset

    def recipe(self, root: Any, **changes: Any) -> CurationConfig:
        return recipe(root, self.list, self.web, **changes)


@pytest.fixture(scope="session")
def web() -> Iterator[SmallWeb]:
    """A web that nobody changes; a test that wants to serves its own."""
    with small_web() as running:
        yield running


@pytest.fixture(scope="session")
def whole(web: SmallWeb, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    rows = write_list(folder / "list.csv", web.pairs)
    return Whole(web, rows, run_all(recipe(folder / "dataset", rows, web)))


@pytest.fixture(scope="session")
def untrained(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same pairs by the recipe without a model, where every number is exact."""
    return run_all(whole.recipe(tmp_path_factory.mktemp("untrained") / "set", trained=False))
