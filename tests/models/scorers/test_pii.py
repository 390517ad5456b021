import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from curate.scoring import to_table
from models.scorers.pii import MAX_CHARACTERS, Pii, emails, ip_addresses, phones
from schemas.configs import PiiScorer
from schemas.tables import SCORES


@pytest.fixture(scope="module")
def scorer():
    return models.scorer(PiiScorer())


@pytest.mark.parametrize(
    ("caption", "count"),
    [
        ("write to john.doe@example.com today", 1),
        ("John.Doe+news@Mail.Example.CO.UK.", 1),
        ("<a_b-c%d@x.org>, (e@f.net); g@h.io", 3),
        ("mailto:info@shop.de?subject=Hi", 1),
        ("Contact:info@shop.de", 1),
        ("https://shop.de/contact/info@shop.de", 1),
        ("https://shop.de/?to=info@shop.de&x=1", 1),
        ("联系我们info@example.com谢谢", 1),
        ("мария@почта.рф", 1),
        ("jürgen@müller.de", 1),
        ("a@xn--80akhbyknj4f.xn--p1ai", 1),
        ("كتب إلى \u202ainfo@example.com\u202c اليوم", 1),
        ("לפנות אל info@example.com", 1),
        ("🙂info@example.com🙂", 1),
        ("x@mail-2.example.com:25", 1),
        ("a@b.com,c@d.com", 2),
        ("info@192-168.example.com", 1),
        ("git@github.com:org/repo.git", 1),  # looks like one
        ("@user@mastodon.social", 1),  # likewise
        ("photo by @jane.doe", 0),
        ("https://medium.com/@jane.doe/story", 0),
        ("https://www.google.com/maps/@52.5,13.4,12z", 0),
        ("https://jane:secret@example.com/x", 0),
        ("ftp://jane@ftp.example.com", 0),
        ("user@localhost", 0),
        ("logo@2x.png", 0),
        ("icon@3x.JPG on the page", 0),
        ("5 apples @ 3.50 each", 0),
        ("3@1.50", 0),
        ("2@4.5kg", 0),
        ("john (at) example dot com", 0),
        ("a@b@c", 0),
        (".@nytimes.com", 0),
        ("🙂@example.com", 0),
        ("@", 0),
        ("@example.com", 0),
        ("user@", 0),
        ("user@.com", 0),
        ("user@-a.com", 0),
        ("user@a..com", 0),
        ("user@example.c", 0),
        ("user@example.c0m", 0),
        ("user@" + "a" * 64 + ".com", 0),
    ],
)
def test_emails_are_counted(caption, count):
    """Addresses in any script and punctuation count; handles, URLs' users and file names do not."""
    assert emails(caption) == count


@pytest.mark.parametrize(
    ("caption", "region", "count"),
    [
        ("call +49 30 901820 now", None, 1),
        ("+1 (650) 253-0000", None, 1),
        ("+1-650-253-0000 / +44 20 7031 3000", None, 2),
        ("Tel.:+33142685300", None, 1),
        ("＋１ ６５０ ２５３ ００００", None, 1),
        ("هاتف: \u202a+971 4 450 9500\u202c", None, 1),
        ("טלפון +972-3-766-6666", None, 1),
        ("📞+49 30 901820📞", None, 1),
        ("tel:+49-30-901820", None, 1),
        ("https://wa.me/+4930901820", None, 1),
        ("030 901820", None, 0),
        ("030 901820", "DE", 1),
        ("Tel. 030/901820, Fax 030/901821", "DE", 2),
        ("(650) 253-0000", "US", 1),
        ("650-253-0000 or +49 30 901820", "US", 2),
        ("(650) 253-0000", None, 0),
        ("+1 234", None, 0),
        ("+999 123 456 789", None, 0),  # no such country
        ("+49 1", None, 0),
        ("2019-04-12", "US", 0),
        ("12/04/2019 10:11:12", "US", 0),
        ("2019-04-12 10:11:12", "DE", 0),
        ("20190412_101112", "DE", 0),
        ("1984-2001", "DE", 0),
        ("$1,299.00", "US", 0),
        ("1.299.000,50 €", "DE", 0),
        ("+5% and +49.99 €", None, 0),
        ("49,99 €", "DE", 0),
        ("f/2.8 1/250s ISO 400 +0.33 EV 50mm", None, 0),
        ("f/2.8 1/250s ISO 400 50mm 4032x3024", "US", 0),
        ("DSC_0042 6000 x 4000 300 dpi", "US", 0),
        ("192.168.0.1", "US", 0),
        ("v1.2.3.4", "US", 0),
        ("C++ 20 and +1", None, 0),
        ("no digits + at all", None, 0),
        ("", None, 0),
        ("1" * 5000, "US", 0),
        ("+" + "1" * 5000, None, 0),
    ],
)
def test_phones_are_counted(caption, region, count):
    """Valid numbers count, national ones in their region alone; dates, prices and cameras'
    numbers do not."""
    assert phones(caption, region) == count


@pytest.mark.parametrize(
    ("caption", "count"),
    [
        ("server 192.168.0.1 is down", 1),
        ("10.0.0.1, 10.0.0.2; (10.0.0.3)", 3),
        ("http://93.184.216.34:8080/x", 1),
        ("93.184.216.34/24", 1),
        ("IP:8.8.8.8.", 1),
        ("src:8.8.8.8:53", 1),
        ("地址192.168.0.1。", 1),
        ("כתובת 192.168.0.1", 1),
        ("🙂8.8.8.8🙂", 1),
        ("user@8.8.8.8", 1),
        ("2001:db8::1", 1),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", 1),
        ("[2001:db8::1]:8080", 1),
        ("http://[2001:db8::1]/", 1),
        ("IPv6:2001:db8::1.", 1),
        ("at 2001:db8::1: down", 1),
        ("fe80::1ff:fe23:4567:890a%eth0", 1),
        ("::ffff:192.168.0.1", 1),
        ("version 1.2.3.4", 1),  # looks like one
        ("v1.2.3.4", 0),
        ("1.2.3", 0),
        ("1.2.3.4.5", 0),
        ("256.1.1.1", 0),
        ("1.2.3.400", 0),
        ("01.02.03.04", 0),  # a date, not four numbers
        ("12.04.2019.1", 0),
        ("1.299.000.50", 0),
        ("img_1.2.3.4.jpg", 0),
        ("1.2.3.4a", 0),
        ("10:11:12", 0),
        ("2019:04:12 10:11:12", 0),  # EXIF
        ("00:1B:44:11:3A:B7", 0),  # a network card
        ("std::string", 0),
        ("a :: b", 0),
        ("::", 0),
        ("::1", 0),
        ("dead::beef::1", 0),
        ("1:2:3:4:5:6:7:8:9", 0),
        ("Matthew 5:3-12", 0),
        ("", 0),
    ],
)
def test_ip_addresses_are_counted(caption, count):
    """IPv4 and IPv6 count with ports, labels and brackets; times, versions with v, dates and
    hardware addresses do not."""
    assert ip_addresses(caption) == count


def test_counts_stand_in_their_columns(scorer, batch_of):
    """A caption has the three counts, in the types of its table."""
    columns = scorer(batch_of(["a@b.com, c@d.com, +49 30 901820, 8.8.8.8", "a dog"], [None, None]))
    assert columns == {
        "emails": [2, 0],
        "phones": [1, 0],
        "ip_addresses": [1, 0],
        "error": [None, None],
    }
    assert list(columns) == [*SCORES["pii"].names, "error"]


def test_scores_fit_their_table(scorer, batch_of):
    """The columns are those of scores_pii, nulls where there is no caption."""
    batch = batch_of(["a@b.com", None], [None] * 2)
    table = to_table(batch, scorer(batch), "pii")
    first = SCORES["pii"].names[0]
    assert [value is None for value in table[first].to_pylist()] == [False, True]
    assert table["error"].to_pylist() == [None, "no caption"]


def test_the_region_is_the_configs(batch_of):
    """National numbers count with their region only."""
    batch = batch_of(["030 901820"], [None])
    assert Pii(PiiScorer())(batch)["phones"] == [0]
    assert Pii(PiiScorer(region="DE"))(batch)["phones"] == [1]


@pytest.mark.parametrize("region", ["de", "Germany", "XX", "001"])
def test_an_unknown_region_is_refused(region):
    """A region that would find nothing is an error with what is valid."""
    with pytest.raises(ValueError, match=f"region {region} is unknown; give two capital letters"):
        Pii(PiiScorer(region=region))


@pytest.mark.parametrize("caption", [None, "", " \n\t"])
def test_no_caption_is_an_error(scorer, batch_of, caption):
    """A null or blank caption has the error and nulls, not zeros; its neighbour is counted."""
    columns = scorer(batch_of([caption, "a@b.com"], [None, None]))
    assert columns["error"] == ["no caption", None]
    for name in SCORES["pii"].names:
        assert columns[name][0] is None
    assert columns["emails"][1] == 1


def test_what_is_beyond_the_cut_is_not_counted(scorer, batch_of):
    """Of a caption its first MAX_CHARACTERS are looked at."""
    within = "x" * (MAX_CHARACTERS - 9) + " a@b.com "
    beyond = "x" * MAX_CHARACTERS + " a@b.com"
    assert scorer(batch_of([within, beyond], [None, None]))["emails"] == [1, 0]


def test_order_and_batch_size_change_nothing(scorer, batch_of, take):
    """Counts of a caption do not depend on its neighbours."""
    batch = batch_of(["a@b.com", "+49 30 901820", "8.8.8.8", None], [None] * 4)
    whole = scorer(batch)
    for row in range(4):
        alone = scorer(take(batch, [row]))
        assert alone == {name: [values[row]] for name, values in whole.items()}
    assert scorer(batch_of([], [])) == {name: [] for name in [*SCORES["pii"].names, "error"]}


PIECES = [
    *("a", "1", "+", "@", ".", ":", "-", "(", " ", "🙂", "\u202e", "\u0661"),
    *("a@", "a.", "a-", "@a.", "a@a.", "a@a-", "://", "://a@", "://@a.a"),
    *("1.", "1:", "a:", "::", "1::", "1.1.1.1.", "1.1.1.1 ", "g:1:", "f:"),
    *("+1", "+1 ", "+49 30 ", "(1", "1-", "1/", "+1 650 253 0000 ", "+1(", "1 2 ", "12/04/19 "),
    *("x" * 63 + ".", "1" * 20 + "-", "+1 650 253 000 ", "1x1 "),
]


@pytest.mark.parametrize("region", [None, "US"])
@pytest.mark.parametrize("piece", PIECES)
def test_ten_megabytes_of_anything_cost_little(batch_of, piece, region):
    """Ten megabytes of a piece, chosen against the patterns, take seconds at most."""
    scorer = Pii(PiiScorer(region=region))
    batch = batch_of(["a@" + piece * (10_000_000 // len(piece))], [None])
    started = time.perf_counter()
    columns = scorer(batch)
    assert time.perf_counter() - started < 5
    assert columns["error"] == [None]


@given(st.text(alphabet=st.sampled_from(list("a1+@.:-() /x٣＋é\ud800\u202e🙂")), max_size=80))
def test_any_text_is_counted(text):
    """No string breaks a count, and each is at most the text's length."""
    for count in (emails(text), phones(text, None), phones(text, "DE"), ip_addresses(text)):
        assert 0 <= count <= len(text)


def test_nothing_is_fetched(batch_of, monkeypatch):
    """The numbers' plans are in the package."""

    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Pii(PiiScorer(region="DE"))(batch_of(["030 901820"], [None]))["phones"] == [1]
