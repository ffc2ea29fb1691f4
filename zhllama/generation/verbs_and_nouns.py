"""Diversity of instructions: their first verb and noun, and their kind by keywords."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence

# Verbs that phrase a request without naming the task.
STOP_VERBS = {
    "给定",
    "给出",
    "请",
    "想",
    "是",
    "有",
    "要",
    "需要",
    "根据",
    "下列",
    "使用",
    "利用",
    "进行",
    "可以",
    "能",
    "会",
    "应该",
    "让",
    "以",
    "帮",
    "帮忙",
    "用",
    "请问",
    "按照",
    "包含",
    "包括",
    "属于",
    "没有",
    "不",
    "做",
    "作",
    "来",
    "去",
    "开始",
    "关于",
}
KINDS = {
    "translation": r"翻译|译成|译为|英译|汉译",
    "code": r"代码|编程|函数|脚本|正则|python|sql|java|html|算法|命令",
    "mathematics": r"计算|求出|方程|面积|周长|概率|百分|多少|几何|利率",
    "classification": r"判断|分类|归类|属于|归入|哪一类|是否|情感",
    "summary": r"概括|摘要|总结|归纳|提炼|标题",
    "rewriting": r"改写|润色|改得|改成|修改|纠正|改正|仿写|续写|扩写|缩写",
    "extraction": r"提取|抽取|找出|挑出|标出|摘录|关键词",
    "role play": r"扮演|假设你|假如你|你是一[名位个]",
    "writing": r"写|创作|起草|拟|编一|作一首|对联|诗",
    "comparison": r"比较|对比|区别|异同|优缺点",
    "listing": r"列出|列举|推荐|建议|给出.{0,4}[个条种项]|步骤|计划|设计",
    "explanation": r"解释|说明|介绍|为什么|怎么|如何|什么是|什么|原因|含义|描述",
}
_KINDS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in KINDS.items()}


def kind(instruction: str) -> str:
    """The first kind with a keyword in the instruction."""
    return next((name for name, pattern in _KINDS.items() if pattern.search(instruction)), "other")


def verbs_and_nouns(instructions: Iterable[str]) -> Counter[tuple[str, str]]:
    """Count the pairs of first verb and next noun; the noun is "" if there is none."""
    import jieba
    import jieba.posseg

    jieba.setLogLevel(logging.WARNING)
    pairs: Counter[tuple[str, str]] = Counter()
    for instruction in instructions:
        verb = ""
        for word, flag in jieba.posseg.cut(instruction[:60]):
            if not verb and flag.startswith("v") and word not in STOP_VERBS:
                verb = word
            elif verb and flag.startswith("n") and len(word) > 1:
                pairs[verb, word] += 1
                break
        else:
            if verb:
                pairs[verb, ""] += 1
    return pairs


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Count the values from each edge up to the next; the last bin has no upper edge."""
    bins = [0] * len(edges)
    for value in values:
        bins[max(i for i, edge in enumerate(edges) if value >= edge or i == 0)] += 1
    return bins
