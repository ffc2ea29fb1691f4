"""The report's figures against figures by hand, and what its command writes and refuses."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Zhllama
from tests.report_toys import base, merged, write_models
from zhllama.efficiency import count
from zhllama.efficiency.count import Chunk, LineKindTally, TextTally, chunks, count_chunk, counting, words_in
from zhllama.efficiency.line_kinds import kinds_of
from zhllama.efficiency.measure import MeasuredVocabulary, ModelCost, figures
from zhllama.efficiency.report import LabelledText, TextSource, report
from zhllama.efficiency.table import tables
from zhllama.encoding.encoder import Encoder
from zhllama.errors import InputError
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import SentencePieceTokenizer
from zhllama.vocab.sample import LONGEST

TEXT = (
    "人工智能是计算机科学的一个分支。\n我们在学习，他们也在学习！\n\nPeople are here.\n這個軟體的預設編碼。\n"
)


class Letters:
    """One token a letter, `ab` joined, and 等 in its three bytes."""

    surfaces = (b"", b"a", b"b", b"ab", "的".encode(), *(bytes([byte]) for byte in "等".encode()), b" ")
    size = len(surfaces)
    sentencepiece = None

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [
            [
                id
                for c in text.replace("ab", "A")
                for id in {"a": [1], "b": [2], "A": [3], "的": [4], "等": [5, 6, 7]}[c]
            ]
            for text in texts
        ]

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.surface, ids)).decode()

    def surface(self, id: int) -> bytes:
        return self.surfaces[id]


def tally_of(vocabulary: MeasuredVocabulary, line: str) -> TextTally:
    tally = TextTally([np.zeros(vocabulary.size, np.int64)])
    for part in count_chunk([Encoder(vocabulary.tokenizer)], Chunk(0, [line], 1)):
        tally.add(part)
    return tally


def test_figures_by_hand() -> None:
    letters = MeasuredVocabulary("letters", "", Letters())
    found = figures([letters], tally_of(letters, "的的ab等a"), ModelCost())[
        0
    ]  # 的 的 ab E7 AD 89 a: 6 characters
    assert found.tokens == 7
    assert found.characters_per_token == 6 / 7
    assert found.bytes_per_token == 12 / 7
    assert found.byte_share == 3 / 7
    assert (found.used, found.used_share) == (6, 6 / 9)
    assert found.context_characters == int(2048 * 6 / 7)
    assert found.entropy == pytest.approx(-(2 / 7 * math.log2(2 / 7) + 5 / 7 * math.log2(1 / 7)))
    power = (2 / 7) ** 2.5 + 5 * (1 / 7) ** 2.5
    assert found.renyi_efficiency == pytest.approx(math.log2(power) / -1.5 / math.log2(9))
    assert found.single_coverage == 2 / 3  # 的 twice; 等 has no token of its own
    assert found.lengths == {"part": 3 / 7, "1": 3 / 7, "2": 1 / 7, "3": 0, "4": 0, "5-8": 0, "9+": 0}
    assert (found.tokens_against_base, found.training_cost, found.serving_cost) == (1, 1, 1)
    assert (letters.covered("gb2312-1"), letters.lengths[0]) == ((1, 3755), 0)


def test_costs_of_llama_7b() -> None:
    shape = ModelCost(hidden=4096, layers=32)
    assert shape.body + 2 * 32_000 * 4096 == 6_738_149_376  # 6,738,415,616 less the norms' 266,240
    assert ModelCost(5120, 40).body + 2 * 32_000 * 5120 == 13_015_449_600  # 13,015,864,320 less 414,720
    assert shape.training(10, 50_000) / shape.training(20, 32_000) == pytest.approx(0.505, abs=0.003)
    assert shape.serving(1000, 32_000) < shape.serving(2000, 32_000) / 2


def test_one_token_alone_has_no_entropy() -> None:
    letters = MeasuredVocabulary("letters", "", Letters())
    found = figures([letters], tally_of(letters, "的"), ModelCost())[0]
    assert (found.entropy, found.renyi_efficiency) == (0, 0)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("我们的国家有很长的历史。", "simplified"),
        ("我們的國家有很長的歷史。", "traditional"),
        ("People are here, and (as she said) they stay; 3 of them left.", "english"),
        ("for (int i = 0; i < n; i++) {", "code"),
        ("    return tokens[place]", "code"),
        ('  "vocab_size": 4096, // 词表大小', "code"),
        ("调用 print() 函数，它把结果写到屏幕上。", "simplified"),
        ("2025-11-03 18:00", "other"),
        ("Привет", "other"),
    ],
)
def test_kinds(line: str, kind: str) -> None:
    assert kinds_of([line]) == [kind]


def test_lines_that_tell_nothing_go_with_the_others() -> None:
    assert kinds_of(["他在山上", "這個軟體", "天地人"]) == ["traditional"] * 3
    code = ["def f(x):", "    x = 1", "    a plain comment", "    return g(x)", "if x == 2:"]
    assert kinds_of(code) == ["code"] * 5
    assert (
        kinds_of(["A word of code, x = 1;", "and prose around it", "that stays prose"])[1:] == ["english"] * 2
    )


def test_the_shipped_samples_are_told_apart() -> None:
    wanted = {"zh": "simplified", "zhtw": "traditional", "zhhk": "traditional", "mixed": "simplified", "en": "english", "code": "code"}  # fmt: skip
    for path in sorted(shipped("corpora", "sample").glob("*.txt")):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = kinds_of(lines)
        share = found.count(wanted[path.name.split("_")[0]]) / len(found)  # type: ignore[arg-type]
        assert share > (0.8 if path.name.startswith("code") else 0.95), path.name


def test_words() -> None:
    assert words_in("我来到北京清华大学。") == 4
    assert words_in("People are here, 3 of them.") == 6


def sample_chunks() -> list[Chunk]:
    lines = [
        line
        for path in sorted(shipped("corpora", "sample").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [Chunk(place % 2, lines[place : place + 40], 1) for place in range(0, len(lines), 40)]


def test_processes_count_what_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = [Encoder(SentencePieceTokenizer(model)) for model in (base(), merged("safe"))]

    def told(parts: list[LineKindTally]) -> list[object]:
        sparse = [[*part.codes, *(values for pair in part.tokens for values in pair)] for part in parts]
        return [
            (part.kind, part.lines, part.bytes, part.words, [values.tolist() for values in held])
            for part, held in zip(parts, sparse, strict=True)
        ]

    with counting(encoders, 0) as alone:
        one = [(text, told(parts)) for text, parts in alone(sample_chunks())]
    monkeypatch.setattr(count, "SINGLE_PROCESS", -1)
    monkeypatch.setattr(count.os, "sched_getaffinity", lambda _: {0, 1})
    with counting(encoders, 0) as spread:
        assert [(text, told(parts)) for text, parts in spread(sample_chunks())] == one


def test_counts_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    names = {"base": base(), "safe": merged("safe")}
    vocabularies = [
        MeasuredVocabulary(name, "", SentencePieceTokenizer(model)) for name, model in names.items()
    ]
    found = report(vocabularies, [LabelledText("a", [path])])
    lines = [line for line in TEXT.splitlines() if line]
    for place, model in enumerate(names.values()):
        ids = [id for cut in model.processor.encode(lines) for id in cut]
        assert found.texts[0].figures[place].tokens == len(ids)
        assert found.used[place].tolist() == np.bincount(ids, minlength=len(model.pieces)).tolist()
    assert [(row.name, row.lines) for row in found.languages] == [
        ("simplified", 2),
        ("traditional", 1),
        ("english", 1),
    ]
    assert found.texts[0].language == "simplified"
    assert sum(row.characters for row in found.languages) == found.texts[0].characters == sum(map(len, lines))
    assert (found.extended(0), found.extended(1)) == (None, 0)


def test_long_lines_are_cut_and_half_pairs_replaced(tmp_path: Path) -> None:
    assert all(len(line.encode()) <= LONGEST for c in chunks(0, ["很长。" * 400_000], 1) for line in c.lines)
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "好的\\ud83d，开始"}\n' + json.dumps({"text": "长" * 10_000}) + "\n", encoding="utf-8"
    )
    found = report(
        [MeasuredVocabulary("base", "", SentencePieceTokenizer(base()))], [LabelledText("a", [path])]
    )
    assert found.texts[0].characters == 6 + 10_000
    json.dumps(found.to_dict(), ensure_ascii=False).encode()


def test_a_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"第{n}行文字，讲的是{n * 7}件事。\n" for n in range(3000)), encoding="utf-8")
    one = [MeasuredVocabulary("base", "", SentencePieceTokenizer(base()))]
    runs = [
        report(one, [LabelledText("a", [path])], TextSource(sample=20_000, seed=seed)).texts[0]
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert 19_900 < runs[0].bytes <= 20_000


def test_texts_without_chinese_or_text(tmp_path: Path) -> None:
    one = [MeasuredVocabulary("base", "", SentencePieceTokenizer(base()))]
    english, blank = tmp_path / "en.txt", tmp_path / "blank.txt"
    english.write_text("No Chinese here.\n", encoding="utf-8")
    blank.write_text("\n  \n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^en: contains no Chinese"):
        report(one, [LabelledText("en", [english])])
    with pytest.raises(InputError, match=r"blank\.txt: contains no text"):
        report(one, [LabelledText("en", [english]), LabelledText("b", [blank])])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


def test_the_command(zhllama: Zhllama, tmp_path: Path, models: dict[str, Path]) -> None:
    (tmp_path / "新闻.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "more.jsonl").write_text('{"body": "人工智能是新的技术。"}\n', encoding="utf-8")
    arguments = [f"LLaMA={models['base']}", models["safe"], "--text", "新闻.txt", "--out", "out"]
    done = zhllama("report", *arguments, "--sentence", "学习，学习，再学习！")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Written to out: report.html, report.md, report.json"
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert found["schema"] == "zhllama.report/1"
    assert [t["label"] for t in found["tokenizers"]] == ["LLaMA", "safe"]
    assert found["tokenizers"][1]["extends"] == "LLaMA"
    assert [row["name"] for row in found["texts"]] == ["新闻"]
    safe = found["texts"][0]["tokenizers"]["safe"]
    assert safe["tokens_against_base"] < 0.9 and safe["byte_share"] < 0.1
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "学习，学习，再学习！" in page and "{{data}}" not in page
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest["inputs"]) == 3 and set(manifest["outputs"]) >= {
        "report.html",
        "report.json",
        "report.md",
    }
    told = zhllama(
        "report", models["base"], "--text", "j=more.jsonl", "--field", "body", "--out", "j", "--json"
    )
    assert json.loads(told.stdout)["texts"][0]["characters"] == 10


def test_every_key_is_documented(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    found = report(
        [MeasuredVocabulary("base", "", SentencePieceTokenizer(base()))], [LabelledText("a", [path])]
    ).to_dict()
    told = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    row = found["texts"][0]
    for held in (found, found["settings"], found["tokenizers"][0], row, row["tokenizers"]["base"]):
        for key in held:
            assert f"`{key}`" in told, key


def test_the_tables_of_a_readme(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("学习。\n", encoding="utf-8")
    found = report(
        [MeasuredVocabulary("a|b *c*\n<d>", "", SentencePieceTokenizer(base()))],
        [LabelledText("x_y", [path])],
    )
    lines = tables(found.to_dict()).splitlines()
    assert lines[4:7] == [
        "| tokenizer | size | Simplified |",
        "| --- | ---: | ---: |",
        r"| a\|b \*c\* \<d\> | 32,000 | 0.750 |",
    ]
    assert r"| x\_y | 3 | 0.750 |" in lines


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.model"], "nothing.model: no such file. Check the path, or give a hub name with its owner."),
        (["a.bin"], "a.bin: is not a tokenizer of a known format. Name "),
        (["x=b.model", "x=b.model"], "TOKENIZER x=b.model: has the label 'x', which b.model has already. Give them labels"),
        (["b.model", "b.model"], "TOKENIZER b.model: has the label 'b', which b.model has already."),
        (["=b.model"], "TOKENIZER =b.model: has an empty label or path."),
        (["b.model", "--text", "en.txt"], "en: contains no Chinese."),
        (["b.model", "--text", "empty.txt"], "empty.txt: is empty."),
        (["b.model", "--text", "blank.txt"], "blank.txt: contains no text."),
        (["b.model", "--text", "latin.txt"], "latin.txt:1: is not UTF-8."),
        (["b.model", "--text", "none.txt"], "none.txt: no such file."),
        (["b.model", "--text", "en.txt", "--text", "en.txt"], "--text en.txt: has the label 'en'"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_leave_nothing(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    from zhllama.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.model").write_bytes(base().content)
    contents = {"a.bin": b"\x80\x02PK", "en.txt": b"No Chinese.\n", "empty.txt": b"", "blank.txt": b"\n \n"}
    for name, content in (contents | {"latin.txt": b"caf\xe9\n"}).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as left:
        main(["report", *arguments, "--out", "out"])
    said = capfd.readouterr().err
    assert left.value.code == 1 and said.startswith(f"zhllama: {told}") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_classes_of_characters_are_counted_as_by_patterns() -> None:
    from zhllama.characters import han
    from zhllama.efficiency.line_kinds import _class_counts

    lines = ["这是简体，后台里", "這是繁體，後臺裡", "", "plain text", "𠀀々〇😀", "\ud800中", "后台"]
    counts = _class_counts(lines)
    assert [n for n, _, _ in counts] == [len(han.findall(line)) for line in lines]
    assert [(simplified, traditional) for _, simplified, traditional in counts] == [
        (2, 0), (0, 4), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)
    ]  # fmt: skip
    assert _class_counts([]) == []
