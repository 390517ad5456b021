"""Personal data in captions: how many e-mail addresses, phone numbers and IP addresses.

Counted within a caption's first MAX_CHARACTERS, each in bounded time: there is no pattern with
nested repetition over the whole text.

- E-mail: something, @, a domain that ends in letters. Not counted: names and passwords in a URL's
  authority, `logo@2x.png`, `user@localhost`, "john (at) example dot com". Counted too, since they
  look the same: `git@github.com` and a fediverse handle. A list of top-level domains is not kept.
- Phone: what libphonenumber (Google's, in Python) finds valid: a number with + and its country's
  code and length, or also a national one of `region`. Without `region` a number without + is not
  counted: prices, dates and serial numbers would be.
- IP: IPv4 and IPv6 by the standard library. Four numbers with dots, such as a version 1.2.3.4 or a
  section, are the same as an address and are counted; v1.2.3.4 is not.

Cost: 6 CPU seconds per million captions of 45 characters, 72 with a region.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from models.base import Batch, Columns
from models.scorers.pairs import caption_fault
from schemas.configs import PiiScorer
from schemas.tables import SCORES

MAX_CHARACTERS = 10_000  # of a caption that are looked at
MAX_TRIES = 1000  # candidates of a phone number in one caption

NAME_END = re.compile(r"[\w+%~-]")  # what an e-mail's part before @ may end in
DOMAIN = re.compile(  # RFC 1035: labels of up to 63; the last is letters, or punycode
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(xn--[a-z0-9-]{2,59}|[^\W\d_]{2,63})(?!\w)",
    re.IGNORECASE,
)
MAX_DOMAIN = 255
FILES = frozenset(("png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "tif", "tiff", "avif", "ico"))
AUTHORITY = re.compile(r"://[^\s/?#]*$")  # of a URL, up to here
MAX_AUTHORITY = 255

TOKEN = re.compile(r"[0-9A-Za-z_.:]{7,}")
MAX_TOKEN = 64  # an address with a label before it and a port after it
LABEL = re.compile(r"[0-9a-z_]*[g-z_][0-9a-z_]*:", re.IGNORECASE)  # IP: or src:, not hexadecimal
GROUPS = re.compile(r"[0-9a-f]+", re.IGNORECASE)


class Pii:
    """Counts per caption; the image is not looked at."""

    def __init__(self, config: PiiScorer) -> None:
        from phonenumbers import SUPPORTED_REGIONS

        if config.region is not None and config.region not in SUPPORTED_REGIONS:
            raise ValueError(
                f"scorer {config.name}: region {config.region} is unknown; give two capital "
                "letters such as DE or US (ISO 3166), or none for numbers with + alone"
            )
        self.config = config

    def __call__(self, batch: Batch) -> Columns:
        errors = [caption_fault(caption) for caption in batch.captions]
        counts = [
            None if error else self._row((caption or "")[:MAX_CHARACTERS])
            for caption, error in zip(batch.captions, errors, strict=True)
        ]
        columns: Columns = {
            name: [row and row[name] for row in counts] for name in SCORES["pii"].names
        }
        return columns | {"error": errors}

    def _row(self, text: str) -> dict[str, int]:
        return {
            "emails": emails(text),
            "phones": phones(text, self.config.region),
            "ip_addresses": ip_addresses(text),
        }


def emails(text: str) -> int:
    """How many e-mail addresses a text has."""
    return sum(_is_email(text, found.start()) for found in re.finditer("@", text))


def _is_email(text: str, at: int) -> bool:
    """Whether the @ at this place is an e-mail address's."""
    if at == 0 or not NAME_END.match(text[at - 1]):
        return False
    domain = DOMAIN.match(text[at + 1 : at + 1 + MAX_DOMAIN])
    if domain is None or domain[1].lower() in FILES:
        return False
    return AUTHORITY.search(text[max(0, at - MAX_AUTHORITY) : at]) is None


def phones(text: str, region: str | None) -> int:
    """How many valid phone numbers a text has; without a region those with + and a country's
    code."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    if region is None and "+" not in text and "＋" not in text:
        return 0  # nothing to find, and most captions end here
    return sum(1 for _ in PhoneNumberMatcher(text, region, Leniency.VALID, MAX_TRIES))


def ip_addresses(text: str) -> int:
    """How many IPv4 and IPv6 addresses a text has."""
    return sum(_addresses(found[0]) for found in TOKEN.finditer(text))


def _addresses(token: str) -> int:
    """In one run of letters, digits, dots and colons."""
    if len(token) > MAX_TOKEN:
        return 0
    token = token.rstrip(".")
    if token.endswith(":") and not token.endswith("::"):
        token = token[:-1]
    label = LABEL.match(token)
    bare = token[label.end() :] if label else token
    if bare.count(":") > 1 and _is_ipv6(bare):
        return 1
    return sum(_is_ipv4(part.rstrip(".")) for part in token.split(":"))


def _is_ipv6(text: str) -> bool:
    """Of two groups at least: `::` and `::1` are more often punctuation."""
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return len(GROUPS.findall(text)) > 1


def _is_ipv4(text: str) -> bool:
    """Four numbers up to 255 without leading zeros."""
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True
