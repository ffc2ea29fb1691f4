"""The command line in Chinese: a complete catalogue, English untouched, data never translated."""

import os
import re
import subprocess
import sys
from gettext import GNUTranslations
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("babel")

from scripts.cli_docs import chinese_cli_docs
from scripts.translations import PO, mo_bytes, read, template
from tests.conftest import ROOT, Zhllama
from tests.seed_checks import spaced
from tests.test_docs_zh import FORMER
from zhllama.commands.chinese_help import WORD
from zhllama.commands.progress import duration
from zhllama.commands.shared import say_addresses
from zhllama.commands.translation import (
    COPIED,
    FIELD,
    Catalogue,
    chinese,
    error_line,
    number_of,
    reason_shown,
    stopped,
    translated,
)
from zhllama.conversation.read_conversations import BadRow, refuse_bad_rows
from zhllama.demo import proofs
from zhllama.efficiency.advise import _caution, _quality_note
from zhllama.errors import InputError

CHINESE = {"ZHLLAMA_LANG": "zh", "LC_ALL": ""}


def test_no_text_is_missing() -> None:
    known = read()
    wanted = {(message.id, message.context) for message in template() if message.id}
    assert {(m.id, m.context) for m in known if m.id} == wanted, "run python scripts/translations.py"
    assert [message.id for message in known if message.id and not message.string] == [], (
        "translate these in zhllama/locale/zh/LC_MESSAGES/zhllama.po"
    )
    compiled = [
        GNUTranslations(file)._catalog
        for file in (PO.with_suffix(".mo").open("rb"), BytesIO(mo_bytes(known)))
    ]  # type: ignore[attr-defined]
    for messages in compiled:
        del messages[""]  # the version of babel
    assert compiled[0] == compiled[1], "run python scripts/translations.py"


def test_translations_are_chinese_and_keep_their_fields() -> None:
    for message in read():
        if not message.id or not message.string:
            continue
        text = str(message.string)
        names = FIELD.findall(message.id)
        assert len(names) == len(set(names)), f"{message.id}: two fields of one name"
        assert set(FIELD.findall(text)) <= set(FIELD.findall(message.id)), message.id
        flags = [sorted(re.findall(r"--[a-z][a-z-]+", one)) for one in (text, str(message.id))]
        assert flags[0] == flags[1], message.id
        assert not FORMER.search(text), message.id
        assert not text.startswith("的"), f"{message.id}: it follows a colon"
        assert text.startswith("\n") == message.id.startswith("\n"), message.id
        assert text.endswith("\n") == message.id.endswith("\n"), message.id
        assert spaced(text) == [], f"{text}: a space between Han and figures or Latin"
        words = re.findall("[A-Za-z]{2,}", FIELD.sub("", text))
        command = text.replace("：", ": ").lower() == message.id.lower() and (
            len(words) <= 2 or "install" in words[:3]
        )
        assert command or not words or re.search("[\u4e00-\u9fff]", text), message.id


def test_docs_are_what_help_says_in_chinese() -> None:
    page = (ROOT / "docs" / "cli.zh.md").read_text(encoding="utf-8")
    assert page == chinese_cli_docs(), "run python scripts/cli_docs.py"
    english = [
        line for line in page.splitlines() if re.search(r"│ .*[a-z] [a-z]+ [a-z]+ [a-z]+ [a-z]+", line)
    ]
    assert english == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ZHLLAMA_LANG": "zh"}, True), ({"ZHLLAMA_LANG": "zh_CN"}, True), ({"ZHLLAMA_LANG": "zh-Hans"}, True),
        ({"ZHLLAMA_LANG": "zh-Hant"}, True), ({"LANG": "zh_CN.UTF-8"}, True), ({"LANG": "zh_TW.UTF-8"}, True),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, True), ({}, False), ({"LANG": "C.UTF-8"}, False),
        ({"ZHLLAMA_LANG": "en", "LANG": "zh_CN.UTF-8"}, False), ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, False),
        ({"ZHLLAMA_LANG": "", "LC_ALL": "", "LANG": "zh_CN"}, True), ({"LANG": "de_DE.UTF-8"}, False),
    ],
)  # fmt: skip
def test_the_language_is_chosen(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ZHLLAMA_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chinese() is expected


def test_english_loads_no_catalogue() -> None:
    code = (
        "import sys; from zhllama.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "from zhllama.commands.translation import _catalogue; print(_catalogue.cache_info().currsize, file=sys.stderr)"
    )
    environment = {**os.environ, "ZHLLAMA_LANG": "en", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.stderr == "0\n" and "Usage: zhllama [OPTIONS]" in done.stdout


MESSAGES = [
    ("{path}: line {line}: is missing", "{path}：第{line}行：缺失"),
    ("{out}: {what}", "{out}：{what}"),
    ("part\x04no rows{where}", "没有数据{where}"),
    ("part\x04 in {file}", "，在{file}中"),
    ("is missing", "缺失"),
    ("part\x04the file", "该文件"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("is missing", "缺失"),
        ("a.txt: line 3: is missing", "a.txt：第3行：缺失"),
        ("a: b.txt: line 3: is missing", "a: b.txt：第3行：缺失"),  # the template with most text of its own
        ("out: the file", "out：该文件"),
        ("out: no rows in a.txt", "out：没有数据，在a.txt中"),
        ("is missing: is missing", "is missing：is missing"),  # data that looks like a text is copied
        ("something else", "something else"),
        ("two\nlines: no rows", "two\nlines：没有数据"),
        ("{path}: line {line}: is missing", "{path}：第{line}行：缺失"),
        (r"a\1: \g<0>", r"a\1：\g<0>"),
    ],
)
def test_templates(text: str, expected: str) -> None:
    assert Catalogue(MESSAGES).translated(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 is not above 0", "0不大于0"),  # made of fields alone: `{value} {problem}`
        ("7 is below 8", "7小于8"),
        ("is not used by --recipe safe", "不用于--recipe safe"),
        ("3 of 9 added pieces can never occur, as 中华", "新增的9个词表项中有3个不可达，例如中华"),
        ("messages.0.loss: is not supported here", "messages.0.loss：此处不支持"),
        (
            "a.csv: 1,200 words, read as column 2 of 3, separated by commas, with the header '词'.",
            "a.csv：1,200个词，读取方式：以逗号分隔，共3列，取第2列，表头为'词'。",
        ),
        ("win rate [95 %]", "胜率[95%]"),
        ("step 20: zh 11.9", "第20步：zh 11.9"),  # of training
        ("in step 'list': no", "步骤'list'：no"),  # of a pipeline
        ("20 steps, 5 tokens, 3e+11 FLOPs, about 2.5天", "20步，5个词元，3e+11 FLOPs，约2.5天"),
        ("\nStage 1: only the new rows are trained.", "\n第一阶段：只训练新行。"),
        (
            "Install by: /a/bin/python -m pip install -e '/a[align,chat]'",
            "安装命令：/a/bin/python -m pip install -e '/a[align,chat]'",
        ),
        ("/a/bin/python -m pip install torch", "/a/bin/python -m pip install torch"),
        (
            "Added 18个列表项; 3 of the base pruned (id_map.json); 1,278 of the list left out. Written to a/b",
            "新增18个列表项；原词表裁剪3项（id_map.json）；列表中有1,278项未采用。已写入a/b",
        ),
        (
            "Added 18个列表项; 1,278 of the list left out. Written to a/b",
            "新增18个列表项；列表中有1,278项未采用。已写入a/b",
        ),
        (
            "12 tokens, cost 1.2345, in flight 3 / 32, 429s 0",
            "12个词元，费用1.2345，进行中3 / 32，429响应0次",
        ),
        (
            "trial of 3 calls: the run needs about 9 calls, 12 tokens, cost 1.2000; --max-cost 1 stops it before",
            "试运行3次请求：整个运行需要约9次请求、12个词元，费用1.2000；--max-cost 1会在此之前停止运行",
        ),
        (
            "a: an adapter for b; logits differ by 1e-4 relative to their size (at most 1e-3), the same next token after 100.0 % of 10 tokens",
            "a：b的适配器；logits的相对差异为1e-4（上限1e-3），10个位置中有100.0%预测的下一个词元相同",
        ),
        (
            "input: training changed 5 of 6 new rows and 3 of 7 old rows",
            "input：训练改动了6个新行中的5个和7个旧行中的3个",
        ),
        ("is not JSON (Expecting value: line 1 column 2 (char 1))", "不是JSON（第1行第2列应有一个值）"),
        ("is not JSON (Invalid \\escape: line 1 column 8 (char 7))", "不是JSON（第1行第8列反斜杠转义无效）"),
        ("gives no reply (Connection refused)", "没有回复（连接被拒绝）"),
        ("cannot be written (Permission denied)", "无法写入（没有权限）"),
        ("Write e.g. --text zh=corpus.txt", "例如--text zh=corpus.txt"),
        ("Give another with --port, or 0 for any", "用--port换一个，或用0表示任意端口"),
        ("Give --resume to continue, or --force to start over", "用--resume恢复，或用--force重新开始"),
    ],
)
def test_texts_made_of_parts(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert translated(text) == expected


def test_numbers_are_counted_as_chinese_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert number_of("18", "pieces of the list") == "18 pieces of the list"
    assert duration(90 * 60) == "1.5 h" and duration(300) == "5 min"
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert number_of("18", "pieces of the list") == "18个列表项"
    assert duration(90 * 60) == "1.5小时" and duration(300) == "5分钟" and duration(4 * 86400) == "4.0天"


@pytest.mark.parametrize("place", ["list", "text", "merges", "new", "steps", "runs/list", "list.txt"])
def test_the_name_of_a_file_is_no_word_of_ours(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out list` was said to be 列表项."""
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert error_line(place, "is missing", "").startswith(f"{place}：")
    assert error_line("internal error", "is closed", "").startswith("内部错误：")


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("See zhllama --help", True), ("Use --resume", True), ("Give --stage STAGE", True), ("Give a tokenizer.json", True),
        ("/a/bin/python -m pip install -e '/a[train]'", True), ("安装命令：uv pip install 'zhllama[train]'", True),
        ("pipx install --force 'zhllama[a] @ git+https://x'", True), ("Give zhllama corpus list", True), ("原因见runs/x", True),
        ("Train it with zhllama pretrain --stage 1", True), ("Name one of them: a/b.json#x", True), ("see https://a.b/c", True),
        ("用--force重新开始", False), ("Check the path", False), ("Take 3/4", False), ("at most 1.5", False),
        ("the base is byte-level", False), ("in python it is slow", False), ("as told there (docs/x.md)", False),
        ("Run zhllama corpus list and choose one of them", False),
    ],
)  # fmt: skip
def test_no_full_stop_is_copied_with_a_command(
    text: str, copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error_line("a", "b", text) == f"a: b. {text}" + "." * (not copied)
    assert error_line("a", text, "") == f"a: {text}" + "." * (not copied)
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert stopped(text) == text + "。" * (not copied)


def test_no_text_ends_in_a_command_and_a_full_stop() -> None:
    """Of what is said, noted and warned, in both languages; help is read and not copied."""
    for message in read():
        for text in (str(message.id), str(message.string)):
            filled = re.sub(r"\{(out|path|folder|file|run|target|place)\d?\}", "runs/a", text)
            said = all(file != "--help" for file, _ in message.locations)
            assert not (said and filled.endswith((".", "。")) and COPIED.search(filled[:-1])), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none can be exact: 11,597 pieces share their score with another, and SentencePiece then merges from left to right",
         "不可能完全一致：有11,597个词表项与别的词表项分数相同，此时SentencePiece从左到右合并"),
        ("Training on 2 billion tokens is repaid, in operations, once the model has read or written 4.8 billion characters.",
         "用2B词元（1B即10亿）训练所花的运算量，在模型读写约4.8B个字符之后可以省回来。"),
    ],
)  # fmt: skip
def test_texts_of_properties_and_methods_are_found(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert translated(text) == expected
    caution = _quality_note(None, 1.0)
    assert translated(f"{caution} {_caution('yes', 1e8)}".strip()).isascii() is False
    assert translated(f"{caution} ".strip()).startswith("质量要训练之后才能提高")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("not JSON", "不是JSON（not JSON）"),
        ("roles out of order", "角色次序不对（roles out of order）"),
        ("HTML to Markdown", "HTML转为Markdown（HTML to Markdown）"),
        ("words of ads.txt", "含名单ads.txt中的词语（words of ads.txt）"),
        ("needs what is not there", "依赖未提供的图片、附件等（needs what is not there）"),  # a page's text
        ("my own reason", "my own reason"),
    ],
)
def test_reasons_keep_the_name_that_files_have(
    reason: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reason_shown(reason) == reason_shown(reason, named=False) == reason
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert reason_shown(reason) == shown
    assert reason_shown(reason, named=False) == shown.partition("（")[0]


def test_every_reason_and_repair_of_sharegpt_has_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (ROOT / "zhllama" / "conversation" / "clean.py").read_text(encoding="utf-8")
    names = re.findall(r'(?:Rejected|edits\.add)\("([^"]+)"', source)
    assert len(names) > 15
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert [name for name in names if reason_shown(name) == name] == []


def test_proofs_of_the_demo_are_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = {
        "pieces": 51000,
        "drift": [0, 9],
        "dead": 0,
        "exact_fast_tokenizer": True,
        "sentence_tokens": [35, 16],
    }
    bits = {"before": 11.9, "after": 10.8}
    stage = {"zh_bits_per_character": bits, "answers_bits_per_character": bits, "zh_bits_per_byte": bits}
    said = [
        *proofs("vocab", vocab),
        *proofs("vocab", {**vocab, "exact_fast_tokenizer": False}),
        *proofs("stage1", stage),
    ]
    assert said[0].count(", an exact tokenizer.json;") == said[1].count(", no exact tokenizer.json;") == 1
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    shown = [translated(f"  proved: {one}") for one in said]
    assert "，有完全一致的tokenizer.json；" in shown[0] and "，没有完全一致的tokenizer.json；" in shown[1]
    assert shown[2:] == [
        "  已验证：zh的每字符比特数11.900 -> 10.800", "  已验证：回答的每字符比特数11.900 -> 10.800",
    ]  # fmt: skip


def test_a_bad_row_is_told_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason inside another text stayed English, and was cut at its own comma."""
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    row = BadRow("a.json:1", "has no kto_tag or label as true or false, and no ranked answers")
    with pytest.raises(InputError) as refused:
        refuse_bad_rows([row, row])
    error = refused.value
    assert error_line(error.where, error.what, error.remedy.replace("`skip_bad`", "--skip-bad")) == (
        "a.json:1：没有取值为true或false的kto_tag或label，也没有排序的回答。另有1行有问题。请改正，或使用--skip-bad"
    )


def test_what_waits_is_named_in_the_users_language() -> None:
    """rich's own status, given English, bypassed the catalogue."""
    for path in (ROOT / "zhllama" / "commands").glob("*.py"):
        assert path.name == "shared.py" or ".status(" not in path.read_text(encoding="utf-8"), path


def test_addresses_stand_behind_chinese_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = {"page": "http://x/", "reviewer": "me", "decisions": "a/b"}
    say_addresses(addresses)
    assert capsys.readouterr().out == "page       http://x/\nreviewer   me\ndecisions  a/b\n"
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    say_addresses(addresses)
    assert capsys.readouterr().out == "页面      http://x/\n审阅人    me\n审阅记录  a/b\n"


def test_extras_say_in_chinese_what_they_are_for(zhllama: Zhllama) -> None:
    done = zhllama("extras", env=CHINESE)
    assert "用途" in done.stdout and "经过编译的编码器" in done.stdout and "is for" not in done.stdout


def test_lines_break_between_characters() -> None:
    text = "把词表项（piece）并入模型的词表，并验证（“改变”）了什么。 tokenizer.json也要"
    words = WORD.findall(text)
    assert "".join(words) == text
    assert not any(word[0] in "，。）”" or word.rstrip()[-1] in "（“" for word in words)
    assert "项" in words and "（piece）" in words and "tokenizer.json" in words


def test_usage_errors(zhllama: Zhllama, tmp_path: Path) -> None:
    for arguments, expected in (
        (("advise", "--nope"), "没有选项：--nope"),
        (("report",), "缺少参数'tokenizer'。"),
        (("advise", "--text"), "选项'--text'需要一个值。"),
        (("advse",), "没有命令'advse'。是否想输入'advise'？"),
        (("advise", "--hidden", "x"), "'--hidden'的值无效：应为整数"),
        (("gen-zh", "--method", "x"), "'--method'的值无效：'x'不是以下之一："),
    ):
        done = zhllama(*arguments, env=CHINESE)
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert "用法：zhllama" in done.stderr or arguments[-1] == "--text"
    shown = zhllama(
        "corpus", "clean", "--help", env={"ZHLLAMA_LANG": "", "LANG": "zh_CN.UTF-8", "LC_ALL": ""}
    )
    assert (
        shown.returncode == 0 and "恢复--out中未完成的运行。" in shown.stdout and "Usage" not in shown.stdout
    )
