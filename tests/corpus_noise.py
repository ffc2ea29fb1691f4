"""Planted noise: texts near to others by a known Jaccard, and files in every encoding, whole and broken."""

import gzip
import random
from pathlib import Path

CLAUSES = "春天 河水 老人 走过 石桥 清晨 集市 卖花 孩子 读书 窗外 下雨 远山 灯火 邻居 说话 茶馆 故事 车站 等候 风筝 稻田 木船 渔夫 收网 秋夜 月光 照着 小院 书信"


def story(rng: random.Random, clauses: int = 60) -> str:
    """A text of its own: drawn from more signs than repeat, so that two stories share next to nothing."""
    words = CLAUSES.split()
    signs = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    return "".join(
        rng.choice(words) + rng.choice(signs) + rng.choice(signs) + rng.choice("，。，的了在")
        for _ in range(clauses)
    )


def grams(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)}


def jaccard(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def edited(text: str, least: float, rng: random.Random) -> str:
    """`text` with as many signs put in, taken out and exchanged as leave a Jaccard just above `least`."""
    places = rng.sample(range(len(text)), len(text))
    low, high = 0, len(text)
    best = text
    while low < high:
        middle = (low + high + 1) // 2
        made = _with_edits(text, sorted(places[:middle], reverse=True))
        if jaccard(text, made) >= least:
            low, best = middle, made
        else:
            high = middle - 1
    return best


def _with_edits(text: str, places: list[int]) -> str:
    signs = list(text)
    for place in places:
        new = chr(0x5000 + (place * 7919) % 2000)
        if place % 3 == 0:
            signs[place] = new
        elif place % 3 == 1:
            signs.insert(place, new)
        else:
            del signs[place]
    return "".join(signs)


def plant_encodings(folder: Path, simplified: str, traditional: str) -> dict[str, str | None]:
    """Files in `folder`, each with the reason that it must be dropped for, or None where its text must come out."""
    planted: dict[str, tuple[bytes, str | None]] = {
        "utf8.txt": (simplified.encode(), None),
        "utf8-bom.txt": (b"\xef\xbb\xbf" + simplified.encode(), None),
        "gb18030.txt": (simplified.encode("gb18030"), None),
        "gb18030-four-bytes.txt": ((simplified + "𠮷㐀").encode("gb18030"), None),
        "big5.txt": (traditional.encode("big5"), None),
        "utf16-le.txt": (simplified.encode("utf-16"), None),
        "utf16-be.txt": (b"\xfe\xff" + simplified.encode("utf-16-be"), None),
        "utf16-bare.txt": (simplified.encode("utf-16-le"), None),
        "utf32.txt": (simplified.encode("utf-32"), None),
        "name\nwith line.txt": (simplified.encode(), None),
        "a..b.txt": (simplified.encode(), None),
        "packed.txt.gz": (gzip.compress(simplified.encode("gb18030"), mtime=0), None),
        "cut-off.txt.gz": (gzip.compress(simplified.encode(), mtime=0)[:-20], "damaged file"),
        "no-gzip.txt.gz": (simplified.encode(), "damaged file"),
        "broken.txt": (
            simplified.encode()[:200] + b"\xff\xfe\xe4" + simplified.encode()[200:],
            "broken utf-8",
        ),
        "broken-gb.txt": (
            simplified.encode("gb18030")[:300] + b"\xff\xff" + simplified.encode("gb18030")[300:],
            "broken",
        ),
        "picture.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 20, "binary file"),
        "program": (b"\x7fELF\x02\x01\x01" + bytes(64) + random.Random(1).randbytes(4000), "binary file"),
        "empty.txt": (b"", "empty file"),
        "bad.jsonl": (
            b'{"text": "' + simplified.strip().encode()[:-1].replace(b"\n", b" ") + b'"}\n',
            "broken utf-8",
        ),
        "not-json.jsonl": (b"{]\n", "not JSON"),
        "no-field.jsonl": (b'{"body": "x"}\n', "no text in the record"),
        "no-parquet.parquet": (b"PAR1" + bytes(100), "damaged file"),
        "mojibake.txt": (("锟斤拷" * 30 + simplified).encode(), "broken characters"),
    }
    for name, (data, _) in planted.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in planted.items()}
