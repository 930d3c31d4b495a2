"""Parts of a file, counted and walked before a library that builds a tree of them sees it; and whether a label is one.

Understood are ISO media (MP4, MOV, HEIF, AVIF, JPEG XL), PNG, JPEG and RIFF (WAV, AVI, WebP).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # ISO media's uuid of Content Credentials
MAX_PARTS = 10_000  # the time that c2pa takes grows with their square: 2 s for so many, 100 s for ten times more
MAX_DEPTH = 32
# Boxes that hold boxes, and how many bytes come before these.
NESTED = {
    kind: 0
    for kind in (
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"dinf",
        b"edts",
        b"udta",
        b"moof",
        b"traf",
        b"mvex",
        b"mfra",
        b"sinf",
        b"schi",
        b"iprp",
        b"ipco",
        b"jumb",
    )
}
NESTED |= {b"meta": 4, b"dref": 8, b"stsd": 8}
ISO_STARTS = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"moof", b"sidx", b"JXL "}


@dataclass(frozen=True)
class Survey:
    """How many parts, counted up to one more than MAX_PARTS, and whether a label is one; 0, None: nobody can say."""

    parts: int
    label: bool | None


def survey(file: BinaryIO) -> Survey:
    """Count the parts of a file, as far as they can be walked."""
    file.seek(0)
    head = file.read(16)
    if head[4:8] in ISO_STARTS:
        found = boxes(file, 0, os.fstat(file.fileno()).st_size, 0)
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        found = chunks(file)
    elif head[:3] == b"\xff\xd8\xff":
        found = segments(file)
    elif head[:4] in (b"RIFF", b"RF64"):
        found = riff(file)
    else:
        return Survey(0, None)
    parts, label = 0, False
    for is_label in found:
        parts += 1
        label |= is_label
        if parts > MAX_PARTS:
            break
    return Survey(parts, label)


def boxes(file: BinaryIO, at: int, end: int, depth: int) -> Iterator[bool]:
    """For each box, whether it holds a label; those within it follow."""
    while at + 8 <= end:
        file.seek(at)
        head = file.read(32)
        size, kind, before = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:  # a 64-bit size follows
            size, before = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:  # up to the end of the file
            size = end - at
        if len(head) < 8 or size < before:
            return
        label = kind == b"uuid" and head[before : before + 16] == C2PA_BOX
        yield label or (kind == b"jumb" and depth == 0)
        if label:  # version, a purpose in words that ends with zero, a place of eight bytes, then boxes
            file.seek(at + before + 20)
            purpose = file.read(64).find(b"\0")
            if purpose >= 0:
                yield from boxes(file, at + before + 20 + purpose + 9, min(end, at + size), depth + 1)
        elif kind in NESTED and depth < MAX_DEPTH:
            yield from boxes(file, at + before + NESTED[kind], min(end, at + size), depth + 1)
        at += size


def chunks(file: BinaryIO) -> Iterator[bool]:
    """PNG."""
    at = 8
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        yield head[4:] == b"caBX"
        at += 12 + int.from_bytes(head[:4], "big")


def segments(file: BinaryIO) -> Iterator[bool]:
    """JPEG, up to its picture."""
    at = 2
    while True:
        file.seek(at)
        head = file.read(20)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
            return
        yield head[1] == 0xEB and b"jumb" in head
        at += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4], "big")


def riff(file: BinaryIO) -> Iterator[bool]:
    """WAV, AVI, WebP: lists count as one part and are looked into."""
    at, end = 12, os.fstat(file.fileno()).st_size
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        yield head[:4] == b"C2PA"
        size = int.from_bytes(head[4:], "little")
        at += 12 if head[:4] in (b"LIST", b"RIFF") else 8 + size + size % 2
