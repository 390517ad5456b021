"""The config of the download."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Config, Positive

PNG_LEVELS, PNG_LEVEL = 9, 6  # the highest one, and zlib's default


class DownloadConfig(Config):
    """Fetch and resize. Names and defaults are img2dataset's where it has the knob.

    `runtime`: how hard to try and where one may go. These change which rows fail, never what a
    success is.
    """

    version: ClassVar[int] = 4
    runtime: ClassVar[frozenset[str]] = frozenset(
        {
            *("timeout_s", "deadline_s", "retries", "retry_wait_s", "max_redirects", "stall_s"),
            *("concurrency", "per_host", "per_host_rate", "give_up_host_after"),
            *("dns_concurrency", "decode_threads", "buffer_bytes", "max_header_bytes"),
            *("allow_hosts", "user_agent", "contact", "robots_txt", "blocklist"),
        }
    )
    # what is stored
    image_size: Positive = 256
    resize_mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = (
        "border"
    )
    resize_only_if_bigger: bool = False
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    # None: 95, for png (where it is the compression level, 0 to 9) 6
    encode_quality: int | None = Field(None, ge=0, le=100)
    # if_needed keeps the bytes of an upright, opaque image of the right size and format as they
    # came; never keeps all that are jpg, png or webp, and resizes nothing
    reencode: Literal["never", "if_needed", "always"] = "if_needed"
    # column of the list with boxes to blur, [[left, top, right, bottom], ...] from 0 to 1, such as
    # in_face_bboxes of DataComp; images that are at hand stay as they are
    blur_boxes: str | None = None
    # what is let in, all by the content and before anything is decoded
    image_types: tuple[
        Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "jpeg2000", "ppm"], ...
    ] = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "jpeg2000", "ppm")
    min_image_size: int = Field(0, ge=0)
    max_image_area: float = Field(float("inf"), gt=0)  # pixels, of the original
    max_aspect_ratio: float = Field(float("inf"), ge=1)
    max_pixels: Positive = (
        90_000_000  # a guard like max_image_area; PIL's bomb warning is at 89.5 M
    )
    max_bytes: Positive = 32 * 2**20  # of one answer's body, as sent and unpacked
    max_header_bytes: Positive = 65_536  # of one answer
    # how long
    timeout_s: float = Field(10, gt=0)  # to connect, and between two reads (img2dataset's default)
    # of one URL in all: attempts, redirects, waits between them; waiting for its host's turn aside
    deadline_s: float = Field(30, gt=0)
    retries: int = Field(2, ge=0)  # after time-outs, broken connections, 408, 425, 429 and 5xx
    retry_wait_s: float = Field(0.5, ge=0)  # doubled each time, with jitter
    # a part in which nothing ends for so long is ended; an image may be decoded for half of it
    stall_s: float = Field(300, gt=0)
    # how much at once
    concurrency: Positive = 256  # open requests of one worker
    buffer_bytes: Positive = 256 * 2**20  # of bodies in one worker's memory
    decode_threads: Positive = 1  # of one worker
    dns_concurrency: Positive = 16  # lookups of one worker
    # politeness: what one host sees of all workers together
    per_host: Positive = 16  # open requests
    per_host_rate: float | None = Field(None, gt=0)  # requests per second
    # so many time-outs or refused connections of a host in a row end its URLs; 0: never
    give_up_host_after: int = Field(20, ge=0)
    user_agent: str = "curate/0.1 (image-text dataset curation)"
    contact: str = ""  # an address or page of the operator, added to the user agent
    robots_txt: bool = True
    disallowed_header_directives: tuple[str, ...] = (
        "noai",
        "noimageai",
        "noindex",
        "noimageindex",
    )  # X-Robots-Tag; () ignores it
    blocklist: tuple[str, ...] = ()  # files of URLs, hosts, sha256 and pHashes never to be taken in
    max_redirects: int = Field(5, ge=0)
    # "127.0.0.1:8000", "10.0.0.0/8", "intranet.example": else only public addresses
    allow_hosts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _blurred(self) -> Self:
        if self.blur_boxes is not None and self.reencode == "never":
            raise ValueError("blur_boxes needs reencode: if_needed or always, it is never")
        return self

    @model_validator(mode="after")
    def _png_levels(self) -> Self:
        if self.encode_format == "png" and (self.encode_quality or 0) > PNG_LEVELS:
            raise ValueError(
                f"encode_quality is {self.encode_quality}: for png it is the compression level, "
                f"0 to {PNG_LEVELS}"
            )
        return self

    @property
    def quality(self) -> int:
        """`encode_quality`, or the format's default."""
        default = PNG_LEVEL if self.encode_format == "png" else 95  # img2dataset's
        return default if self.encode_quality is None else self.encode_quality
