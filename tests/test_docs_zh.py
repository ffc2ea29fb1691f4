"""The Chinese documents: the same headings, commands, figures, tables and links as the English ones, in the glossary's words."""

import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from pymdownx.slugs import slugify

from scripts.tree_docs import BEGIN, END, catalogue
from tests.conftest import ROOT
from tests.seed_checks import CJK, spaced
from zhllama.chinese_script import converter
from zhllama.pages.texts import page_texts

DOCS = ROOT / "docs"
README = ROOT / "README.zh.md"
# Terms that the glossary replaced.
FORMER = re.compile(
    r"残字|切得最整|词片|落选|最近者|读不出|(?<!继)续训|文种(?!子)|(?<![\d.])4比特|四比特|4位量化|打包|剪枝|词符|令牌|训练占比|血缘|谱系|服务器|Liger的?内核"
)
HEADING = re.compile(r"^(#{1,6}) +(.+)$", re.M)
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
UNITS = {
    "": 0, "thousand": 3, "万": 4, "million": 6, "M": 6, "亿": 8, "billion": 9, "B": 9, "万亿": 12, "trillion": 12,
}  # fmt: skip
NUMBER = re.compile(
    r"(?<![\w.])(\d[\d,]*\d|\d)((?:\.\d+)?)(?:[ -]?(thousand|million|billion|trillion|M\b|B\b|万亿|万|亿))?",
    re.A,
)
# 1.4 to 1.9 million: the unit belongs to both numbers.
RANGE = re.compile(r"(\d[\d.,]*)( to | and |, | or )(\d[\d.,]*) (thousand|million|billion|trillion)\b")


@dataclass(frozen=True)
class Section:
    """What a translation keeps of a heading and the text up to the next one."""

    level: int
    figures: Counter[Decimal]
    code: set[str]
    blocks: list[tuple[str, str]]
    links: Counter[str]
    rows: int
    items: int


def without_comments(language: str, block: str) -> str:
    """A block of code without its comments and the spaces before them, which are translated."""
    if language not in ("bash", "python", "yaml"):
        return block
    return re.sub(r"(^|[ \t]+)# .*$", "", block, flags=re.M)


def figures(text: str) -> Counter[Decimal]:
    """The numbers of a text, with those written in thousands, millions, 万 or 亿 at their full value."""
    text = re.sub(r"\b[Ss]tages?[ -][12](?: (?:and|or) [12])?\b", "", text)  # 第一阶段, not a figure
    text = RANGE.sub(r"\1 \4\2\3 \4", text)
    return Counter(
        Decimal(match[1].replace(",", "") + match[2]).scaleb(UNITS[match[3] or ""]).normalize()
        for match in NUMBER.finditer(text)
    )


def target(link: str) -> str:
    """A link, or the name of a page, as it is in both languages: without the language of the page."""
    return re.sub(r"\.zh\.(md|ipynb)", r".\1", link)


def names_of_tree(text: str) -> str:
    """The text with the annotated tree, whose lines are translated, reduced to the indented names of its files and folders."""
    before, begin, rest = text.partition(BEGIN)
    tree, end, after = rest.partition(END)
    return before + begin + re.sub(r"^( *\S+) .*$", r"\1", tree, flags=re.M) + end + after if end else text


def section(level: int, text: str) -> Section:
    text = names_of_tree(text)
    blocks = [(match[2], without_comments(match[2], match[3])) for match in FENCED.finditer(text)]
    prose = FENCED.sub("", text)
    shown = CODE.sub("", LINK.sub("]", ANCHOR.sub("", prose)))
    return Section(
        level,
        figures(shown),
        {target(code) for code in CODE.findall(prose)},
        blocks,
        Counter(target(link) for link in LINK.findall(prose)),
        len(re.findall(r"^ *\|.*\|$", prose, re.M)),
        len(re.findall(r"^ *(?:[-*]|\d+\.) ", prose, re.M)),
    )


def masked(text: str) -> str:
    """The text with its code blocks blanked out, every position unchanged."""
    return FENCED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def headings(text: str) -> list[re.Match[str]]:
    return list(HEADING.finditer(masked(text)))


def sections(text: str) -> list[Section]:
    """The sections of a page, from its title on; the line with a heading's anchor belongs to that heading."""
    found = headings(text)
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [section(len(match[1]), text[match.start() : end]) for match, end in zip(found, ends, strict=True)]


def english_of(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh.md", ".md"))


def name(page: Path) -> str:
    """A page's path below docs/, or below the project for one that is elsewhere, without endings."""
    return str(page.relative_to(DOCS if DOCS in page.parents else ROOT)).split(".")[0]


FOLDERS = ("corpora", "prompts_zh", "seeds_zh", "tasks_zh")  # each has a README in both languages
CHINESE = sorted([*DOCS.rglob("*.zh.md"), *(ROOT / folder / "README.zh.md" for folder in FOLDERS)])
chinese_pages = pytest.mark.parametrize("page", CHINESE, ids=name)


def test_every_page_is_translated() -> None:
    english = {name(page) for page in DOCS.rglob("*.md") if not page.name.endswith(".zh.md")}
    assert english | {f"{folder}/README" for folder in FOLDERS} == {name(page) for page in CHINESE}


@chinese_pages
def test_both_languages_have_the_same_sections(page: Path) -> None:
    ours, theirs = (path.read_text(encoding="utf-8") for path in (page, english_of(page)))
    titles = [match[2] for match in headings(ours)]
    translated, original = sections(ours), sections(theirs)
    assert [s.level for s in translated] == [s.level for s in original], titles
    for title, left, right in zip(titles, translated, original, strict=True):
        # The blocks of the command line's page are --help in Chinese, which test_translation.py checks.
        for kind in ("blocks", "figures", "code", "links", "rows", "items")[name(page) == "cli" :]:
            found, expected = getattr(left, kind), getattr(right, kind)
            assert found == expected, f"{page.name}, {title}, {kind}: {difference(found, expected)}"


def difference(found: object, expected: object) -> str:
    """What the Chinese section has too much and too little."""
    if isinstance(found, Counter | set) and isinstance(expected, Counter | set):
        return f"too much {found - expected or '-'}, missing {expected - found or '-'}"  # type: ignore[operator]
    return f"{found!r} instead of {expected!r}"


@chinese_pages
def test_links_stay_in_chinese(page: Path) -> None:
    """A link leads to the Chinese page where there is one, and its anchor is the one of the English page."""
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(FENCED.sub("", text)):
        path = (page.parent / link.partition("#")[0]).resolve()
        if path.suffix == ".md" and "://" not in link and not path.name.endswith(".zh.md"):
            translated = path.with_name(path.stem + ".zh.md")
            assert not translated.is_file(), f"{page.name}: {link} has a Chinese page, {translated.name}"
    english = [slug(match[2]) for match in headings(english_of(page).read_text(encoding="utf-8"))]
    places = [match.start() for match in headings(text)]
    for anchor in ANCHOR.finditer(text):
        number = next(n for n, place in enumerate(places) if place > anchor.start())
        assert english[number] == anchor[1], f"{page.name}: {anchor[0]} is not before its heading"


def test_readme_leads_to_its_english_version_and_to_chinese_pages() -> None:
    """Only the changes and how to contribute are in English alone."""
    links = [
        link for link in LINK.findall(FENCED.sub("", README.read_text(encoding="utf-8"))) if "://" not in link
    ]
    english = {link for link in links if ".md" in link and ".zh.md" not in link}
    assert english == {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    assert all((ROOT / link.partition("#")[0]).exists() for link in links)


def test_former_terms_are_in_no_page_of_results_and_no_prompt() -> None:
    for key, texts in page_texts().items():
        assert not FORMER.search(texts["zh-Hans"]), key
    for path in [*(ROOT / "prompts_zh").glob("*.jinja"), *(ROOT / "zhllama" / "pages").rglob("*.js")]:
        assert not FORMER.search(path.read_text(encoding="utf-8")), path


def slug(heading: str) -> str:
    """The anchor that MkDocs and GitHub give to a heading."""
    return slugify(case="lower")(re.sub(r"[`*]", "", heading), "-")


@pytest.mark.parametrize("page", [*CHINESE, README], ids=str)
def test_chinese_is_written_by_the_rules(page: Path) -> None:
    """The glossary's terms, Simplified, no spaces beside Han, and nothing that Markdown shows as a space or as asterisks."""
    english = english_of(page).read_text(encoding="utf-8")
    prose = LINK.sub("]", FENCED.sub("", page.read_text(encoding="utf-8")))
    assert_written_by_the_rules(prose, english)


def test_the_tree_is_translated_by_the_rules() -> None:
    """The rules of the pages, and the same figures and code in the English and the Chinese of a line."""
    pairs = catalogue()
    assert_written_by_the_rules(*("\n\n".join(texts) for texts in list(zip(*pairs, strict=True))[::-1]))
    for english, chinese in pairs:
        assert re.search(r"[\u4e00-\u9fff]", chinese) and not chinese.endswith("。"), chinese
        assert figures(CODE.sub("", chinese)) == figures(CODE.sub("", english)), (english, chinese)
        assert set(CODE.findall(chinese)) == set(CODE.findall(english)), (english, chinese)


def test_only_descriptions_in_the_tree_may_differ() -> None:
    """A file that is missing, renamed or in another folder still does, as does any other block."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    described = "  __main__.py                  The entry point"
    assert page.count(described) == 1 and END in page
    assert sections(page.replace(described, described.replace("The entry point", "入口"))) == sections(page)
    for changed in (described.replace("__main__", "main"), described.strip(), ""):
        assert sections(page.replace(described, changed)) != sections(page), changed
    assert sections(page.replace(" options ── commands", " 选项 ── commands")) != sections(page)


def assert_written_by_the_rules(prose: str, english: str) -> None:
    """Fails for Chinese text, of which the given English is the original, that breaks a rule of the pages."""
    prose = re.sub("“([^”]+)”", lambda quote: "“”" if quote[1] in english else quote[0], prose)
    assert not (found := FORMER.findall(prose)), found
    assert not (found := spaced(re.sub(r"\*\*|^#+ ", "", prose, flags=re.M))), f"a space beside Han: {found}"
    broken = re.findall(
        rf"[{CJK}A-Za-z0-9`*)]\n *[{CJK}A-Za-z`\[(]", re.sub(r"^#.*$|^ *\|.*$", "", prose, flags=re.M)
    )
    assert not broken, f"a line break inside a paragraph is shown as a space: {broken}"
    # GitHub shows the asterisks of **词：**后文.
    bold = [
        match[0]
        for match in re.finditer(r"(.?)\*\*([^*\n]+)\*\*(.?)", prose)
        if (re.match(r"\w", match[3]) and re.search(r"[^\w`)\]]$", match[2]))
        or (re.match(r"\w", match[1]) and re.match(r"[^\w`(\[]", match[2]))
    ]
    assert not bold, f"bold text that ends or begins with punctuation: {bold}"
    halfwidth = re.findall(r".?[\u4e00-\u9fff][,;:?!](?![\w/]).?", CODE.sub("", prose))
    assert not halfwidth, f"half-width punctuation after Han: {halfwidth}"
    simplify = converter("t2s")
    traditional = {c for c in set(prose) - set(english) if simplify(c) != c}
    assert not traditional, f"Traditional characters: {traditional}"


def test_both_glossaries_have_the_same_terms() -> None:
    """English, Chinese and Taiwan's word in each row, and no term twice."""
    english, chinese = (
        [cells(row) for row in re.findall(r"^\| .*\|$", (DOCS / page).read_text(encoding="utf-8"), re.M)]
        for page in ("glossary.md", "glossary.zh.md")
    )
    terms = [(row[0], row[1], row[2]) for row in english if row[0] != "English"]
    assert terms == [(row[1], row[0], row[2]) for row in chinese if row[1] != "英文"]
    for column in (0, 1):
        assert len({term[column] for term in terms}) == len(terms) > 60
    assert not FORMER.search("".join(term[1] for term in terms))


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_figures_in_both_languages() -> None:
    assert figures("1.4 to 1.9 million of 5,401, or 7B") == figures("140万到190万，共5,401，70亿")
    assert figures("2 billion tokens") != figures("2亿词元") and figures("about 3%") == figures("约3%")
    assert figures("U+3000, v1.2.3, chinese-llama-7b") == figures("chinese-llama-7b，U+3000，v1.2.3")
