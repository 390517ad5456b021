"""Captions that say nothing: whether a caption consists of stock phrases alone.

The list is curated by one test: would the phrase fit any image on the web? Words that may name what
is seen (`home`, `camera`, `map`) are left out or stand only in a longer phrase (`home page`). A
caption is boilerplate only if *every* word belongs to a stock phrase or is filler between them
(numbers, `of`, `the`): "logo" is, "logo of a bakery" is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

WORD = re.compile(r"[^\W_]+")

PHRASES = """
image | images | img | photo | photos | photograph | photographs | picture | pictures | pic | pics
foto | fotos
bild | bilder | imagen | imagenes | imágenes | imagem | immagine | immagini | obraz | obrazek
zdjęcie | afbeelding
фото | фотография | картинка | изображение
图片 | 照片 | 写真 | 画像 | 사진 | 이미지 | صورة | תמונה
thumbnail | thumbnails | thumb | thumbs | logo | logos | banner | avatar | icon | placeholder
screenshot
main image | main photo | hero image | cover image | cover photo | header image | background image
featured image
default image | sample image | product image | product photo | profile image | profile photo
profile picture
user avatar | site logo | company logo | website logo | logo image | image placeholder | post image
blog image
article image | news image | gallery image | slide image | slider image | preview image
banner image | lead photo
untitled | unnamed | unknown | none | null | undefined | nan | na | n a | not available | test
caption | title | alt
alt text | description | no caption | no title | no name | no description | no text | no alt text
no description available | no caption available | no title available | no alt text available
description not available | caption not available | without title
no image | no photo | no picture | no image available | no photo available | no picture available
image unavailable
image not available | photo not available | picture not available | image not found
image coming soon | coming soon
photo coming soon | picture coming soon | missing image | image missing | broken image | loading
loading image
image loading | please wait | image may contain | this image may contain
click | click here | click image | click me | click to | click to enlarge | click to zoom
click to view | click to expand
click for details | click for more | click for larger image | click for larger view
click for larger version
click for full size | click to view larger | click to view larger image | click to see larger image
click to view full size | click to see full size | click to open | click to see more
click on image to enlarge
click image to enlarge | click image for larger version | click here to enlarge
click here for larger image
click the image to enlarge | click on the image to enlarge | click photo to enlarge
click picture to enlarge
click on photo to enlarge | click on picture to enlarge | click for larger | tap to enlarge
tap to zoom
roll over image to zoom | roll over image to zoom in | hover to zoom | mouse over to zoom
touch to zoom
zoom | zoom in | zoom image | enlarge | enlarge image | enlarge photo | enlarge picture
enlarged view | expand image
view larger | view larger image | larger image | large image | larger view | larger version
bigger image
full size | full size image | full image | full resolution | high resolution | high res | hi res
small image
view image | view photo | view picture | view full size | view full image | view more | view details
view all
view gallery | view slideshow | open image | open in new window | open in new tab | show image
see image | see more
see photo | see full size | see larger image | read more | learn more | more info | more information
more details
more images | more photos | more pictures | more views | next image | previous image | next photo
previous photo
photo gallery | image gallery | picture gallery | gallery | slideshow | slide
stock photo | stock photos | stock image | stock images | stock picture | stock photography
stock illustration
stock vector | stock footage | royalty free | royalty free image | royalty free stock photo
free stock photo
free image | free photo | free picture | free download | editorial use only | getty images
shutterstock | istock
istockphoto | alamy | alamy stock photo | dreamstime | depositphotos | adobe stock | fotolia | 123rf
all rights reserved
copyright | copyrighted image | watermark | photo credit | image credit | photo courtesy
image source | photo by | image by
image for | photo for | picture for | image result | image result for | related image | related post
similar image
home page | homepage | main menu | back to top | skip to content | share on facebook
share on twitter
share this image | share on pinterest | pin it | save image | download image | download photo
print image
advertisement | advert | sponsored | buy now | add to cart | add to wishlist | shop now | order now
quick view | sold out
html | jpg | jpeg | png | gif | webp | bmp | svg | tiff | pixel | spacer | blank | transparent | 1x1
img alt
"""
FILLER = frozenset(
    """a an the of this that and or for to in on at by from with no nr
    und der die das von de la le du""".split()  # noqa: SIM905 - a list of words
)


def tokens(text: str) -> Iterator[str]:
    """Words of letters and digits, case and compatibility forms folded."""
    return (match.group().casefold() for match in WORD.finditer(text))


STOCK = frozenset(
    tuple(tokens(phrase)) for line in PHRASES.strip().splitlines() for phrase in line.split("|")
)
LONGEST = max(map(len, STOCK))


def is_boilerplate(caption: str) -> bool:
    """Whether the caption is stock phrases and filler alone, at least one of them a phrase.

    One pass over the words that keeps the last few; it stops at the first word that no phrase can
    reach, so that a long real caption costs what its first words cost.
    """
    window: list[str] = []  # the last words, at most LONGEST
    # before each of them and now: None where unexplained, else whether a phrase was among it
    explained: list[bool | None] = [False]
    for word in tokens(unicodedata.normalize("NFKC", caption)):
        window = [*window, word][-LONGEST:]
        explained = [*explained, _explain(window, explained)][-LONGEST - 1 :]
        if all(state is None for state in explained):
            return False
    return explained[-1] is True


def _explain(window: list[str], explained: list[bool | None]) -> bool | None:
    """State after the window's last word: a phrase ends there (True), or filler; else None."""
    for length in range(1, len(window) + 1):
        if explained[-length] is not None and tuple(window[-length:]) in STOCK:
            return True
    word = window[-1]
    return explained[-1] if word in FILLER or word.isdecimal() else None
