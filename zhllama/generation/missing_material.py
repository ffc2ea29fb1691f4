"""Recognizes tasks that need a picture, a file or a text that they do not contain."""

import re

_ATTACHMENT = (
    r"(?:图片|图像|照片|插图|截图|图表|图形|音频|录音|视频|影片|附件|文件|文档|链接|网页|网址|表情包)"
)
_MISSING_ATTACHMENT = re.compile(
    rf"(?:如|见|看|下|上|附|右|左)图(?![书形案])|图中|(?:这|那|该|此|下面的?|以下的?|上述|给定的?|所给的?|提供的?|附上?的?|上传的?)(?:一)?[张幅个段份篇条]?{_ATTACHMENT}"
)
_POSSIBLY_TEXT = ("文档", "文件", "图表", "图形", "图中")  # what the input may contain as text
_UNIT = r"(?:[篇段句首则封条组些个道份张]|几句|句子?)"
_MATERIAL = r"(?:文章|短文|课文|作文|文字|段落|话(?!题)|句子|诗歌|诗|词|新闻|报道|故事|小说|散文|评论|留言|邮件|信|信件|通知|公告|对话|代码|程序|函数|文本|材料|资料|论文|摘要|简历|求职信|合同|表格|数据|列表|歌词|单词|词语|题目|题|方程|句式|事件|案例|描述|文言文|译文|提问|记录|演讲稿|报告)"
# An instruction refers to a text that it does not contain ...
_REFERENCE = re.compile(
    r"(?:(?<![字岁度元个米级人分年天])以下|下面|下列|给定(?!一|两|若干)|所给|如下)(?:的|这|几|一|两|三|四|五|些|段|篇|个|句|组|条|首|则)*[^\W，。]"
    rf"|(?:给出|提供)的(?:这|几|两|三)*{_UNIT}?{_MATERIAL}|(?:这|该|此)(?:几|两|三)?{_UNIT}?{_MATERIAL}|(?<![字岁度元个米级人分年天话])(?:上述|上面|以上|前述)的?(?:{_UNIT})?{_MATERIAL}"
    r"|(?:^|(?<=[，。、据为把将对从按照在请的出给看读]))(?:上文|本文|文中|文末|原文|材料中|阅读材料|阅读短文|背景介绍|文章大意|(?:将|把|对|归纳)(?:文章|邮件|材料|文本|用户的提问)|邮件内容|根据(?:材料|短文|文章|原文|歌词))"
    rf"|我(?:写)?的?(?:这|那)?{_UNIT}?(?:代码|作文|文章|简历|论文)|某{_UNIT}{_MATERIAL}|看图写话"
)
_INSTRUCTED = re.compile(r"怎样|怎么|如何|什么是|有哪些(?:常见|基本)")
# ... unless it quotes or appends one.
_INLINE_MATERIAL = re.compile(r"[：:“「『《\"\n（(`]|——|\d.*[=+]")
# The text is to be written first: 写一篇演讲稿，这篇演讲稿要……
_WRITTEN_FIRST = re.compile(rf"[写拟编作](?:出|一)*{_UNIT}?[^，。]*?({_MATERIAL})")
_NAMES = r"(?:文章|段落|文本|内容|句子|原文|全文|材料|提问|信件|新闻|代码|文字|评论|text|content|article|paragraph|document|sentence)"
_PLACEHOLDER = re.compile(
    # <段落>, [待翻译的文本], {text}, （请在此粘贴文章）
    rf"[<‹〈＜\[［【{{｛]{{1,2}}[^<>\[\]{{}}【】《》\n]{{0,8}}{_NAMES}[^<>\[\]{{}}【】《》\n]{{0,4}}[>›〉＞\]］】}}｝](?!标签|元素|属性)"
    r"|[<‹〈＜\[［【{｛(（]\s*(?:请?在?(?:此处?|这里)|请?(?:插入|粘贴|填入|填写|输入))[^<>\[\]{}【】()（）\n]{0,20}[>›〉＞\]］】}｝)）]",
    re.IGNORECASE,
)
_NAMELESS = re.compile(r"(?<![A-Za-z$*])(?:X{2,}|x{3,}|〇{2,}|○{2,})(?![A-Za-z])")  # XX公司
_PLACEHOLDER_INPUT = re.compile(
    rf"\s*(?:[<(（\[【](?!无|no)[^\d\W]{{2,10}}[>)）\]】]|(?:某|一|这|该|那)(?:[篇段句首则封条]|几句)(?:(?:关于|有关|介绍).{{1,12}}的)?{_MATERIAL}|{_MATERIAL}(?:内容)?"
    r"|X+|…+|\.{3,}|·+|略|同上)[。.]?\s*",
    re.DOTALL,
)
# ... or tells a case first, as in 甲撞伤乙后逃离，乙自行就医。分析上述案例中的责任。
_SENTENCE_END = re.compile(r"[。？！!?]")
MIN_BEFORE, MIN_AFTER = 12, 25  # characters before the reference, and of one sentence after it
_LISTED = re.compile(r"[和与、]\s*[^，。]{1,10}$")  # 用“风”和“雨”这两个字


def missing_material(instruction: str, input: str) -> str | None:
    """What a task refers to without containing it, or the placeholder that it contains instead; None if nothing is missing."""
    attachment = _MISSING_ATTACHMENT.search(instruction)
    if attachment and not (input and attachment.group().endswith(_POSSIBLY_TEXT)):
        return attachment.group()
    if found := _PLACEHOLDER.search(instruction) or _NAMELESS.search(instruction):
        return f"placeholder {found.group()} in the instruction"
    if (found := _PLACEHOLDER.search(input)) and len(found.group()) * 2 > len(input.strip()):
        return f"placeholder {found.group()} as input"
    if input:
        return f"placeholder {input[:20]} as input" if _PLACEHOLDER_INPUT.fullmatch(input) else None
    reference = _REFERENCE.search(instruction)
    if reference is None or _INLINE_MATERIAL.search(instruction) or _INSTRUCTED.search(instruction):
        return None
    written = _WRITTEN_FIRST.search(instruction)
    if written and written.end() <= reference.start():
        return None
    if _LISTED.search(instruction[: reference.start()]) and reference.group().startswith("这"):
        return None
    rest = instruction[reference.start() :]
    if max(map(len, _SENTENCE_END.split(rest)[1:]), default=0) >= MIN_AFTER:
        return None
    before = _SENTENCE_END.split(instruction[: reference.start()])
    if sum(map(len, before[:-1])) >= MIN_BEFORE:
        return None
    return f"{reference.group()} without an input"
