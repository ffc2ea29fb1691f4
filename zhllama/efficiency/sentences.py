"""The sentences that the page shows cut: ours, the user's, and some drawn from the texts."""

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
A_TEXT, IN_ALL = 3, 36  # how many are drawn
SHORT, LONG = 12, 90  # characters

_clause = re.compile(r"[^。！？!?]+(?:[。！？!?]+[”’」』）)]*|$)")
_half = re.compile("[\ud800-\udfff]")


class Drawn:
    """A few sentences of each text, each line with the same chance, picked while it streams by."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._held: dict[str, list[str]] = {}

    def watched(self, label: str, lines: Iterable[str]) -> Iterator[str]:
        """The same lines; A_TEXT of them are kept for `label`."""
        held = self._held.setdefault(label, [])
        for number, line in enumerate(lines):
            place = number if number < A_TEXT else int(self._random.random() * (number + 1))
            if place < len(held):
                held[place] = line[:5000]
            elif place < A_TEXT:
                held.append(line[:5000])
            yield line

    def sentences(self) -> list[tuple[str, str]]:
        """(label, sentence) of all texts, at most IN_ALL."""
        found = [(label, _sentence(line)) for label, lines in self._held.items() for line in lines]
        return list(dict.fromkeys(pair for pair in found if pair[1]))[:IN_ALL]


def _sentence(line: str) -> str:
    """The first sentence of a line that is neither short nor long, or as much of the line as fits."""
    clauses = [clause.strip() for clause in _clause.findall(_half.sub("\ufffd", line))]
    fitting = [clause for clause in clauses if SHORT <= len(clause) <= LONG]
    best = next((clause for clause in fitting if han.search(clause)), fitting[0] if fitting else line.strip())
    return _half.sub("\ufffd", best[:LONG])


def cut(tokenizer: AnyTokenizer, text: str) -> list[tuple[int, bytes]]:
    """The ids of a text and the bytes that each stands for."""
    return [(id, tokenizer.surface(id)) for id in tokenizer.encode([text])[0]]
