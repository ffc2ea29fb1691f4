"""chat: whole characters only, what no longer fits is forgotten, Ctrl-C stops the answer and not the program."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chat_toys import BY_BYTES, BY_PIECES, write_parrot
from tests.conftest import Zhllama
from tests.model_toys import base_vocabulary, line, write_model, write_run, write_tokenizer
from zhllama.conversation.records import Turn
from zhllama.conversation.template import template_for
from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.extras import install_command
from zhllama.inference.chat import Chat, Sampling
from zhllama.inference.token_stream import StopStrings, TokenStream, stream_from_thread


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("t")
    return PreTrainedTokenizerFast.from_pretrained(write_tokenizer(base_vocabulary(), folder))


@pytest.fixture(scope="module")
def parrots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parrots")
    return {
        name: write_parrot(folder / name, said) for name, said in (("bytes", BY_BYTES), ("pieces", BY_PIECES))
    }


# ---- pieces


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.sampled_from("中海题大学的 the river\n    def，。😀👨‍👩‍👧é"), max_size=60))
def test_pieces_are_the_text_and_never_half_a_character(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    pieces = TokenStream(tokenizer)
    said = [pieces.put(id) for id in ids]
    assert pieces.end() == ""
    assert "".join(said) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert "\ufffd" not in "".join(said)


def test_a_character_comes_when_its_last_byte_has(tokenizer: Any) -> None:
    pieces = TokenStream(tokenizer)
    ids = tokenizer("a海", add_special_tokens=False).input_ids
    assert [pieces.put(id) for id in ids][-3:] == ["", "", "海"]
    assert pieces.put(ids[-3]) == "" and pieces.end() == "\ufffd"


def test_pieces_of_a_byte_level_vocabulary() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    byte_level = PreTrainedTokenizerFast(tokenizer_object=inner)
    text = "你好 😀，a b\n  c"
    pieces = TokenStream(byte_level)
    said = [pieces.put(id) for id in byte_level(text).input_ids]
    assert [piece for piece in said if piece] == list(text)


def test_what_is_spoken_in_a_thread_arrives_and_errors_too() -> None:
    def work(say: Any) -> None:
        say("一")
        say("")
        raise OptionError("x", "y")

    said = stream_from_thread(work, Event())
    assert next(said) == "一"
    with pytest.raises(OptionError):
        next(said)


@pytest.mark.parametrize(
    ("strings", "pieces", "said", "found"),
    [
        (("问",), ["好", "吗问", "再"], "好吗", True),
        (("\n\n问",), ["好\n", "\n", "问题"], "好", True),
        (("\n\n问",), ["好\n", "\n", "答"], "好\n\n答", False),
        (("aab",), ["a", "a", "a", "b"], "a", True),
        (("xy", "y"), ["ax", "y"], "a", True),
        (("ab",), ["a"], "a", False),
        ((), ["a", "b"], "ab", False),
    ],
)
def test_until_a_string(strings: tuple[str, ...], pieces: list[str], said: str, found: bool) -> None:
    heard: list[str] = []
    stop = Event()
    until = StopStrings(strings, heard.append, stop)
    for piece in pieces:
        until.put(piece)
    until.end()
    assert ("".join(heard), until.matched, stop.is_set()) == (said, found, found)


# ---- the conversation


@dataclass
class Counting:
    """A speaker of one character a token; its answers are given, and what it saw is kept."""

    answers: list[list[str]]
    context: int = 40
    longest: int = 1
    seen: list[tuple[list[Turn], int]] = field(default_factory=list)

    def count(self, turns: list[Turn]) -> int:
        return sum(len(turn.text) for turn in turns)

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        self.seen.append((turns, sampling.max_tokens))
        for piece in self.answers.pop(0):
            if stop.is_set():
                return
            if piece == "!":
                raise ZhllamaError("model", "fell over")
            yield piece


def test_history_and_system_prompt_are_seen() -> None:
    speaker = Counting([["二"], ["四"]])
    talk = Chat(speaker, Sampling(max_tokens=9), "规则")
    assert list(talk.say("一", Event())) == ["二"] and list(talk.say("三", Event())) == ["四"]
    assert speaker.seen[1] == (
        [Turn("system", "规则"), Turn("user", "一"), Turn("assistant", "二"), Turn("user", "三")],
        9,
    )
    talk.reset()
    assert talk.seen() == [Turn("system", "规则")]


def test_the_oldest_exchange_is_forgotten_but_kept_for_the_file() -> None:
    speaker = Counting([["答" * 8]] * 3)
    talk = Chat(speaker, Sampling(max_tokens=100), "系统")
    for _ in range(2):
        list(talk.say("问" * 8, Event()))
    assert talk.forgotten == 0
    pieces = talk.say("问" * 8, Event())
    assert talk.forgotten == 2  # told before the first piece
    list(pieces)
    seen, room = speaker.seen[-1]
    assert [turn.role for turn in seen] == ["system", "user", "assistant", "user"]
    assert speaker.count(seen) + room == speaker.context
    assert len(talk.conversation().turns) == 7


def test_what_cannot_fit_by_its_length_is_never_counted() -> None:
    """A page sends the whole conversation each time, and whoever asks it may send any."""
    speaker = Counting([["好"]])
    turns = [Turn(role, "长" * 50) for _ in range(5_000) for role in ("user", "assistant")]
    counted: list[int] = []
    speaker.count = lambda turns: counted.append(len(turns)) or sum(len(turn.text) for turn in turns)  # type: ignore
    talk = Chat(speaker, Sampling(max_tokens=5), turns=turns)
    assert list(talk.say("问", Event())) == ["好"]
    assert talk.forgotten == 10_000 and max(counted) <= 3


def test_a_message_that_cannot_fit_is_unsaid() -> None:
    talk = Chat(Counting([["好"]]), Sampling())
    list(talk.say("问", Event()))
    with pytest.raises(InputError, match="takes 40 tokens"):
        talk.say("长" * 40, Event())
    with pytest.raises(InputError, match="has 41 characters"):
        talk.say("长" * 41, Event())
    assert len(talk.turns) == 2
    with pytest.raises(InputError):
        Chat(Counting([]), Sampling(), "系" * 50).say("问", Event())


def test_a_stopped_answer_stays_as_far_as_it_came_and_an_empty_one_is_unsaid() -> None:
    talk = Chat(Counting([["一", "二", "三"], ["四"], ["五", "!"], ["!"]]), Sampling())
    stop = Event()
    pieces = talk.say("问", stop)
    assert next(pieces) == "一"
    stop.set()
    assert list(pieces) == [] and talk.turns[-1] == Turn("assistant", "一")
    assert list(talk.say("再问", stop)) == [] and len(talk.turns) == 2
    with pytest.raises(ZhllamaError):
        list(talk.say("问", Event()))
    assert talk.turns[-1] == Turn("assistant", "五")
    with pytest.raises(ZhllamaError):
        list(talk.say("问", Event()))
    assert talk.turns[-1] == Turn("assistant", "五")


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"max_tokens": 0}])
def test_sampling_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Sampling(**wrong)


# ---- with a model


def test_the_model_sees_the_ids_of_its_template_and_stops(parrots: dict[str, Path]) -> None:
    import torch

    from zhllama.inference.transformers_chat_model import open_chat_model

    speaker = open_chat_model(parrots["pieces"])
    turns = [Turn("user", "你好")]
    template = template_for("alpaca", speaker.tokenizer)
    speaker.tokenizer.chat_template = template.jinja
    messages = [{"role": "user", "content": "你好"}]
    ids = speaker.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")[
        "input_ids"
    ]
    assert speaker.count(turns) == ids.shape[1]
    plain = speaker.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=99
    )
    answer = "".join(speaker.answer(turns, Sampling(greedy=True), Event()))
    assert answer == BY_PIECES == speaker.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
    stop = Event()
    stop.set()
    heard: list[str] = []
    assert speaker.generate(turns, Sampling(greedy=True), stop, heard.append) == ("stop", 0)
    stop = Event()
    pieces = speaker.answer(turns, Sampling(greedy=True), stop)
    first = next(pieces)
    stop.set()
    assert len(first + "".join(pieces)) < len(BY_PIECES)


def test_the_end_is_told_and_penalties_and_bias_are_openais(parrots: dict[str, Path]) -> None:
    import torch

    from zhllama.inference.transformers_chat_model import open_chat_model, penalty_processors

    speaker = open_chat_model(parrots["pieces"])
    turns = [Turn("user", "你好")]
    heard: list[str] = []
    greedy = Sampling(greedy=True)
    ended = speaker.generate(turns, greedy, Event(), heard.append)
    _, _, first, *_, last = speaker.tokenizer(f"a\n{BY_PIECES}", add_special_tokens=False).input_ids
    assert ended.reason == "stop" and "".join(heard) == BY_PIECES
    assert speaker.generate(turns, replace(greedy, max_tokens=3), Event(), heard.append) == ("length", 3)
    heard.clear()
    ended = speaker.generate("a\n", greedy, Event(), heard.append)  # a text to continue
    assert "".join(heard) == BY_PIECES and ended.reason == "stop"
    heard.clear()
    biased = replace(greedy, bias={first: -100.0, last: 100.0}, max_tokens=1)
    speaker.generate("a\n", biased, Event(), heard.append)
    assert "".join(heard) == speaker.tokenizer.decode([last])
    asked = Sampling(presence_penalty=1.0, frequency_penalty=0.5, bias={3: 2.0, 10**8: 1.0})
    (processor,) = penalty_processors(asked, 2)
    scores = processor(torch.tensor([[4, 4, 1, 2, 1]]), torch.zeros(1, 6))
    assert scores.tolist() == [[0, -2, -1.5, 2, 0, 0]]


def test_a_stored_template_is_taken_and_its_end_ends(tmp_path: Path) -> None:
    """The end of turn is not the model's end of text: it is known from the template alone."""
    from zhllama.inference.transformers_chat_model import end_ids_of_answer, find_template, open_chat_model

    stored = "{% for m in messages %}{{ m['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ '\n' }}{% endif %}"
    speaker = open_chat_model(write_parrot(tmp_path / "m", BY_PIECES, template=stored))
    assert speaker.template.jinja == stored and speaker.template.stop == "</s>" and not speaker.assumed
    assert end_ids_of_answer(7, speaker.tokenizer, speaker.template) == [2, 7]
    assert "".join(speaker.answer([Turn("user", "你")], Sampling(greedy=True), Event())) == BY_PIECES
    assert find_template(speaker.tokenizer, "alpaca").name == "alpaca"


def test_one_question(parrots: dict[str, Path], tmp_path: Path) -> None:
    told = line(tmp_path, "chat", parrots["bytes"], "--prompt", "你好", "--seed", "1")
    assert told.code == 0 and told.out == f"{BY_BYTES}\n"
    assert "has no chat template" in told.err and "alpaca" in told.err and told.err.count("\n") == 1
    told = line(tmp_path, "chat", parrots["pieces"], "--template", "alpaca", "-p", "你好", "--json")
    assert json.loads(told.out)["answer"] == BY_PIECES and told.err == ""


def test_a_run_folder_is_opened(parrots: dict[str, Path], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", parrots["pieces"])
    assert line(tmp_path, "chat", run, "-p", "你好", "--greedy").out == f"{BY_PIECES}\n"


def test_a_script_of_turns(parrots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "你好\n\n/system 你是老师\n再说一遍\n/save talk.jsonl\n/save talk.jsonl\n/nothing\n/reset\n/system\n/quit\n不会说的\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(script))
    told = line(tmp_path, "chat", parrots["pieces"])
    assert told.code == 0 and told.out == f"{BY_PIECES}\n{BY_PIECES}\n"
    assert "no command /nothing" in told.err and "system prompt: 你是老师" in told.err
    saved = json.loads((tmp_path / "talk.jsonl").read_text(encoding="utf-8"))
    assert [turn["value"] for turn in saved["conversations"]] == [
        "你是老师",
        "你好",
        BY_PIECES,
        "再说一遍",
        BY_PIECES,
    ]


def test_one_line_errors(parrots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    (tmp_path / "there.txt").write_text("mine", encoding="utf-8")
    model = parrots["pieces"]
    for words, told in (
        ((tmp_path / "nothing", "-p", "好"), "is not a model folder"),
        ((model, "-p", " "), "--prompt: is empty"),
        ((model, "--json"), "--json: needs --prompt"),
        ((model, "-p", "好", "--top-p", "2"), "--top-p: is not above 0"),
        ((model, "-p", "好", "--template", "chatml"), "needs the special token <|im_start|>"),
        ((model, "-p", "好", "--template", "none"), "'none' is not known"),
        ((model, "-p", "好" * 600), "this message: takes"),
        (("none.gguf", "-p", "好"), "none.gguf: no such file"),
    ):
        result = line(tmp_path, "chat", *words)
        last = result.err.splitlines()[-1]
        assert result.code == 1 and told in last and last.startswith("zhllama: "), result.err
    monkeypatch.setattr("sys.stdin", io.StringIO("/save there.txt"))
    assert "there.txt: exists already" in line(tmp_path, "chat", model).err
    assert (tmp_path / "there.txt").read_text(encoding="utf-8") == "mine"


def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    """In a real terminal: an endless answer is stopped, the next line is read, and /quit leaves with 0."""
    model = write_parrot(tmp_path / "m", BY_PIECES, endless=True, max_position_embeddings=1 << 20)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "zhllama", "chat", str(model), "--greedy", "--max-tokens", "1000000"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        read_until(ours, "> ")
        os.write(ours, "你好\n".encode())
        read_until(ours, BY_PIECES * 2)
        process.send_signal(signal.SIGINT)
        read_until(ours, "> ")
        # CPython's readline leaves a signal lying that comes between the prompt and its wait for a key; no hand is so quick.
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)  # at the prompt it only asks for a new line
        read_until(ours, "> ")
        os.write(ours, b"/quit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, wanted: str, seconds: float = 120) -> None:
    said, deadline = b"", time.monotonic() + seconds
    while wanted.encode() not in said:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, said.decode(errors="replace")[-500:]
        said += os.read(terminal, 65536)


def test_without_xllamacpp_a_gguf_is_one_line(zhllama: Zhllama, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "xllamacpp.py").write_text("raise ImportError", encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    told = zhllama("chat", "m.gguf", "-p", "好", env={"PYTHONPATH": path})
    assert told.returncode == 1
    assert told.stderr == f"zhllama: m.gguf: needs the package xllamacpp. {install_command('llamacpp')}\n"


@pytest.mark.slow
def test_a_gguf_answers_by_llama_cpp(tmp_path: Path) -> None:
    from tests.test_generation_servers import gguf

    pytest.importorskip("xllamacpp")
    asked = ("chat", gguf(), "-p", "Say hello.", "--greedy", "--max-tokens", "12", "--json")
    first, second = (json.loads(line(tmp_path, *asked).out)["answer"] for _ in range(2))
    assert first == second and first.strip()


WRONG_SETTINGS = (
    {"output_hidden_states": "1"}, {"num_beams": "3"}, {"repetition_penalty": "x"}, {"min_new_tokens": "3"}, {"top_p": 7},
    {"temperature": "hot"}, {"temperature": -1}, {"top_k": -5}, {"bad_words_ids": [1]}, {"forced_eos_token_id": 99_999},
)  # fmt: skip
GOOD_SETTINGS = (
    {"temperature": 0},
    {"top_k": 0},
    {"max_length": 9},
    {"stop_strings": ["a"]},
    {"num_beams": 2},
    {},
)


def test_generation_settings_are_tried_when_a_model_is_opened(tmp_path: Path) -> None:
    """transformers checks few of them, and failed at the first answer."""
    from zhllama.inference.transformers_chat_model import open_chat_model

    base = write_model(tmp_path / "base")
    for chosen in (*WRONG_SETTINGS, *GOOD_SETTINGS):
        (base / "generation_config.json").write_text(json.dumps(chosen), encoding="utf-8")
        if chosen in GOOD_SETTINGS:
            opened = open_chat_model(base)
            opened.generate([Turn("user", "a")], replace(opened.own, max_tokens=2), Event(), lambda _: None)
        else:
            with pytest.raises(InputError, match=r"base: has a generation config that cannot be used"):
                open_chat_model(base)
