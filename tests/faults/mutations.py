"""Mutations of one file: of its bytes, and of the values in JSON, YAML, safetensors and text; chosen by a seeded Random."""

import bz2
import copy
import gzip
import json
import lzma
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import PurePath
from random import Random
from typing import Any

import zstandard

Mutated = tuple[bytes, str]  # the content, and what was done to it
# Raw JSON values in place of others.
HOSTILE = (
    "null", "true", "-1", "0", "2", "0.5", "1e308", "1e400", "NaN", "-Infinity", "18446744073709551616", "9" * 400, "9" * 5000,
    '""', '"1"', r'"\u0000"', r'"\ud800"', r'"\u202e\u001b[31m"', '"../../etc/passwd"', '"/dev/zero"', '"<s>"', '"' + "长" * 40_000 + '"',
    "[]", "{}", "[[]]", "[null]", '{"a": 1}', "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 100_000,
)  # fmt: skip
HOSTILE_YAML = (
    "~", "yes", "-1", "0", "1e400", ".nan", ".inf", "'9'", "9" * 5000, "1:2:3", "0o777", "2001-99-99", "2001-01-01", "!!timestamp x",
    "!!binary '%'", "!!python/object/apply:os.system ['true']", "!!set {a, b}", "&a [*a]", "*a", "[" * 5000, "{a: {b: {c: 1}}}", "[[[1]]]",
    "'", '"\\x"', '"\\ud800"', "\t", "\x07", "| \n  a", "@", "%", "[a, b", "{}", "[]", "''", "/dev/zero", "../../etc/passwd", "长" * 5000,
)  # fmt: skip
ODD_TEXT = (
    b"\0", b"\x1b[31m", b"\x07", b"\r", b"\r\n", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", "\u2028".encode(), "\u202e".encode(),
    "\u0085".encode(), b"\x1a", b"\x0b", b"\x0c", "长".encode() * 100_000, "\u0301".encode() * 3000, "中国".encode("gb18030"), b"\n\n\n",
)  # fmt: skip
PACKED: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (gzip.decompress, lambda content: gzip.compress(content, mtime=0)),
    ".xz": (lzma.decompress, lzma.compress),
    ".bz2": (bz2.decompress, bz2.compress),
    ".zst": (zstandard.decompress, zstandard.compress),
}


def mutate(content: bytes, name: str, random: Random) -> Mutated:
    """The content of a file of that name with one mutation, which differs from it."""
    ways = [_of_bytes, *_ways_of(PurePath(name))]
    for _ in range(20):
        way = random.choice(ways)
        try:
            mutated, told = way(content, random)
        except (ValueError, IndexError, struct.error):  # e.g. nothing in it that this way could change
            continue
        if mutated != content:
            return mutated, told
    return content + b"\0", "one NUL byte added"


def _ways_of(path: PurePath) -> list[Callable[[bytes, Random], Mutated]]:
    if path.suffix in PACKED:
        unpack, pack = PACKED[path.suffix]

        def inside(content: bytes, random: Random) -> Mutated:
            mutated, told = mutate(unpack(content), path.stem, random)
            return pack(mutated), f"unpacked: {told}"

        return [inside]
    return {
        ".json": [_of_json, _of_json],
        ".jsonl": [_of_lines, _of_lines, _of_text],
        ".yaml": [_of_yaml, _of_yaml],
        ".safetensors": [_of_safetensors],
    }.get(path.suffix, [_of_text] if path.suffix in (".txt", ".md", ".tsv", ".jinja") else [])


def _of_bytes(content: bytes, random: Random) -> Mutated:
    size = len(content)
    near = random.choice(
        (size, min(size, 300), min(size, 300))
    )  # most formats have their header at the start
    at = random.randrange(near) if random.random() < 0.8 else size - 1 - random.randrange(min(size, 200))
    length = min(size - at, random.choice((1, 2, 8, 100, 5000)))
    part = content[at : at + length]
    match random.choice(
        ("flip", "flip", "flips", "delete", "cut", "double", "splice", "set", "empty", "random")
    ):
        case "flip":
            bit = random.randrange(8)
            return content[:at] + bytes([content[at] ^ 1 << bit]) + content[
                at + 1 :
            ], f"bit {bit} of byte {at} flipped"
        case "flips":
            changed = bytearray(content)
            for _ in range(30):
                changed[random.randrange(near)] ^= 1 << random.randrange(8)
            return bytes(changed), f"30 bits in the first {near} bytes flipped"
        case "delete":
            return content[:at] + content[at + length :], f"bytes {at} to {at + length} deleted"
        case "cut":
            return content[:at], f"cut at byte {at}"
        case "double":
            return content[:at] + part + content[at:], f"bytes {at} to {at + length} doubled"
        case "splice":
            to = random.randrange(size)
            return content[:to] + part + content[
                to + length :
            ], f"bytes {at} to {at + length} copied over those at {to}"
        case "set":
            byte = random.choice((0, 255, 128, 10, 34))
            return content[:at] + bytes([byte]) * length + content[
                at + length :
            ], f"bytes {at} to {at + length} set to {byte}"
        case "empty":
            return b"", "emptied"
    return random.randbytes(1 + random.randrange(4000)), "replaced by random bytes"


def _of_json(content: bytes, random: Random) -> Mutated:
    value = json.loads(content)
    raw: dict[str, str] = {}
    told = []
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value, what = _changed(value, raw, random)
        told.append(what)
    text = json.dumps(value, ensure_ascii=random.random() < 0.3, indent=random.choice((None, 2)))
    for marker, hostile in raw.items():
        text = text.replace(f'"{marker}"', hostile)
    return text.encode("utf-8", "surrogatepass"), "; ".join(told)


def _changed(value: Any, raw: dict[str, str], random: Random) -> tuple[Any, str]:
    """A JSON value with one part changed; raw JSON stands in `raw` by the marker in its place."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return json.loads('{"a": []}'), "replaced by an object"
    container, key, where = random.choice(places[:40] if random.random() < 0.5 else places)
    old, marker = container[key], f"@raw-{len(raw)}@"
    match random.choice(
        ("hostile", "hostile", "hostile", "delete", "twice", "rename", "swap", "near", "near", "empty")
    ):
        case "hostile":
            raw[marker] = hostile = random.choice(HOSTILE)
            container[key] = marker
            return value, f"{where} set to {hostile[:30]}"
        case "delete":
            del container[key]
            return value, f"{where} deleted"
        case "twice" if isinstance(container, dict):
            raw[marker] = f"{json.dumps(old)}, {json.dumps(key)}: {(hostile := random.choice(HOSTILE))}"
            container[key] = marker
            return value, f"{where} named a second time as {hostile[:30]}"
        case "twice":
            container.insert(key, old)
            return value, f"{where} doubled"
        case "rename" if isinstance(container, dict):
            new = random.choice((key.upper(), key + "_", "", "\x00", "\u202e", key[:-1]))
            container[new] = container.pop(key)
            return value, f"{where} renamed to {new!r}"
        case "swap":
            other, at, there = random.choice(places)
            try:
                container[key], other[at] = other[at], old
            except (KeyError, IndexError):
                return value, "nothing"
            return (value, f"{where} swapped with {there}") if _is_tree(value) else (None, "replaced by null")
        case "empty" if isinstance(old, dict | list | str):
            container[key] = type(old)()
            return value, f"{where} emptied"
    if isinstance(old, bool):
        container[key] = not old
    elif isinstance(old, int | float):
        container[key] = random.choice((old + 1, old - 1, -old, old * 1000, old + 0.5, str(old), [old]))
    elif isinstance(old, str):
        container[key] = random.choice(
            (old[:-1], old + old, old.upper(), f" {old}", old + "\x1b[2J", [old], {"a": old})
        )
    else:
        container[key] = json.dumps(old)
    return value, f"{where} set to {str(container[key])[:40]!r}"


def _places(value: Any, where: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every (container, key, path) of a JSON value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in list(entries):
        yield value, key, f"{where}.{str(key)[:20]}"
        yield from _places(member, f"{where}.{str(key)[:20]}")


def _is_tree(value: Any) -> bool:
    """Whether no container was put into itself."""
    try:
        json.dumps(value)
    except ValueError:
        return False
    return True


def _of_lines(content: bytes, random: Random) -> Mutated:
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    lines[at], told = _of_json(lines[at], random)
    lines[at] = lines[at].replace(b"\n", b" ")
    return b"\n".join(lines), f"line {at + 1}: {told}"


def _of_text(content: bytes, random: Random) -> Mutated:
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    line = lines[at]
    match random.choice(("odd", "odd", "delete", "double", "swap", "join", "utf-16", "gb18030", "bom")):
        case "odd":
            odd, to = random.choice(ODD_TEXT), random.randrange(len(line) + 1)
            lines[at] = line[:to] + odd + line[to:]
            return b"\n".join(lines), f"{odd[:6]!r} ({len(odd)} bytes) put into line {at + 1} at byte {to}"
        case "delete":
            return b"\n".join(lines[:at] + lines[at + 1 :]), f"line {at + 1} deleted"
        case "double":
            return b"\n".join(lines[:at] + [line] * 3 + lines[at:]), f"line {at + 1} three times more"
        case "swap":
            to = random.randrange(len(lines))
            lines[at], lines[to] = lines[to], line
            return b"\n".join(lines), f"lines {at + 1} and {to + 1} swapped"
        case "join":
            return content.replace(b"\n", b" "), "all lines joined"
        case "bom":
            return b"\xef\xbb\xbf" + content, "a byte order mark before it"
        case encoding:
            return content.decode().encode(encoding), f"encoded as {encoding}"


def _of_yaml(content: bytes, random: Random) -> Mutated:
    text = content.decode()
    if random.random() < 0.3:
        return _of_text(content, random)
    values = [match.span(1) for match in re.finditer(r"[:\-] ([^\n]+)", text)]
    begin, end = random.choice(values)
    hostile = random.choice(HOSTILE_YAML)
    at = text.count("\n", 0, begin) + 1
    return (text[:begin] + hostile + text[end:]).encode(
        "utf-8", "surrogatepass"
    ), f"line {at}: a value set to {hostile[:30]!r}"


def _of_safetensors(content: bytes, random: Random) -> Mutated:
    (size,) = struct.unpack("<Q", content[:8])
    header, told = _of_json(content[8 : 8 + size], random)
    return struct.pack("<Q", len(header)) + header + content[8 + size :], f"header: {told}"
