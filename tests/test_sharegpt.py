"""sharegpt clean and split: every drop has its reason, no turn is lost, every part fits."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model_toys import base_vocabulary, line, write_tokenizer
from zhllama.conversation.clean import ConversationCleaner, ConversationCleaning, Rejected
from zhllama.conversation.markdown import is_page, to_markdown, without_buttons
from zhllama.conversation.records import Conversation, Turn
from zhllama.conversation.split import split, template_length, text_length
from zhllama.conversation.template import template_for
from zhllama.vocab.any_tokenizer import SentencePieceTokenizer

QUESTION, ANSWER = "请介绍一下长江的长度和流域。", "长江全长约六千三百公里，流域面积约一百八十万平方公里。"
PAGE = (
    '<div class="markdown prose w-full break-words light"><p>可以这样写：</p><pre><div class="bg-black rounded-md">'
    '<div class="flex items-center"><span class="">python</span><button class="flex ml-auto gap-2"><svg><path d="M16">'
    '</path></svg>Copy code</button></div><div class="p-4"><code class="hljs language-python">'
    '<span class="hljs-keyword">def</span> f(a_b):\n    <span>return</span> a_b * 2 &lt; 3\n</code></div></div></pre>'
    "<ol><li>先定义</li><li><strong>再调用</strong></li></ol></div>"
)
MARKDOWN = "可以这样写：\n\n```python\ndef f(a_b):\n    return a_b * 2 < 3\n```\n\n1. 先定义\n2. **再调用**"


def row(*texts: str, id: str = "", first: str = "human") -> dict[str, Any]:
    """A ShareGPT row whose turns go by turns."""
    names = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    said = [{"from": names[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"id": id, "conversations": said} if id else {"conversations": said}


def one(given: Any, **how: Any) -> Conversation | Rejected:
    return ConversationCleaner(ConversationCleaning(near=False, **how))(given, "f:1")


def reason(given: Any, **how: Any) -> str | None:
    made = one(given, **how)
    return made.reason if isinstance(made, Rejected) else None


def texts(given: Any, **how: Any) -> list[str]:
    made = one(given, **how)
    assert isinstance(made, Conversation), made
    return [turn.text for turn in made.turns]


def test_a_rendered_page_becomes_the_markdown_it_came_from() -> None:
    assert texts(row(QUESTION, PAGE)) == [QUESTION, MARKDOWN]
    wrapped = f'<div class="min-h-[20px] whitespace-pre-wrap">{QUESTION}\n第二行</div>'
    assert texts(row(wrapped, ANSWER))[0] == f"{QUESTION}\n第二行"


@pytest.mark.parametrize(
    "kept",
    [
        "怎样把 <b>粗体</b> 写进网页？用 <p>…</p> 包起来。",
        "```html\n<div>你好</div>\n```\n这就是一个网页元素。",
        "<html><body><p>整个网页就是这样</p></body></html>",
        "vector<int> 和 a < b 都要保留，</",
        "HTTP/1.1 与 3 / 4 不是按钮。",
    ],
)
def test_what_only_speaks_of_html_stays(kept: str) -> None:
    assert not is_page(kept) and texts(row(QUESTION, kept))[1] == kept


def test_a_users_html_stays_as_typed() -> None:
    typed = '<div class="box"><p>为什么这一段不居中？</p></div>'
    assert texts(row(typed, ANSWER))[0] == typed


def test_buttons_of_the_page() -> None:
    assert without_buttons("看：\n\n```pythonCopy code\nprint(1)\n```") == "看：\n\n```python\nprint(1)\n```"
    assert without_buttons("pythonCopy code\nprint(1)") == "python\nprint(1)"
    assert without_buttons("2 / 2\n好的") == "好的"
    assert without_buttons("Copy code is a button") == "Copy code is a button"


def test_half_characters_and_unseen_ones_go() -> None:
    assert texts(row("\u200b" + QUESTION + "\ud83d", ANSWER + "\ufeff")) == [QUESTION, ANSWER]


def test_a_leading_answer_and_a_trailing_question_go_and_the_rest_stays() -> None:
    assert texts(row("你好！", QUESTION, ANSWER, "谢谢", first="gpt")) == [QUESTION, ANSWER]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"text": "no turns"}, "no conversation"),
        ([QUESTION], "no conversation"),
        ({"conversations": [{"from": "human"}]}, "no conversation"),
        ({"conversations": [{"from": "robot", "value": "1"}]}, "unknown role"),
        (row(QUESTION), "no answer"),
        (row(), "no answer"),
        (row(QUESTION, "\u200b ", "然后呢？", ANSWER), "empty turn"),
        ({"conversations": [*row(QUESTION, ANSWER)["conversations"], *row(ANSWER, first="gpt")["conversations"]]}, "roles out of order"),
        (row("好？", "好"), "too short"),
        (row(QUESTION, "锟斤拷锟斤拷锟斤拷"), "broken characters"),
        (row("¿Cuál es la capital de España, por favor?", "La capital de España es Madrid."), None),
        (row("日本の首都はどこですか。", "日本の首都は東京です。おおきなまちです。"), "Japanese"),
        (row("대한민국의 수도는 어디입니까?", "대한민국의 수도는 서울입니다."), "Korean"),
        (row("3.14159 * 2.71828 = ?", "8.5397342226735671"), "mostly symbols and digits"),
    ],
)  # fmt: skip
def test_reasons(given: Any, why: str | None) -> None:
    assert reason(given) == why


def test_language_is_told_outside_of_code() -> None:
    code = "```c\n" + 'printf("hello, world, this is a long line of code");\n' * 9 + "```"
    assert reason(row("用C写一个程序。", f"好的：\n{code}"), languages=("zh",)) is None
    assert (
        reason(
            row("用C写一个程序。", "// 打印乘法表\n" + "for (int i = 0;) print(i);" * 2), languages=("zh",)
        )
        is None
    )
    assert (
        reason(row("Tell me of the river, please.", "It is a very long river."), languages=("zh",))
        == "too little Chinese"
    )
    assert (
        reason(row("用中文介绍长江。", "It is a very long river in Asia."), languages=("zh",))
        == "too little Chinese"
    )
    assert reason(row("Bonjour", "Bonjour à vous, comment allez-vous ?"), languages=()) is None


def test_black_lists_and_machines_that_say_so() -> None:
    assert reason(row(QUESTION, ANSWER), words=(("w.txt", ("流域",)),)) == "black list"
    assert reason(row(QUESTION, ANSWER), words=(("w.txt", ("流域",)),), hits=3) is None
    said = row(QUESTION, "作为一个人工智能语言模型，我不能回答。")
    assert reason(said, drop_ai=True) == "says it is an AI" and reason(said) is None


def test_duplicates_name_the_one_that_stays() -> None:
    cleaner = ConversationCleaner(ConversationCleaning())
    first = row(QUESTION, ANSWER * 3, id="a")
    assert isinstance(cleaner(first, "f:1"), Conversation)
    assert cleaner({**first, "id": "b"}, "f:2") == Rejected("duplicate", "of a")
    assert cleaner(row(QUESTION, ANSWER * 3 + "完", id="c"), "f:3") == Rejected("near duplicate", "of a")
    assert isinstance(cleaner(row(QUESTION, "这个问题我没有查到可靠的资料。", id="d"), "f:4"), Conversation)
    assert isinstance(
        ConversationCleaner(ConversationCleaning(exact=False, near=False))({**first, "id": "b"}, "f:2"),
        Conversation,
    )


def test_hostile_nesting_is_told_and_not_a_crash() -> None:
    assert reason(row(QUESTION, "<div>" * 5000 + "好" + "</div>" * 5000)) == "HTML too deep"
    assert to_markdown("<p>一</p><script>alert(1)</script><p>二</p>") == "一\n\n二"


def test_clean_counts_and_keeps_everything(tmp_path: Path) -> None:
    rows = [
        row(QUESTION, ANSWER, id="a"),
        row("短", "短"),
        {"conversations": [{"from": "robot", "value": "\ud83d"}]},
    ]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in rows) + "{broken\n", encoding="utf-8"
    )
    told = line(tmp_path, "sharegpt", "clean", "in.jsonl", "--out", "out", "--json")
    assert told.code == 0, told.err
    figures = json.loads(told.out)
    assert (figures["rows"], figures["kept"], figures["rejected"]) == (4, 1, 3)
    assert figures["reasons"] == {"too short": 1, "unknown role": 1, "not JSON": 1}
    kept = [json.loads(text) for text in (tmp_path / "out" / "conversations.jsonl").read_text().splitlines()]
    assert kept == [rows[0]]
    out = [json.loads(text) for text in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(r["reason"], r["where"], r["row"]) for r in out] == [
        ("too short", "in.jsonl:2", rows[1]),
        ("unknown role", "in.jsonl:3", rows[2]),
        ("not JSON", "in.jsonl:4", None),
    ]


def test_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "list.json").write_text('[{"conversations": []}, {', encoding="utf-8")
    (tmp_path / "ok.jsonl").write_text(json.dumps(row(QUESTION, ANSWER)) + "\n", encoding="utf-8")
    write_tokenizer(base_vocabulary(), tmp_path / "t")
    for command, told in (
        (["clean", "empty.jsonl"], "empty.jsonl: is empty"),
        (["clean", "none.jsonl"], "none.jsonl: no such file"),
        (["clean", "list.json"], "list.json:1: is not JSON"),
        (["split", "ok.jsonl", "-t", "none"], "none: "),
        (["split", "ok.jsonl", "-t", "t", "--template", "foo"], "--template: 'foo' is not known"),
        (["split", "ok.jsonl", "-t", "t", "--template", "own"], "template own: is not there"),
    ):
        result = line(tmp_path, "sharegpt", *command, "--out", "out")
        assert result.code == 1 and told in result.err and result.err.count("\n") == 1, result.err
        assert not (tmp_path / "out").exists()


# ---- split

letters = st.text(st.sampled_from("中海题大学the quick river。，\n😀"), min_size=1, max_size=60)


def conversation_of(system: str, said: list[str], odd: int) -> Conversation:
    turns = [Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(said[: len(said) - odd])]
    return Conversation((*([Turn("system", system)] if system else []), *turns), "f:1", "id")


conversations = st.builds(
    conversation_of,
    st.one_of(st.just(""), letters),
    st.lists(letters, min_size=2, max_size=12),
    st.integers(0, 1),
)


def tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(write_tokenizer(base_vocabulary(), folder))


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Both ways of counting: texts alone, and under a template."""
    opened = tokenizer(tmp_path_factory.mktemp("t"))
    return [
        text_length(SentencePieceTokenizer(base_vocabulary())),
        template_length(opened, template_for("vicuna", opened)),
    ]


@settings(deadline=None, max_examples=150)
@given(conversation=conversations, most=st.integers(8, 300), templated=st.booleans())
def test_parts_fit_and_are_the_conversation(
    lengths: list[Any], conversation: Conversation, most: int, templated: bool
) -> None:
    length = lengths[templated]
    parts = split(conversation, length, most)
    system = [turn for turn in conversation.turns if turn.role == "system"]
    said = conversation.turns[len(system) :]
    if parts is None:
        shortest = min((len(turn.text) for turn in said), default=0)
        assert shortest == 0 or any(
            length([*system, *[Turn(t.role, t.text[:1]) for t in pair]]) > most
            for pair in (said[n : n + 2] for n in range(0, len(said), 2))
        )
        return
    assert [(part.number, part.of) for part in parts] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    joined = []
    for part in parts:
        turns = part.conversation.turns
        assert length(turns) <= most and part.conversation.id == "id"
        assert list(turns[: len(system)]) == system
        joined += [(turn, part.cut) for turn in turns[len(system) :]]
    assert len(joined) == len(said)
    for (turn, cut), whole in zip(joined, said, strict=True):
        assert turn.role == whole.role and turn.text
        assert turn.text == whole.text if not cut else whole.text.startswith(turn.text)
    wholes = iter(said)
    for part in parts:
        pairs = [(turn, next(wholes)) for turn in part.conversation.turns[len(system) :]]
        assert part.cut == any(turn.text != whole.text for turn, whole in pairs)


def test_the_last_pair_is_not_lost_and_parts_are_as_few_as_may_be(lengths: list[Any]) -> None:
    pairs = [(f"第{n}个问题？", "回答" * 5) for n in range(9)]
    turns = tuple(
        Turn(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)
    )
    length = lengths[0]
    most = length(turns[:6])
    parts = split(Conversation(turns, "f:1"), length, most)
    assert parts is not None and [len(part.conversation.turns) for part in parts] == [6, 6, 6]
    assert parts[-1].conversation.turns[-1] == turns[-1]


def test_a_long_question_leaves_the_answer_room_and_a_short_answer_leaves_it_to_the_question(
    lengths: list[Any],
) -> None:
    length = lengths[0]
    long = split(Conversation((Turn("user", "问" * 400), Turn("assistant", "答" * 400)), "f:1"), length, 200)
    assert long is not None and long[0].cut
    asked, told = (length([turn]) for turn in long[0].conversation.turns)
    assert 90 <= asked <= 110 and 90 <= told <= 110
    short = split(Conversation((Turn("user", "问" * 400), Turn("assistant", "好。")), "f:1"), length, 200)
    assert short is not None and short[0].conversation.turns[1].text == "好。"
    assert length(short[0].conversation.turns) > 190


def test_split_command(tmp_path: Path) -> None:
    write_tokenizer(base_vocabulary(), tmp_path / "t")
    rows = [
        row(*[QUESTION, ANSWER] * 6, id="long"),
        row(QUESTION, ANSWER * 20, id="cut"),
        row(QUESTION, ANSWER),
    ]
    rows.append({"conversations": [{"from": "tool", "value": "x"}]})
    rows.append({"id": "s", "system": "规则" * 500, **row(QUESTION, ANSWER)})
    (tmp_path / "in.json").write_text(json.dumps(rows), encoding="utf-8")
    told = line(tmp_path, "sharegpt", "split", "in.json", "-t", "t", "--template", "alpaca", "--max-length", "600", "--out", "out", "--json")  # fmt: skip
    assert told.code == 0, told.err
    figures = json.loads(told.out)
    assert (figures["rows"], figures["kept"], figures["rejected"]) == (5, 3, 2)
    assert figures["reasons"] == {"bad row": 1, "system prompt too long": 1}
    assert figures["long"] == 1 and figures["cut"] == 1
    made = [json.loads(text) for text in (tmp_path / "out" / "conversations.jsonl").read_text().splitlines()]
    assert figures["parts"] == len(made)
    long = [m for m in made if m.get("id") == "long"]
    assert [(m["part"], m["parts"]) for m in long] == [(n, len(long)) for n in range(1, len(long) + 1)]
    assert [turn for m in long for turn in m["conversations"]] == rows[0]["conversations"]
    assert [m.get("cut") for m in made if m.get("id") == "cut"] == [True]
    again = line(tmp_path, "sharegpt", "clean", "out", "--out", "again", "--no-exact", "--no-near", "--json")
    assert again.code == 0 and json.loads(again.out)["kept"] == len(made)


def test_real_conversations(data: Path, tmp_path: Path) -> None:
    """Every row comes out somewhere; what is cleaned is cleaned again to itself."""
    path = data / "instructions" / "chat_oasst_zh_sharegpt.jsonl.xz"
    told = line(tmp_path, "sharegpt", "clean", path, "--out", "a", "--keep", "zh", "--json")
    figures = json.loads(told.out)
    assert figures["rows"] == 689 == figures["kept"] + figures["rejected"] and figures["kept"] > 600
    line(tmp_path, "sharegpt", "clean", "a", "--out", "b", "--keep", "zh")
    assert (tmp_path / "a" / "conversations.jsonl").read_bytes() == (
        tmp_path / "b" / "conversations.jsonl"
    ).read_bytes()
