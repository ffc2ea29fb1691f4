"""The example sentences of the report page: built-in ones, the user's, and some sampled from the texts."""

import re
from collections.abc import Iterable, Iterator
from random import Random

from zhllama.characters import han
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.audit import SENTENCE

SENTENCES = (
    SENTENCE,
    "中华人民共和国的首都是北京，常住人口两千多万。",
    "他说：“明天下午三点，老地方见，不见不散！”",
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。",
    "2025年第一季度，新能源汽车销量同比增长47.1%，达307.5万辆。",
    "臺灣的夜市裡，滷肉飯與珍珠奶茶總是最受遊客歡迎。",
    "這個軟體的預設編碼是UTF-8，請勿任意變更設定檔。",
    "我用 Python 写了一个 tokenizer，能把中文切成 subword。",
    "饕餮、貔貅、魑魅魍魉，皆为古籍中的神怪；𠮷野家的“𠮷”字也常显示不出来。",
    "今天好开心😀👍🏽，周末一起去爬山吧～",
    "The quick brown fox jumps over the lazy dog, and people hardly notice.",
    'for i, word in enumerate(words):\n    print(f"{i:>3}  {word}")  # 打印词表',
)
PER_TEXT, TOTAL = 3, 36  # numbers of sampled sentences
SHORT, LONG = 12, 90  # characters

_clause = re.compile(r"[^。！？!?]+(?:[。！？!?]+[”’」』）)]*|$)")
_surrogate = re.compile("[\ud800-\udfff]")


class SampledSentences:
    """Sentences of each text, from lines sampled uniformly while they are read."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._lines: dict[str, list[str]] = {}

    def observe(self, label: str, lines: Iterable[str]) -> Iterator[str]:
        """The same lines; PER_TEXT of them are sampled for `label`."""
        sampled = self._lines.setdefault(label, [])
        for number, line in enumerate(lines):
            index = number if number < PER_TEXT else int(self._random.random() * (number + 1))
            if index < len(sampled):
                sampled[index] = line[:5000]
            elif index < PER_TEXT:
                sampled.append(line[:5000])
            yield line

    def sentences(self) -> list[tuple[str, str]]:
        """(label, sentence) of all texts, at most TOTAL."""
        pairs = [(label, _sentence(line)) for label, lines in self._lines.items() for line in lines]
        return list(dict.fromkeys(pair for pair in pairs if pair[1]))[:TOTAL]


def _sentence(line: str) -> str:
    """The first sentence of a line that is neither short nor long, or the start of the line."""
    clauses = [clause.strip() for clause in _clause.findall(_surrogate.sub("\ufffd", line))]
    fitting = [clause for clause in clauses if SHORT <= len(clause) <= LONG]
    sentence = next(
        (clause for clause in fitting if han.search(clause)), fitting[0] if fitting else line.strip()
    )
    return _surrogate.sub("\ufffd", sentence[:LONG])


def cut(tokenizer: AnyTokenizer, text: str) -> list[tuple[int, bytes]]:
    """The ids of a text and the bytes of each."""
    return [(id, tokenizer.surface(id)) for id in tokenizer.encode([text])[0]]
