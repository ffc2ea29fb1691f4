"""Recompute the answers of the seed tasks: arithmetic, puzzles, lengths, verse, data formats and code.

As in seed_checks.py, every check returns a list of complaints, so that tests can show it fails on wrong answers.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path

import opencc
import yaml

from tests.seed_checks import Task, prose

Answers = dict[str, str]  # seed id -> its first output


def answers(tasks: list[Task]) -> Answers:
    return {task["id"]: task["instances"][0]["output"] for task in tasks}


# --- arithmetic: every equation between plain numbers in an answer --------------------

_NUMERIC = r"[-+×÷/√²³⁴()\d.%° ]"
_EQUATION = re.compile(rf"(?<![A-Za-z0-9.′])(?=[-√(\d]){_NUMERIC}+(?:=(?: ?元)?{_NUMERIC}+)+")


def value(expression: str) -> Fraction | float:
    """The value of an expression in ×, ÷, √, ², % and the like; a fraction without spaces binds first."""
    assert re.fullmatch(rf"{_NUMERIC}+", expression), expression
    text = re.sub(r"\d+(?:\.\d+)?", lambda m: f"F('{m[0]}')", expression.replace("°", "").strip())
    text = re.sub(r"F\('[\d.]+'\)/F\('[\d.]+'\)", lambda m: f"({m[0]})", text)
    text = re.sub(r"(F\('[\d.]+'\))%", r"(\1/100)", text)
    text = re.sub(r"√(F\('[\d.]+'\))", r"root(\1)", text).replace("√(", "root(")
    for sign, meaning in {"×": "*", "÷": "/", "²": "**2", "³": "**3", "⁴": "**4"}.items():
        text = text.replace(sign, meaning)
    names = {"__builtins__": {}, "F": Fraction, "root": lambda x: Fraction(x) ** Fraction(1, 2)}
    result: Fraction | float = eval(text, names)
    return result


def equations(text: str) -> list[list[str]]:
    """The chains `a = b = c` of a text in which every side is a plain number or a sum of such."""
    found = []
    for match in _EQUATION.finditer(prose(text)):
        before, after = text_beside(prose(text), match.start(), match.end())
        if re.search(r"[A-Za-zμ²³)′+\-×÷/√∶]$", before) or re.match(r"[A-Za-zμ²³(′½√]", after):
            continue
        sides = [side.replace("元", "").strip() for side in match.group().split("=")]
        if all(re.search(r"\d", side) for side in sides):
            found.append([re.sub(r"\s*[-+×÷/(]+\s*$", "", side) for side in sides])
    return found


def text_beside(text: str, start: int, end: int) -> tuple[str, str]:
    return text[:start].split("\n")[-1].rstrip(" "), text[end:].split("\n")[0].lstrip(" ")


def check_arithmetic(tasks: list[Task], least: int = 35) -> list[str]:
    bad, count = [], 0
    for name, answer in answers(tasks).items():
        for sides in equations(answer):
            count += 1
            values = [value(side) for side in sides]
            if any(abs(v - values[0]) > 1e-9 for v in values):
                bad.append(f"{name}: {' = '.join(sides)}")
    return bad if count >= least else [*bad, f"only {count} equations were found, not {least}"]


# --- puzzles: the only solution, found by trying all cases --------------------------------------------------------


def _only(solutions: list[str]) -> str:
    assert len(solutions) == 1, solutions
    return solutions[0]


def _vase() -> str:
    said = {"甲": lambda who: who == "乙", "乙": lambda who: who != "乙", "丙": lambda who: who != "丙"}
    return _only([who for who in said if sum(claim(who) for claim in said.values()) == 1])


def _hats() -> str:
    """The color of the first hat, if neither the last nor the middle student can tell his own."""
    worlds = [w for w in product("红蓝", repeat=3) if w.count("红") <= 3 and w.count("蓝") <= 2]
    for place in (2, 1):  # from the last forward; each sees those before
        worlds = [w for w in worlds if len({v[place] for v in worlds if v[:place] == w[:place]}) > 1]
    return _only(sorted({w[0] for w in worlds}))


PUZZLES: dict[str, Callable[[], str]] = {
    "seed_003": lambda: _only([f"三轮车{x}辆，小汽车{18 - x}辆" for x in range(19) if 3 * x + 4 * (18 - x) == 65]),
    "seed_015": lambda: f"所以花瓶是{_vase()}打碎的",
    "seed_062": lambda: _only([f"原数是{n}" for n in range(10, 100) if n // 10 == n % 10 + 3 and n + n % 10 * 10 + n // 10 == 143]),
    "seed_091": lambda: f"概率为6/36 = {Fraction(sum(a + b >= 10 for a, b in product(range(1, 7), repeat=2)), 36)}",
    "seed_011": lambda: f"后代出现矮茎的概率是{_short_peas()}",
    "seed_159": lambda: f"他戴的是{_hats()}帽子",
}  # fmt: skip


def _short_peas() -> Fraction:
    tall = [a + b for a, b in product("Dd", repeat=2) if "D" in a + b]
    return sum((Fraction(1, len(tall)) * Fraction(plant.count("d"), 2) for plant in tall), Fraction())


def check_puzzles(tasks: list[Task]) -> list[str]:
    outputs = answers(tasks)
    return [
        f"{name}: {want!r} is not in the answer"
        for name, solve in PUZZLES.items()
        if (want := solve()) not in outputs[name]
    ]


def check_proof(tasks: list[Task]) -> list[str]:
    """n(n+1)(n+2)(n+3)+1 is the square that seed_151 gives, for the first thousand n."""
    wrong = [n for n in range(1000) if n * (n + 1) * (n + 2) * (n + 3) + 1 != (n * n + 3 * n + 1) ** 2]
    return (
        [f"seed_151: not so for {wrong[:3]}"]
        if wrong or "n² + 3n + 1" not in answers(tasks)["seed_151"]
        else []
    )


# --- counts and tables -----------------------------------------------------------------------------

# Characters without white space, as the instruction limits them: (part of the answer, least, most).
LENGTHS: dict[str, tuple[str, int, int]] = {
    "seed_001": ("all", 160, 240), "seed_014": ("all", 1, 40), "seed_028": ("body", 1, 150), "seed_040": ("body", 800, 1200),
    "seed_045": ("all", 720, 880), "seed_058": ("all", 650, 800), "seed_065": ("all", 160, 240), "seed_069": ("all", 700, 900),
    "seed_101": ("body", 720, 880), "seed_103": ("all", 260, 340), "seed_132": ("line", 1, 20), "seed_141": ("all", 1, 200),
    "seed_148": ("all", 1, 80), "seed_158": ("all", 720, 880), "seed_164": ("all", 105, 135),
}  # fmt: skip


# What the instructions count: (pattern, least, most).
COUNTS: dict[str, tuple[str, int, int]] = {
    "seed_014": (r"[。！？]", 1, 1), "seed_023": (r"^\d\. ", 8, 8), "seed_028": (r"#[^#\n]+#", 3, 3), "seed_043": (r"[^、]+", 5, 5),
    "seed_049": (r"^.+：", 4, 4), "seed_104": (r"[。！？]", 3, 4), "seed_122": (r"^\d\. ", 4, 4), "seed_124": (r"^\d\. ", 3, 3),
    "seed_132": (r"^\d\. ", 3, 3), "seed_148": (r"#[^#\n]+#", 1, 1), "seed_169": (r"[。！？]", 1, 2),
}  # fmt: skip


def check_counts(tasks: list[Task]) -> list[str]:
    """Sentences, items, keywords and hashtags are as many as asked for."""
    found = {name: len(re.findall(COUNTS[name][0], answers(tasks)[name], re.MULTILINE)) for name in COUNTS}
    return [
        f"{name}: {found[name]} times {pattern}, not {least} to {most}"
        for name, (pattern, least, most) in COUNTS.items()
        if not least <= found[name] <= most
    ]


def length(text: str) -> int:
    return len(re.sub(r"\s|\||---", "", text))


def check_lengths(tasks: list[Task]) -> list[str]:
    bad = []
    for name, (part, least, most) in LENGTHS.items():
        answer = answers(tasks)[name]
        if part == "line":
            counted = max(length(re.sub(r"^\d\. ", "", line)) for line in answer.split("\n"))
        else:
            lines = answer.split("\n")
            counted = length("\n".join(line for line in lines[part == "body" and name != "seed_028" :] if not line.startswith("#")))  # fmt: skip
        if not least <= counted <= most:
            bad.append(f"{name}: {counted} characters, not {least} to {most}")
    return bad


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its rule."""
    lines = [line.strip("| ").split("|") for line in text.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if not set("".join(line)) <= set("- ")]


def check_tables(tasks: list[Task]) -> list[str]:
    outputs, bad = answers(tasks), []
    *items, total = rows(outputs["seed_045"])[1:]
    for name, amount, price, cost in items:
        if int(re.sub(r"\D", "", amount)) * Decimal(price) != Decimal(cost):
            bad.append(f"seed_045: {name} {amount} × {price} is not {cost}")
    if sum(Decimal(row[3]) for row in items) != Decimal(total[-1]):
        bad.append(f"seed_045: the total is not {total[-1]}")
    for people, share in re.findall(r"(\d+)人，占(\d+)%", outputs["seed_158"]):
        if Fraction(int(people), 200) != Fraction(int(share), 100):
            bad.append(f"seed_158: {people} of 200 is not {share} %")
    times = [tuple(map(int, re.findall(r"\d+", row[0]))) for row in rows(outputs["seed_112"])[1:]]
    if [start for start, _ in times] != [0, *(end for _, end in times[:-1])] or times[-1][1] != 45:
        bad.append(f"seed_112: {times} do not follow each other to 45 seconds")
    for name, whole in (("seed_120", 30), ("seed_144", 40)):
        if (minutes := sum(map(int, re.findall(r"（(\d+)分钟）", outputs[name])))) != whole:
            bad.append(f"{name}: {minutes} minutes, not {whole}")
    return bad


# --- verse: tones after 平水韵, equal in modern Mandarin; the poem states its own pattern ---------------

_LEVEL = set("山亭烟空泉声风云开峰头回人家杨中纸深藏先来犹存春千风含情红")
_OBLIQUE = set("雨霁晓万壑满袖坐到步上首处隐绿旧辈墨巷自有后送暖绿旭日户")
_FIRST_RHYME = set(
    "东同铜桐筒童僮中衷忠虫终崇戎弓躬宫融雄熊穹穷风枫丰充隆空公功工攻蒙笼聋红鸿虹丛翁聪通蓬篷烘"
)


def tones(line: str) -> str:
    han = re.findall(r"[\u4e00-\u9fff]", line)
    return "".join("平" if c in _LEVEL else "仄" if c in _OBLIQUE else "？" for c in han)


def check_verse(tasks: list[Task]) -> list[str]:
    outputs, bad = answers(tasks), []
    lines = outputs["seed_160"].split("\n")
    poem, pattern = lines[2:6], [line for line in lines if re.fullmatch("[平仄]{7}", line)]
    if [tones(line) for line in poem] != pattern:
        bad.append(f"seed_160: {[tones(line) for line in poem]} is not {pattern}")
    if pattern != ["平平仄仄仄平平", "仄仄平平仄仄平", "仄仄平平平仄仄", "平平仄仄仄平平"]:
        bad.append("seed_160: not the pattern of a quatrain that begins level and rhymes at once")
    if not {line[6] for line in (poem[0], poem[1], poem[3])} <= _FIRST_RHYME:
        bad.append("seed_160: the rhymes are not of 一东")
    couplets = {"seed_074": outputs["seed_074"].split("\n")[:2], "seed_017": [tasks[16]["instances"][0]["input"], outputs["seed_017"]]}  # fmt: skip
    for name, pair in couplets.items():
        above, below = (tones(line.split("：")[1]) for line in pair)
        # Even places must oppose, the odd ones may be loose; the first line ends oblique, the second level.
        if len(above) != len(below) or any(above[i] == below[i] for i in (1, 3, 5)) or above[-1] + below[-1] != "仄平":  # fmt: skip
            bad.append(f"{name}: {above} does not match {below}")
    if [len(re.findall(r"[\u4e00-\u9fff]", line)) for line in outputs["seed_095"].split("\n")] != [5, 7, 5]:
        bad.append("seed_095: not 5, 7, 5")
    if re.search("[伞雨]", outputs["seed_118"].split("\n\n")[0]):
        bad.append("seed_118: the riddle says its answer")
    return bad


# --- formats and scripts ---------------------------------------------------------------------------


def check_formats(tasks: list[Task]) -> list[str]:
    outputs, bad = answers(tasks), []
    given = {task["id"]: task["instances"][0]["input"] for task in tasks}
    pets = [{**row, "年龄": int(row["年龄"])} for row in csv.DictReader(io.StringIO(given["seed_025"]))]
    for name in ("seed_013", "seed_025", "seed_075"):
        parsed = json.loads(outputs[name])
        if name == "seed_025" and parsed != pets:
            bad.append(f"{name}: {parsed} is not {pets}")
        if isinstance(parsed, dict):
            bad += [
                f"{name}: {v!r} is not in the input" for v in parsed.values() if v and v not in given[name]
            ]
    wanted = {"server": {"host": "0.0.0.0", "port": 8080}, "log": {"level": "info", "keep_days": 7}, "features": ["search", "export"]}  # fmt: skip
    if yaml.safe_load(outputs["seed_173"]) != wanted:
        bad.append("seed_173: the YAML says something else")
    for name, how in (("seed_050", "tw2s"), ("seed_136", "s2hk")):
        converted = opencc.OpenCC(how).convert(given[name]).translate(str.maketrans("「」", "“”"))
        if converted != outputs[name]:
            bad.append(f"{name}: OpenCC has {converted!r}")
    return bad


# --- code: run and compared with the output that the answer states --------------------------------------


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(*command: str, given: str = "", folder: Path | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, cwd=folder, check=False)  # fmt: skip
    return done.stdout.rstrip("\n") if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"


def promised(answer: str, code: str) -> str:
    """The output that the answer states for its code: a plain block after it, or the comments after its print calls."""
    rest = answer.split(code)[1].removeprefix("```\n")
    if plain := re.search(r"^```\n(.*?)\n```$", rest, re.DOTALL | re.MULTILINE):
        return plain[1]
    said = re.findall(r"^(?:print|console\.log)\(.*\) *(?:#|//) *(?:输出 *)?(.*)$", code, re.MULTILINE)
    return "\n".join(said)


PYTHON = ("seed_005", "seed_034", "seed_060", "seed_086", "seed_096", "seed_127", "seed_166")


def check_python(tasks: list[Task], names: tuple[str, ...] = PYTHON) -> list[str]:
    bad = []
    for name in names:
        answer = answers(tasks)[name]
        code = blocks(answer, "python")[0]
        want, printed = promised(answer, code), run(sys.executable, "-c", code)
        if not want or printed != want:
            bad.append(f"{name}: prints {printed!r}, not {want!r}")
    return bad


def check_python_inputs(tasks: list[Task]) -> list[str]:
    """Code given as input behaves as the answer says."""
    given = {task["id"]: [i["input"] for i in task["instances"]] for task in tasks}
    bad = []
    for name, want in (
        ("seed_034", "['苹果']\n['苹果', '香蕉']"),
        ("seed_060", "None"),
        ("seed_066", promised("#" + answers(tasks)["seed_066"], "#")),
    ):
        if (printed := run(sys.executable, "-c", given[name][0])) != want:
            bad.append(f"{name}: prints {printed!r}, not {want!r}")
    if "KeyError" not in run(sys.executable, "-c", given["seed_166"][0]):
        bad.append("seed_166: no KeyError")
    if run(sys.executable, "-c", given["seed_102"][0] + "\nprint([find([1, 3, 5, 8], n) for n in range(1, 9)])") != "[0, -1, 1, -1, 2, -1, -1, 3]":  # fmt: skip
        bad.append("seed_102: the search does not find")
    return bad


def check_sql(tasks: list[Task]) -> list[str]:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE orders (id, customer, amount)")
    amounts = {"甲": [5, 5, 5], "乙": [90, 9], "丙": [1, 2, 3, 40]}
    base.executemany("INSERT INTO orders VALUES (0, ?, ?)", [(c, a) for c, given in amounts.items() for a in given])  # fmt: skip
    found = base.execute(blocks(answers(tasks)["seed_048"], "sql")[0]).fetchall()
    return [] if found == [("丙", 4, 46), ("甲", 3, 15)] else [f"seed_048: {found}"]


def check_find(tasks: list[Task], folder: Path) -> list[str]:
    """The command of seed_082 lists the larger of two sparse files first, and no file of exactly 100 MiB."""
    for name, size in (("exact", 100 << 20), ("a", (100 << 20) + 1), ("b", 300 << 20)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    first = blocks(answers(tasks)["seed_082"], "bash")[0]
    listed = [line.split("\t")[1] for line in run("bash", "-c", first, folder=folder).split("\n")]
    return [] if listed == ["./b", "./a"] else [f"seed_082: {listed}"]


def check_node(tasks: list[Task]) -> list[str]:
    outputs, bad = answers(tasks), []
    task = next(t for t in tasks if t["id"] == "seed_109")
    for code, want in ((task["instances"][0]["input"], "结束\n数据"), (blocks(outputs["seed_109"], "javascript")[0], "数据\n结束")):  # fmt: skip
        if (printed := run("node", "-e", code)) != want:
            bad.append(f"seed_109: prints {printed!r}, not {want!r}")
    page = blocks(outputs["seed_165"], "html")[0]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None and {"text", "count", "send"} <= set(re.findall(r'id="(\w+)"', page))
    stub = """
      const parts = {text: {value: "", addEventListener: (_, f) => { parts.typed = f; }},
                     count: {classList: {toggle: (_, on) => { parts.over = on; }}}, send: {}};
      globalThis.document = {getElementById: id => parts[id]};
    """
    typed = """
      for (const value of ["", "汉字😀", "❤️🇨🇳👍🏽👨‍👩‍👧", "字".repeat(140), "字".repeat(141), "👍🏽".repeat(140)]) {
        parts.text.value = value; parts.typed();
        console.log(parts.count.textContent, parts.over, parts.send.disabled);
      }
    """
    printed = run("node", "-e", stub + script[1] + typed)
    want = "0 false true\n3 false false\n4 false false\n140 false false\n141 true true\n140 false false"
    return bad if printed == want else [*bad, f"seed_165: {printed!r}"]


def check_c(tasks: list[Task], folder: Path) -> list[str]:
    (folder / "count.c").write_text(blocks(answers(tasks)["seed_067"], "c")[0], encoding="utf-8")
    if problem := run("gcc", "-Wall", "-Werror", "-o", "count", "count.c", folder=folder):
        return [f"seed_067: {problem}"]
    cases = {"中文ab": "4", "": "0", "😀é\n": "3"}
    return [
        f"seed_067: {text!r} gives {printed}"
        for text, want in cases.items()
        if (printed := run("./count", given=text, folder=folder)) != want
    ]


def amount_in_capitals(amount: int) -> str:
    """1 to 9999 in the capitals of Chinese checks, by rewriting digits: a different method from the seed's."""
    written = "".join(d + u for d, u in zip(f"{amount:04}", "仟佰拾元", strict=True))
    written = re.sub("0[仟佰拾]", "0", written).replace("0元", "元")
    written = re.sub("0+元", "元", re.sub("^0+", "", written))
    return re.sub("0+", "0", written).translate(str.maketrans("0123456789", "零壹贰叁肆伍陆柒捌玖")) + "整"


def check_java(tasks: list[Task], folder: Path) -> list[str]:
    answer = answers(tasks)["seed_059"]
    code = blocks(answer, "java")[0]
    (folder / "Amount.java").write_text(code, encoding="utf-8")
    every = "class All { public static void main(String[] a) { for (int n = 1; n < 10000; n++) System.out.println(Amount.toChinese(n)); } }"
    (folder / "All.java").write_text(every, encoding="utf-8")
    if problem := run("javac", "-encoding", "UTF-8", "Amount.java", "All.java", folder=folder):
        return [f"seed_059: {problem}"]
    java = ("java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
    bad = (
        []
        if run(*java, "Amount", folder=folder) == promised(answer, code)
        else ["seed_059: prints otherwise"]
    )
    for amount, said in enumerate(run(*java, "All", folder=folder).split("\n"), 1):
        if said != amount_in_capitals(amount):
            return [*bad, f"seed_059: {amount} is {said}, not {amount_in_capitals(amount)}"]
    return bad


def absent(*programs: str) -> str | None:
    """The first of the programs that is not on this machine, or None."""
    return next((program for program in programs if shutil.which(program) is None), None)


PURE: list[Callable[[list[Task]], list[str]]] = [
    check_arithmetic,
    check_puzzles,
    check_proof,
    check_lengths,
    check_counts,
    check_tables,
    check_verse,
    check_formats,
    check_python_inputs,
    check_sql,
]
