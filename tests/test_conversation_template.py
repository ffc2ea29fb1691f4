"""Templates: the ids that are trained are those that transformers makes of the conversation, and of each prompt alone."""

import hashlib
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.model_toys import base_vocabulary, larger_vocabulary, write_tokenizer
from zhllama.conversation.encode_conversation import ConversationEncoder, Encoded
from zhllama.conversation.prepare_tokenizer import prepare_tokenizer
from zhllama.conversation.read_conversations import accepted_rows, read_conversations, training_fault
from zhllama.conversation.records import Conversation, Turn
from zhllama.conversation.template import NAMES, template_for
from zhllama.errors import InputError, OptionError
from zhllama.model.load import load_transformers_tokenizer
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import load_any_tokenizer as load_vocabulary
from zhllama.vocab.merge import chinese_llama
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

SHIPPED = [name for name in NAMES if name != "own"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(folder: Path, split: str) -> Path:
    """A byte-level vocabulary with GPT-2's or LLaMA-3's first split, pieces of line ends among it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    pattern = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split == "gpt-2")
    inner.pre_tokenizer = bytes_of if split == "gpt-2" else pre_tokenizers.Sequence([pattern, bytes_of])  # type: ignore[assignment]
    inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    names = ("zh_essay.txt", "en_essay.txt", "code_python.txt")
    inner.train_from_iterator([shipped("corpora", "sample", n).read_text("utf-8") for n in names], trainer)
    folder.mkdir(parents=True)
    inner.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokenizers of every make: SentencePiece with a twin, with ties and so without one, byte-level of two splits."""
    place = tmp_path_factory.mktemp("tokenizers")
    tied = chinese_llama(
        base_vocabulary(), ["互相", "相互", "上海", "海上", "互", "相", "上", "海"]
    ).vocabulary
    return {
        "twin": write_tokenizer(larger_vocabulary(), place / "twin"),
        "tied": write_tokenizer(tied, place / "tied"),
        "gpt-2": byte_level(place / "gpt-2", "gpt-2"),
        "llama-3": byte_level(place / "llama-3", "llama-3"),
    }


def conversations(*texts: str) -> list[Conversation]:
    turns = [Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]
    return [Conversation(tuple(turns), "test:1")]


HARD = [
    *conversations("上海和海上有什么区别？", "“上海”是城市，\n\n  “海上”在海里。"),
    *conversations("1+1=?", "2", "再加 3 呢？", "5，\n    缩进", "end?", "... :) </b>", "😀", "𠮷\tx"),
    *conversations("两个  空格", "：冒号", "ASSISTANT:", "USER: hi"),
    Conversation((Turn("system", "你是诗人。"), *conversations("写", "春眠不觉晓")[0].turns), "test:2"),
]


def whole_and_prompts(conversation: Conversation, tokenizer: Any) -> tuple[list[int], list[list[int]]]:
    """What transformers makes of the whole, and of what stands before each answer."""
    messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    before = [
        tokenizer.apply_chat_template(messages[:n], add_generation_prompt=True, return_dict=False)
        for n, turn in enumerate(conversation.turns)
        if turn.role == "assistant"
    ]
    return ids, before


def check(conversation: Conversation, tokenizer: Any, encoder: ConversationEncoder) -> None:
    made = encoder.encode(conversation)
    ids, before = whole_and_prompts(conversation, tokenizer)
    assert made.ids == ids
    begins = [n for n in range(1, len(ids)) if made.mask[n] and not made.mask[n - 1]]
    assert [ids[:n] for n in begins] == before
    stop = tokenizer.convert_tokens_to_ids(encoder.template.stop)
    assert [ids[end - 1] for end in made.ends] == [stop] * len(before)
    assert not any(made.mask[end] for end in made.ends if end < len(ids))
    answers = [turn.text for turn in conversation.turns if turn.role == "assistant"]
    decode = load_vocabulary(tokenizer.name_or_path).decode  # SentencePieceBackend shows line ends as <0x0A>
    said = [decode(ids[n : end - 1]) for n, end in zip(begins, made.ends, strict=True)]
    assert [text.strip() for text in said] == [text.strip() for text in answers]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("kind", ["twin", "tied", "gpt-2", "llama-3"])
def test_ids_are_those_of_transformers(
    sources: dict[str, Path], tmp_path: Path, kind: str, name: str
) -> None:
    template = prepare_tokenizer(sources[kind], name, tmp_path)
    tokenizer = load_transformers_tokenizer(tmp_path)
    assert tokenizer.chat_template == template.jinja and tokenizer.eos_token == template.stop
    encoder = ConversationEncoder(tokenizer, template_for("own", tokenizer))
    assert encoder.template.stop == template.stop
    for conversation in HARD:
        encoder.prove(conversation)
        check(conversation, tokenizer, encoder)


@pytest.mark.parametrize("name", SHIPPED)
def test_on_real_conversations(sources: dict[str, Path], tmp_path: Path, data: Path, name: str) -> None:
    for kind in ("twin", "llama-3"):
        template = prepare_tokenizer(sources[kind], name, tmp_path / kind)
        tokenizer = load_transformers_tokenizer(tmp_path / kind)
        encoder = ConversationEncoder(tokenizer, template)
        for file in ("sft_alpaca_zh_carbonz0", "chat_oasst_zh_sharegpt", "sft_alpaca_en_10k"):
            rows = accepted_rows(
                read_conversations(data / "instructions" / f"{file}.jsonl.xz", training_fault), []
            )
            for conversation in islice(rows, 40):
                check(conversation, tokenizer, encoder)


def test_the_published_vocabulary_grows_to_49954(
    tmp_path: Path, llama: SentencePieceVocabulary, published_list: list[str]
) -> None:
    source = write_tokenizer(chinese_llama(llama, published_list).vocabulary, tmp_path / "published")
    template = prepare_tokenizer(source, "alpaca", tmp_path / "out")
    content = (tmp_path / "out" / "tokenizer.model").read_bytes()
    assert (
        hashlib.sha256(content).hexdigest()
        == "2d967e855b1213a439df6c8ce2791f869c84b4f3b6cfacf22b86440b8192a2f8"
    )
    tokenizer = load_transformers_tokenizer(tmp_path / "out")
    assert (len(tokenizer), tokenizer.pad_token, tokenizer.pad_token_id) == (49954, "[PAD]", 49953)
    for conversation in HARD:
        check(conversation, tokenizer, ConversationEncoder(tokenizer, template))


def test_what_is_there_already_is_not_added_again(sources: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("twin", "gpt-2"):
        prepare_tokenizer(sources[kind], "chatml", tmp_path / kind)
        prepare_tokenizer(tmp_path / kind, "chatml", tmp_path / f"{kind}-again")
        for name in ("tokenizer.json", "chat_template.jinja"):
            first, second = (tmp_path / n / name for n in (kind, f"{kind}-again"))
            assert json.loads(json.dumps(first.read_text("utf-8"))) == second.read_text("utf-8"), name
        assert load_transformers_tokenizer(tmp_path / kind).pad_token == "[PAD]"


def test_names_in_the_older_file_do_not_win(sources: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sources["gpt-2"], tmp_path / "old")
    config = json.loads((tmp_path / "old" / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = "{{ messages[0]['content'] + eos_token }}"
    named = {name: config.pop(name) for name in ("bos_token", "eos_token")}
    (tmp_path / "old" / "special_tokens_map.json").write_text(json.dumps(named), encoding="utf-8")
    (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, stop in (("alpaca", "</s>"), ("chatml", "<|im_end|>")):
        assert prepare_tokenizer(tmp_path / "old", name, tmp_path / name).stop == stop
        tokenizer = load_transformers_tokenizer(tmp_path / name)
        assert tokenizer.eos_token == stop and "messages[0]['content'] + eos" not in tokenizer.chat_template


def test_the_published_prompt(sources: dict[str, Path], tmp_path: Path) -> None:
    template = prepare_tokenizer(sources["twin"], "alpaca", tmp_path)
    tokenizer = load_transformers_tokenizer(tmp_path)
    assert template.render(tokenizer, (Turn("user", "问？\n猫"),), opened=True) == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n问？\n猫\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    ("jinja", "told"),
    [
        (None, "the tokenizer has no chat_template. Give `template` alpaca"),
        (
            "{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
            "writes no special token after an answer",
        ),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "writes no special token after an answer"),
        ("{% for m in messages %}", "fails on a conversation"),
        ("{{ raise_exception('no') }}", "fails on a conversation (no)"),
    ],
)
def test_own_templates_without_an_end(
    sources: dict[str, Path], tmp_path: Path, jinja: str | None, told: str
) -> None:
    shutil.copytree(sources["twin"], tmp_path / "tok")
    if jinja is not None:
        (tmp_path / "tok" / "chat_template.jinja").write_text(jinja, encoding="utf-8")
    with pytest.raises(InputError) as error:
        prepare_tokenizer(tmp_path / "tok", "own", tmp_path / "out")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("jinja", "told"),
    [
        (
            "{% for m in messages %}{{ m['content'][:4] + eos_token }}{% endfor %}",
            "the template changes an answer",
        ),
        ("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}A{% endif %}",
         "the template renders the text before an answer differently"),
    ],
)  # fmt: skip
def test_own_templates_that_cannot_be_taken_apart(
    sources: dict[str, Path], tmp_path: Path, jinja: str, told: str
) -> None:
    tokenizer = load_transformers_tokenizer(sources["twin"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    template = template_for("own", tokenizer)
    with pytest.raises(InputError, match=told):
        ConversationEncoder(tokenizer, type(template)("own", jinja, template.stop)).encode(HARD[0])


def test_unknown_templates_and_spelled_out_specials(sources: dict[str, Path], tmp_path: Path) -> None:
    template = prepare_tokenizer(sources["twin"], "alpaca", tmp_path)
    tokenizer = load_transformers_tokenizer(tmp_path)
    with pytest.raises(OptionError, match=r"'llama' is not known\. Give one of alpaca, vicuna"):
        template_for("llama", tokenizer)
    for token in ("</s>", "[PAD]", "<s>"):
        with pytest.raises(
            InputError, match="test:1: a turn of the assistant contains the special token"
        ) as error:
            ConversationEncoder(tokenizer, template).encode(conversations("问", f"答{token}")[0])
        assert token in str(error.value)


def test_what_a_tokenizer_joins_is_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    """GPT-2's split takes line ends and spaces together: an answer that begins with spaces, a prompt that ends in two lines."""
    template = prepare_tokenizer(sources["gpt-2"], "alpaca", tmp_path)
    tokenizer = load_transformers_tokenizer(tmp_path)
    with pytest.raises(InputError, match="test:1: the tokenizer merges an answer with the"):
        ConversationEncoder(tokenizer, template).encode(conversations("写代码", "    return 1")[0])
    raw = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    raw["model"]["vocab"]["ĊĊ"] = 900
    raw["model"]["merges"].insert(0, ["Ċ", "Ċ"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    prepare_tokenizer(tmp_path, "llama3", tmp_path / "llama3")
    tokenizer = load_transformers_tokenizer(tmp_path / "llama3")
    encoder = ConversationEncoder(tokenizer, template_for("own", tokenizer))
    with pytest.raises(InputError, match="the tokenizer splits the whole text differently from its segments"):
        encoder.prove(HARD[1])


def test_cut_at_a_turn() -> None:
    made = Encoded(list(range(10)), [n in (2, 3, 6, 7) for n in range(10)], (4, 8))
    assert made.cut(10) is made
    assert made.cut(9) == Encoded(list(range(8)), [n in (2, 3, 6, 7) for n in range(8)], (4, 8))
    assert made.cut(7) == Encoded([0, 1, 2, 3], [False, False, True, True], (4,))
    assert made.cut(3) is None
