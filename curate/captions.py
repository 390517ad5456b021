"""Captions: which of a pair's captions training sees; `captions` of subset_*.

A candidate is (caption_id, text): the original caption, whose id is the pair's uid, then the
generated ones, in the order of their tables and in the order in which they were made. `all` takes
what removed copies of the image said too (captions_copies); `concat` joins the original with each
generated one within the trainer's context (models/token_budget.py), TL;DR's refinement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.claims import digest
from curate.dataset import Dataset
from models.token_budget import Count, counter, joined
from schemas.configs import CLIP_TOKENIZER, TOKENS, ChooseCaption
from schemas.tables import COPIES, caption_id_of

Chosen = list[dict[str, Any]]  # caption_id, text, weight; the weights of a pair sum to 1
Candidate = tuple[str, str]


def caption_tables(data: Dataset, choose: ChooseCaption) -> list[str]:
    """The tables that a choice depends on, beside urls. Raises ValueError where `by` has no
    scores.
    """
    if choose.use == "original":
        return []
    generated = generated_tables(data)
    if choose.use == "all" and COPIES in data.tables():
        return sorted([*generated, COPIES])
    if choose.use != "best":
        return generated
    table = f"scores_{choose.by}"
    if table not in data.tables():
        have = ", ".join(t for t in data.tables() if t.startswith("scores_")) or "none"
        raise ValueError(f"choose: by: {choose.by!r} has no scores ({table}); there are {have}")
    scores = [t for t in data.tables() if t == table or t.startswith(f"{table}@")]
    return generated + scores


def effective(own: ChooseCaption | None, recipe: ChooseCaption) -> ChooseCaption:
    """What a selector's pairs are seen with: its own choice or the recipe's, whose token budget is
    for both; of a choice that joins nothing the budget says nothing.
    """
    chosen = own or recipe
    if chosen.use != "concat":
        return chosen.model_copy(update={"max_tokens": None, "tokenizer": None})
    tokens = chosen.max_tokens or recipe.max_tokens or TOKENS - 2
    tokenizer = chosen.tokenizer or recipe.tokenizer or CLIP_TOKENIZER
    return chosen.model_copy(update={"max_tokens": tokens, "tokenizer": tokenizer})


def generated_tables(data: Dataset) -> list[str]:
    """The tables of captioners: captions_*, those of removed copies aside."""
    return [t for t in data.tables() if t.startswith("captions_") and t != COPIES]


def captions_of(
    choose: ChooseCaption, data: Dataset, part: int, uids: set[str], tables: Sequence[str]
) -> dict[str, Chosen]:
    """The captions of these pairs of a part, by uid. tables: what `caption_tables` gave."""
    urls = data.read("urls", part, ["uid", "caption"]).to_pylist()
    originals = {r["uid"]: (r["uid"], r["caption"] or "") for r in urls if r["uid"] in uids}
    generated = _generated(data, part, uids, [t for t in tables if t.startswith("captions_")])
    scores = _scores(data, part, [t for t in tables if t.startswith("scores_")])
    count = counter(choose.tokenizer or CLIP_TOKENIZER) if choose.use == "concat" else None
    return {
        uid: weighted(
            pick(choose.use, original, generated.get(uid, []), scores)
            if count is None
            else concat(choose, original, generated.get(uid, []), count)
        )
        for uid, original in originals.items()
    }


def pick(
    use: str, original: Candidate, generated: Sequence[Candidate], scores: dict[str, float]
) -> list[Candidate]:
    """The captions of one pair. A caption without a score loses; the first of equal ones wins."""
    candidates = [original, *generated]
    if use == "original":
        return [original]
    if use == "generated":
        return list(generated) or [original]
    if use == "best":
        return [max(candidates, key=lambda c: scores.get(c[0], float("-inf")))]
    return candidates


def concat(
    choose: ChooseCaption, original: Candidate, generated: Sequence[Candidate], count: Count
) -> list[Candidate]:
    """The original joined with each generated caption; the original where there is none."""
    how = digest(choose.claimed())
    budget = choose.max_tokens or TOKENS - 2
    return [
        (
            caption_id_of(original[0], "concat", how, caption_id, 0, 0),
            joined(original[1], text, budget, choose.reserve, choose.separator, count),
        )
        for caption_id, text in generated
    ] or [original]


def weighted(chosen: Sequence[Candidate]) -> Chosen:
    """The captions with equal weights that sum to 1."""
    return [{"caption_id": c, "text": text, "weight": 1 / len(chosen)} for c, text in chosen]


def _generated(
    data: Dataset, part: int, uids: set[str], tables: Sequence[str]
) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for table in (t for t in tables if part in data.parts(t)):
        for row in data.read(table, part, ["uid", "caption_id", "caption"]).to_pylist():
            if row["uid"] in uids and row["caption"] is not None:
                found.setdefault(row["uid"], []).append((row["caption_id"], row["caption"]))
    return found


def _scores(data: Dataset, part: int, tables: Sequence[str]) -> dict[str, float]:
    """clip_score by caption_id; a caption without one, or with NaN, is left out."""
    found: dict[str, float] = {}
    for table in (t for t in tables if part in data.parts(t)):
        for row in data.read(table, part, ["caption_id", "clip_score"]).to_pylist():
            if row["clip_score"] is not None and row["clip_score"] == row["clip_score"]:
                found[row["caption_id"]] = row["clip_score"]
    return found
