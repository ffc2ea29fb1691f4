"""Decides whether two similar instructions ask for different things: 3×4 and 3÷4, Python and Java, 近义词 and 反义词."""

import itertools
import logging
import re
import unicodedata
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import cache

from zhllama.generation.near_duplicates import simplified

# Words that exclude each other: one group a line, in which each word excludes the others, or the words on both sides of a slash.
_GROUPS = """
升高 上升 上涨 增加 增多 增大 增长 增强 提高 提升 加强 扩大 变大 变多 / 降低 下降 下跌 减少 减小 减轻 减弱 缩小 削弱 变小 变少
优点 优势 长处 好处 益处 利 / 缺点 劣势 短处 坏处 害处 弊 弊端 不足
支持 赞成 赞同 同意 接受 / 反对 拒绝 否决 不同意 不赞成
打开 开启 启用 开 / 关闭 关掉 禁用 停用 关
添加 增加 插入 加上 创建 新建 / 删除 去掉 移除 删掉 减去
积极 正面 乐观 / 消极 负面 悲观
喜欢 爱 / 讨厌 厌恶 恨
大 小
最大 最小
多 少
高 低 矮
长 短
上 下
前 后
左 右
内 外
里 外
升 降
加 减 乘 除
增 减
上传 下载
优 缺 劣
好 坏
利 弊
新 旧
新 老
男 女
父 母
真 假
有 无
有 没有
是 否
对 错
对 不对
正确 错误
买 卖
进 出
进 退
进口 出口
输入 输出
开 关
冷 热
快 慢
早 晚
远 近
近 反
同 反
同 异
正 反
正 负
正面 负面
正方 反方
肯定 否定
成功 失败
成 败
胜 负
胜 败
输 赢
强 弱
轻 重
深 浅
厚 薄
粗 细
软 硬
明 暗
黑 白
贫 富
贵 便宜
贵 贱
主动 被动
最 最不
奇 偶
阴 阳
始 终
首 末
首 尾
开头 结尾
开始 结束
起点 终点
爱 恨
悲 喜
喜剧 悲剧
表扬 批评
赞美 批评
原因 结果
原因 后果
编码 解码
加密 解密
压缩 解压
安装 卸载
登录 退出
借 还
借入 借出
存 取
收入 支出
盈利 亏损
涨 跌
供 求
供给 需求
生产 消费
直接 间接
绝对 相对
必须 禁止
允许 禁止
公开 秘密
公开 保密
公 私
简 繁
简体 繁体
简单 复杂
容易 困难
易 难
安全 危险
干净 肮脏
健康 疾病
勤 懒
勤劳 懒惰
谦虚 骄傲
诚实 虚伪
勇敢 胆小
美 丑
善 恶
亲切 冷淡
横 竖
横 纵
水平 竖直
水平 垂直
垂直 平行
串联 并联
顺时针 逆时针
递增 递减
单数 复数
单 双
单 复
因数 倍数
公约数 公倍数
最大公约数 最小公倍数
分子 分母
周长 面积
半径 直径
表面积 体积
平方 立方
质数 合数
整数 小数
酸 碱
氧化 还原
吸热 放热
动脉 静脉
水溶性 脂溶性
元音 辅音
定语 状语
主语 谓语 宾语
名词 动词 形容词 副词
比喻 拟人 排比 夸张
褒义 贬义
口语 书面语
白话文 文言文
正式 随意
正式 口语
白天 黑夜
白天 晚上
昼 夜
早上 晚上
上午 下午
上半年 下半年
昨天 今天 明天
过去 现在 将来
过去 未来
古代 现代
国内 国外
城市 农村
东 西 南 北
东方 西方
室内 室外
甲方 乙方
原告 被告
摄氏 华氏
公历 农历
阳历 阴历
升序 降序
同步 异步
有线 无线
线上 线下
免费 收费
批发 零售
团聚 离别
相遇 离别
结婚 离婚
出生 死亡
老人 儿童
老师 学生
医生 病人
上司 下属
客户 商家
充电 放电
开源 闭源
前端 后端
扩写 缩写
扩展 压缩
合并 拆分
放大 缩小
拉伸 收缩
膨胀 收缩
凝固 熔化
蒸发 凝结
"""
_SIDES = [
    [side.split() for side in group.split("/")] if "/" in group else [[word] for word in group.split()]
    for group in _GROUPS.strip().split("\n")
]
_CONTRASTS = frozenset(
    frozenset((one, other))
    for sides in _SIDES
    for first, second in itertools.combinations(sides, 2)
    for one in first
    for other in second
)
_NEGATIONS = {"不", "没", "没有", "非", "无", "未", "不是", "不会", "不能", "不可以", "不要", "别", "勿", "不应该", "不适合"}  # fmt: skip
_CONJUNCTIONS = {"和", "与", "跟", "同", "及", "以及", "或", "或者", "还是", "、", ",", "，"}
# 上面 and 下面 refer to the same material.
_REFERENCES = re.compile(r"(?:上|下|以上|以下|下列|上述|下述)(?:面|边)?(?=的|这|句|段|文|$)")
_A_NOT_A = re.compile(r"([\u4e00-\u9fff])[不没]\1")
_ITEM = r"[A-Za-z0-9.+#]+"
_ITEMS = re.compile(rf"{_ITEM}(?:\s*(?:和|与|跟|及|或|、|,)\s*{_ITEM})+")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u0370-\u03ff]+(?:\+\+|#)?")
_OPERAND, _OPENING = r"(?<=[A-Za-z0-9)\]])", r"(?=[A-Za-z0-9(\[\-√])"
_OPERATOR = re.compile(rf"[×÷≠≤≥≈±√∑∏∫∪∩∈⊂⊆∧∨¬%‰°]|{_OPERAND}[-+*/^=<>&|!~]+{_OPENING}")
_SAME_OPERATORS = {"*": "×", "/": "÷", "==": "=", "<=": "≤", ">=": "≥", "!=": "≠", "−": "-"}
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_NUMERALS = "零〇一二两三四五六七八九十百千万亿"
_MEASURES = "个种条道首篇句段字次倍年月日天岁元米斤克吨页本张位名只点号层步件套封类项组章节课人家份副句行列"
_NUMERAL = re.compile(rf"第?([{_NUMERALS}]+)[{_MEASURES}]?")
_NOT_NUMERALS = {"千万", "万一", "一一", "万万", "千百", "万千", "三五", "一点", "一次", "一些"}


def contrasts(first: str, second: str) -> bool:
    """True if two instructions differ in a number, an operator, a Latin word, a negation, or in words that exclude each other.

    A number in Chinese numerals equals the same number in digits. Two words that change places, as in 从北京到上海, are
    a difference too, except in a list such as 苹果和香蕉.
    """
    first, second = _normalized(first), _normalized(second)
    squeezed = re.sub(r"\s", "", first), re.sub(r"\s", "", second)
    if _latin_words(first) != _latin_words(second) or _operators(squeezed[0]) != _operators(squeezed[1]):
        return True
    one, other = _words(first), _words(second)
    if all(_numbers(one, ones) != _numbers(other, ones) for ones in (True, False)):
        return True
    return _swapped(one, other) or any(_exclude(*pair) for pair in _replaced(one, other))


def _normalized(text: str) -> str:
    text = _A_NOT_A.sub(r"\1", simplified(unicodedata.normalize("NFKC", text)))
    text = _REFERENCES.sub("", text)
    return _ITEMS.sub(
        lambda found: "、".join(sorted(re.findall(_ITEM, found.group()), key=str.casefold)), text
    )


def _latin_words(text: str) -> list[str]:
    return [word.casefold() for word in _LATIN.findall(text)]


def _operators(text: str) -> list[str]:
    found = (operator.group() for operator in _OPERATOR.finditer(text))
    return [_SAME_OPERATORS.get(operator, operator) for operator in found]


@cache
def _segmenter() -> "jieba.Tokenizer":  # type: ignore[name-defined] # noqa: F821
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba.dt


def _words(text: str) -> list[str]:
    """The words of a text without spaces and sentence marks."""
    return [
        word
        for word in _segmenter().lcut(text)
        if word.strip() and word not in "。？！：；“”‘’《》（）?!:;\"'()"
    ]


def _numbers(words: list[str], ones: bool) -> list[float]:
    """The numbers among the words; without `ones`, 一 is left out, because 写一首诗 equals 写首诗."""
    numbers = []
    for word in words:
        if digits := _DIGITS.findall(word):
            numbers += [float(number) for number in digits]
        elif (numeral := _NUMERAL.fullmatch(word)) and word not in _NOT_NUMERALS:
            numbers.append(_value(numeral[1]))
    return numbers if ones else [number for number in numbers if number != 1]


def _value(numeral: str) -> float:
    """The value of a number such as 三百二十, or of digits in a row such as 二〇二四."""
    digits = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
    if not set(numeral) & set("十百千万亿"):
        return float("".join(str(digits[character]) for character in numeral))
    total = section = digit = 0
    for character in numeral:
        if character in digits:
            digit = digits[character]
        elif character in "万亿":
            total = (total + section + digit or 1) * (10_000 if character == "万" else 100_000_000)
            section = digit = 0
        else:
            section += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[character]
            digit = 0
    return float(total + section + digit)


def _replaced(first: list[str], second: list[str]) -> Iterator[tuple[str, str]]:
    """The words that stand in one text instead of those in the other, and the same without what they share."""
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        one, other = "".join(first[i:j]), "".join(second[k:m])
        yield one, other
        yield from ((a, b) for a in first[i:j] for b in second[k:m])
        start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if start is not None:
            one, other = one[start:], other[start:]
            while one and other and one[-1] == other[-1]:
                one, other = one[:-1], other[:-1]
            yield one, other


def _exclude(one: str, other: str) -> bool:
    if not one or not other:
        return (one or other) in _NEGATIONS
    return frozenset((one, other)) in _CONTRASTS


def _swapped(first: list[str], second: list[str]) -> bool:
    """True if two words that are no items of one list changed places."""
    if len(first) != len(second):
        return False
    places = [place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(places) != 2:
        return False
    i, j = places
    between = set(first[i + 1 : j])
    return first[i] == second[j] and first[j] == second[i] and bool(between) and not between <= _CONJUNCTIONS
