"""Near copies: perceptual hashes within a Hamming radius and looks that hardly differ.

All pairs of downloaded rows whose `by` hashes differ in at most `radius` bits, whose thumbnails
differ by at most `max_rms` and whose other hashes by at most `check_radius` bits, where these are
set (copies.py). A row without what is compared joins nobody. A hash with too few ones or zeros says
nothing and takes no part: see blank.py.

Complete but for floods: of looks with 100 others of their hash within a quarter of the limits an
edge is left out where not all that it would stand for are near (leaders.py).

A million distinct hashes take 3 s at radius 6 and 11 s at radius 8 on one core, their rows as long
as it takes to read them, 1 GB; tenfold rows take some 16-fold time.
"""

from __future__ import annotations

from curate.duplicates.copies import Copies, search
from curate.duplicates.search import Scope, Search
from schemas.configs import PerceptualDuplicates


def tables(config: PerceptualDuplicates) -> tuple[str, ...]:
    """The tables that it reads."""
    return ("samples",)


def find(scope: Scope, config: PerceptualDuplicates) -> Search:
    """Search for pairs within `config.radius` bits of `config.by`, their distance, whose looks are
    within `config.max_rms` and `config.check_radius`.
    """
    ones = f"bit_count({config.by})"
    copies = Copies(
        f"duplicates_{config.name}",
        config.by,
        f"least({ones}, 64 - {ones}) >= {config.min_distinct_bits}",
        config.radius,
        config.max_rms,
        config.check_radius,
    )
    return search(scope, copies, config.by)
