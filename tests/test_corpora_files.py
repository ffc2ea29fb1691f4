"""The source descriptions in corpora/*.yaml and the texts of corpora/sample: shape, honesty, clean script."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import opencc
import pytest
import yaml

from tests.seed_checks import spaced
from zhllama.resources import SAMPLES, sample_files

CORPORA = Path(__file__).resolve().parents[1] / "corpora"
SAMPLE = CORPORA / "sample"
SOURCES = sorted(CORPORA.glob("*.yaml"))
TEXTS = sorted(SAMPLE.glob("*.txt"))
PROSE = [p for p in TEXTS if not p.name.startswith("code_")]

LOCATION = {"hub": "hub", "url": "url", "local": "path"}
BEFORE, AFTER = (
    ["name", "title", "title_zh", "kind"],
    ["config", "split", "field", "language", "script", "domain"],
)
WORDS = ["size", "licence", "checked", "notes"]
ALLOWED = {
    "kind": set(LOCATION),
    "language": {"zh", "yue", "lzh", "en", "zh+en"},
    "script": {"simplified", "traditional", "mixed", "latin"},
    "domain": {
        "encyclopedia",
        "web",
        "news",
        "qa",
        "dialogue",
        "classical",
        "parallel",
        "mixed",
        "instruction",
    },
}
HAN = r"[\u3400-\u4dbf\u4e00-\u9fff]"

# Bytes of each part of the sample: how many files, at least, at most.
PARTS = {
    "zh_": (10, 75_000, 90_000),
    "zhtw_": (3, 17_000, 23_000),
    "zhhk_": (2, 11_000, 14_000),
    "mixed_": (1, 7_500, 9_500),
    "en_": (3, 17_000, 23_000),
    "code_": (2, 3_000, 6_000),
}
# 毕昇, the printer of the Song: his name keeps 昇 in Simplified, which OpenCC would write 升.
KEPT_IN_SIMPLIFIED = {"昇"}
# Right in Taiwan as they stand; OpenCC's own standard prefers 臺 羣 喫 纔 佈 佔 柺 蝨 糉 黴.
KEPT_IN_TRADITIONAL = set("台群吃才布占拐虱粽霉")
# As most of Hong Kong writes, where OpenCC's standard for it prefers 説 温 揾.
KEPT_IN_HONG_KONG = set("說溫搵")


def complaints(source: dict[str, Any], stem: str) -> list[str]:
    """What is wrong with one source description."""
    location = LOCATION.get(source.get("kind", ""))
    wanted = [*BEFORE, str(location), *AFTER, *WORDS]
    if list(source) != wanted:
        return [f"fields are {list(source)}, not {wanted}"]
    bad = [f"{key}: {source[key]!r}" for key, values in ALLOWED.items() if source[key] not in values]
    bad += [
        f"{key} is not text"
        for key in ["title", "title_zh", *WORDS]
        if not (isinstance(source[key], str) and source[key].strip())
    ]
    if bad:
        return bad
    if spaced(source["title_zh"]):
        bad.append("title_zh has a space beside Han")
    if source["name"] != stem or not re.fullmatch(r"[a-z][a-z0-9_]*", stem):
        bad.append(f"name {source['name']!r} in {stem}.yaml")
    if not re.search(HAN, source["title_zh"]) or not source["title"].isascii():
        bad.append("title is English, title_zh Chinese")
    where = source[str(location)]
    if source["kind"] == "hub" and not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        bad.append(f"hub id {where!r}")
    if source["kind"] == "url" and not re.fullmatch(r"https?://[^\s/]+/\S+", where):
        bad.append(f"url {where!r}")
    if source["kind"] == "url" and where.endswith((".zip", ".gz")) == source["notes"].startswith(
        "Landing page"
    ):
        bad.append("a url is a file, or its notes begin 'Landing page'")
    if source["kind"] == "local" and (Path(where).is_absolute() or not (CORPORA / where).is_dir()):
        bad.append(f"no folder {where!r}")
    if source["kind"] == "hub" and not source["split"]:
        bad.append("a hub source names its split")
    for key in ("config", "split"):
        if source[key] is not None and not (isinstance(source[key], str) and source[key]):
            bad.append(f"{key}: {source[key]!r}")
    fields = source["field"] if isinstance(source["field"], list) else [source["field"]]
    if not fields or not all(isinstance(f, str) and f for f in fields) or len(set(fields)) != len(fields):
        bad.append(f"field: {source['field']!r}")
    if (source["language"] == "en") != (source["script"] == "latin"):
        bad.append("English and only English is latin")
    if not re.search(r"\b20\d\d-(0[1-9]|1[0-2])\b", source["checked"]):
        bad.append("checked gives no month")
    if source["kind"] != "local" and not re.match(
        r"not fetched here; |first [\d,]+ rows ", source["checked"]
    ):
        bad.append("checked does not say whether anything was fetched")
    if not re.search(r"\d|unverified", source["size"]):
        bad.append("size gives neither figure nor 'unverified'")
    return bad


def load(path: Path) -> dict[str, Any]:
    parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_source(path: Path) -> None:
    assert complaints(load(path), path.stem) == []


def test_sources_together() -> None:
    sources = [load(p) for p in SOURCES]
    assert len(sources) >= 16
    assert not [t for t, n in Counter(s["title"] for s in sources).items() if n > 1]
    assert {s["script"] for s in sources} == ALLOWED["script"]
    assert {"zh", "yue", "lzh", "en"} <= {s["language"] for s in sources}
    assert [s["name"] for s in sources if s["kind"] == "local"] == ["sample"]


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_readme_names_every_source_and_field(page: str) -> None:
    named = set(re.findall(r"`(\w+)`", (CORPORA / page).read_text(encoding="utf-8")))
    assert {p.stem for p in SOURCES} | {*BEFORE, *LOCATION.values(), *AFTER, *WORDS} <= named


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("title_zh", "Latin only"),
        ("title_zh", "中文 Wikipedia"),
        ("hub", "no-owner"),
        ("split", None),
        ("field", []),
        ("field", 3),
        ("script", "Simplified"),
        ("domain", "stuff"),
        ("size", "large"),
        ("licence", ""),
        ("checked", "yes, 2026-11"),
        ("checked", "not fetched here; card read"),
    ],
)
def test_a_broken_source_is_noticed(key: str, value: Any) -> None:
    broken = copy.deepcopy(load(CORPORA / "wikipedia_zh.yaml"))
    broken[key] = value
    assert complaints(broken, "wikipedia_zh")
    del broken[key]
    assert complaints(broken, "wikipedia_zh")


@cache
def text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")  # strict: invalid UTF-8 fails here


def documents(path: Path) -> list[list[str]]:
    return [d.split("\n") for d in text(path).rstrip("\n").split("\n\n")]


@cache
def converter(name: str) -> opencc.OpenCC:
    return opencc.OpenCC(name)


def changed(name: str, original: str) -> list[str]:
    """The characters that OpenCC would write otherwise."""
    converted = converter(name).convert(original)
    assert len(converted) == len(original)
    return [a for a, b in zip(original, converted, strict=True) if a != b]


@pytest.mark.parametrize("prefix", PARTS)
def test_sample_size(prefix: str) -> None:
    files, least, most = PARTS[prefix]
    sizes = [p.stat().st_size for p in SAMPLE.glob(f"{prefix}*.txt")]
    assert len(sizes) == files
    assert least <= sum(sizes) <= most
    if prefix == "zh_":
        assert all(7_000 <= s <= 9_500 for s in sizes)


def test_sample_holds_nothing_else() -> None:
    assert sorted(SAMPLE.iterdir()) == TEXTS
    assert all(p.name.startswith(tuple(PARTS)) for p in TEXTS)


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.stem)
def test_sample_lines(path: Path) -> None:
    whole = text(path)
    assert whole.endswith("\n") and not whole.endswith("\n\n")
    assert not re.search(r"[\ufeff\ufffd\u200b\u00a0\r\t]|[ \u3000]\n", whole)
    assert max(len(line.encode("utf-8")) for line in whole.split("\n")) <= 4000
    if path in PROSE:
        assert "\n\n\n" not in whole
        assert len(documents(path)) >= 3
        assert not re.search(r"^ |  ", whole, re.M)


def test_no_line_twice() -> None:
    lines = Counter(line for p in TEXTS for line in text(p).split("\n") if line.strip())
    assert [line for line, n in lines.items() if n > 1] == []


def test_no_templates() -> None:
    """No stretch of twelve Chinese or forty English characters stands in two places."""
    places: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for path in PROSE:
        width = 12 if path.name.startswith("zh") else 40
        for number, line in enumerate(text(path).split("\n")):
            for start in range(len(line) - width + 1):
                places[line[start : start + width]].add((path.name, number))
    assert {s: p for s, p in places.items() if len(p) > 1} == {}


@pytest.mark.parametrize("path", sorted(SAMPLE.glob("zh_*.txt")), ids=lambda p: p.stem)
def test_simplified(path: Path) -> None:
    whole = text(path)
    assert set(changed("t2s", whole)) <= KEPT_IN_SIMPLIFIED
    assert len(re.findall(HAN, whole)) / len(whole.replace("\n", "")) > 0.75
    assert not re.search(r"[「」『』]", whole)
    assert whole.count("“") == whole.count("”") and whole.count("《") == whole.count("》")


@pytest.mark.parametrize("path", sorted(SAMPLE.glob("zhtw_*.txt")), ids=lambda p: p.stem)
def test_traditional(path: Path) -> None:
    whole = text(path)
    han = len(re.findall(HAN, whole))
    # Neither Taiwan's standard nor, but for a few variants, OpenCC's own finds anything to convert ...
    assert changed("t2tw", whole) == []
    assert set(changed("s2t", whole)) <= KEPT_IN_TRADITIONAL
    # ... and in Simplified a good part of it would look otherwise, so it is Traditional and not merely neutral.
    assert len(changed("t2s", whole)) / han > 0.25
    assert "「" in whole and whole.count("「") == whole.count("」") and not re.search("[“”‘’]", whole)
    assert not re.search("軟件|網絡|信息|視頻|鼠標|硬盤|打印|程序員|計算機", whole)


def test_taiwan_vocabulary() -> None:
    whole = "".join(text(p) for p in SAMPLE.glob("zhtw_*.txt"))
    assert [w for w in ("軟體", "網路", "資訊", "資料", "程式", "滑鼠", "伺服器") if w not in whole] == []


@pytest.mark.parametrize("path", sorted(SAMPLE.glob("zhhk_*.txt")), ids=lambda p: p.stem)
def test_hong_kong(path: Path) -> None:
    whole = text(path)
    assert set(changed("t2hk", whole)) <= KEPT_IN_HONG_KONG
    assert set(changed("s2t", whole)) <= KEPT_IN_TRADITIONAL | set("峰葱晒吓郁")
    assert len(changed("t2s", whole)) / len(re.findall(HAN, whole)) > 0.25
    assert whole.count("「") == whole.count("」") and not re.search("[“”‘’]", whole)
    assert not re.search("軟體|網路|捷運|計程車|公車|冷氣機|影片檔|裡|著|視頻|短信|出租車|屏幕", whole)


def test_hong_kong_is_written_and_spoken() -> None:
    """Written Chinese uses 的 and 是; Cantonese has its own words for them, at least one character in ten."""
    cantonese = "係喺嘅咗冇咁啲嚟佢哋㗎喎咩唔乜嗰"
    share = {
        part: len(re.findall(f"[{cantonese}]", text(SAMPLE / f"zhhk_{part}.txt")))
        / len(re.findall(HAN, text(SAMPLE / f"zhhk_{part}.txt")))
        for part in ("written", "spoken")
    }
    assert share["spoken"] > 0.1 and share["written"] == 0
    assert "是" not in text(SAMPLE / "zhhk_spoken.txt").replace("於是", "")
    whole = "".join(text(p) for p in SAMPLE.glob("zhhk_*.txt"))
    words = (
        "巴士",
        "茶餐廳",
        "軟件",
        "程式",
        "手提電話",
        "士多",
        "八達通",
        "冷氣",
        "街市",
        "執屋",
        "瞓",
        "睇",
    )
    assert [w for w in words if w not in whole] == []


@pytest.mark.parametrize("path", sorted(SAMPLE.glob("mixed_*.txt")), ids=lambda p: p.stem)
def test_mixed(path: Path) -> None:
    """Simplified prose with English terms in nearly every sentence, as engineers write it."""
    whole = text(path)
    assert changed("t2s", whole) == []
    assert 0.5 < len(re.findall(HAN, whole)) / len(whole.replace("\n", "")) < 0.8
    assert len(set(re.findall("[A-Za-z]{3,}", whole))) > 100
    lines = [line for line in whole.split("\n") if len(line) > 40]
    assert all(re.search("[A-Za-z]{2}", line) for line in lines)


@pytest.mark.parametrize(
    "path", sorted([*SAMPLE.glob("zh*.txt"), *SAMPLE.glob("mixed_*.txt")]), ids=lambda p: p.stem
)
def test_no_space_beside_han(path: Path) -> None:
    assert spaced(text(path)) == []


@pytest.mark.parametrize(
    "page", [CORPORA.parent / "README.zh.md", CORPORA / "README.md"], ids=["zh", "corpora"]
)
def test_documents_follow_the_same_rule(page: Path) -> None:
    assert spaced(page.read_text(encoding="utf-8")) == []


def test_every_label_is_read_by_default() -> None:
    assert {p.name.split("_")[0] for p in TEXTS} == set(SAMPLES)
    assert sorted(f for label in SAMPLES for f in sample_files(label)) == TEXTS


@pytest.mark.parametrize(
    "path", sorted([*SAMPLE.glob("zh*.txt"), *SAMPLE.glob("mixed_*.txt")]), ids=lambda p: p.stem
)
def test_chinese_punctuation(path: Path) -> None:
    """No ASCII comma, colon, question mark and so on between Chinese characters."""
    assert re.findall(rf"{HAN}[,;:?!()]|[,;:?!()]{HAN}", text(path)) == []


@pytest.mark.parametrize("path", sorted(SAMPLE.glob("en_*.txt")), ids=lambda p: p.stem)
def test_english(path: Path) -> None:
    whole = text(path)
    assert sum(c.isascii() for c in whole) / len(whole) > 0.99
    assert not re.search(HAN, whole)


def test_code_is_code() -> None:
    python = text(SAMPLE / "code_python.txt")
    ast.parse(python)
    assert re.search(rf"# {HAN}", python)
    shell, brace, rest = text(SAMPLE / "code_shell_json.txt").rpartition('\n{\n  "run"')
    assert shell.startswith("#!/usr/bin/env bash\n")
    assert json.loads(brace + rest)["model"]["layers"] == 4
