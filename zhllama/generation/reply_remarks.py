"""What in a reply is no part of a task: inputs that say that there is none, thoughts, special tokens, remarks."""

import re

# --- inputs that say that there is none ---

_NONE = re.compile(
    r"(?:(?:本|此|该|這|这)(?:题|題|任务|任務|指令)(?:，)?)?"
    r"(?:无|無|空|略|空白|留空|空字符串|暂无|不适用|不適用|none|null|nil|n/?a|noinput|no input|empty|not applicable|[-—–/]{1,2}"
    r"|(?:无|無|无需|無需|无须|不需要|不需|不用|没有|沒有|暂无)(?:提供|给出|任何|额外|額外|其他|具体|特定)?的?(?:输入|輸入|材料|内容|內容|数据|文本|信息)(?:内容|材料|数据|文本)?"
    r"|无需|無需|无须|不需要)",
    re.IGNORECASE,
)
_QUOTES = " \t\n<>＜＞《》〈〉（）()[]【】“”\"'`*_。.!！"


def normalize_empty(field: str) -> str:
    """The stripped field; "" for the many spellings of "none"."""
    stripped = field.strip()
    return (
        "" if (len(stripped) <= 30 and _NONE.fullmatch(stripped.strip(_QUOTES))) or not stripped else stripped
    )


# --- thoughts ---

_THOUGHT_NAMES = (
    "think|thinking|thought|thoughts|reason|reasoning|reflection|scratchpad|analysis|思考|思考过程"
)
THOUGHT_TAG = re.compile(rf"<(?P<end>/)?(?:{_THOUGHT_NAMES})>|◁(?P<end2>/)?think▷", re.IGNORECASE)
SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|\[/?INST\]|</s>")

# --- remarks about the reply, which belong to no task ---

_REMARK = re.compile(
    r"^\W{0,4}(?:以上|上述|上面|这些|這些|至此)(?:就)?(?:是|为|為|共|即|这|這|几|幾|\d|[一二三四五六七八九十]|内容|任务|任務|示例|例子|题目|題目|指令|列表|数据|全部|都|的)"
    r"|希望(?:这|這|以上|上述|对|對|能|可以|您|你|有|我)|(?:共计|共計|总共|總共|一共|共有|共)\s?[\d一二三四五六七八九十]+\s?[道条條个個组組]"
    r"|(?:如|若)(?:果)?(?:您|你)?(?:还|還|仍|另)?(?:有|需|要|想|希望)|(?:请|請|欢迎|歡迎)(?:随时|隨時|告诉我|告訴我|让我|继续|问|您|你|确认|审阅|查收)"
    r"|(?:随时|隨時)(?:告诉|告訴|联系|聯繫|提出|问)|需要我|是否(?:需要|要|还)|我(?:可以|会|將|将|还|還|已|来)(?:继续|繼續|再|为|為|接着|按|严格|尽量)"
    r"|(?:任务|任務|题目|題目|示例|指令|编写|編寫|生成|创作|列表|输出|內容|内容)(?:已|均|都|全部|到此|结束|完毕|完成|如上|至此)|(?:到此|至此)(?:结束|为止|全部)"
    r"|未完|待续|待續|篇幅|字数限制|长度限制|继续(?:编写|生成|写|输出)|繼續(?:編寫|生成)|省略|(?:其余|后续|剩余|剩下)(?:的)?(?:任务|题|\d)"
    r"|^\W{0,4}(?:注|注意|备注|備註|说明|說明|提示|ps|p\.s\.|note)\s?[:：]|祝(?:您|你|使用|工作|学习|一切)"
    r"|let me know|hope (?:this|these|it)|feel free|to be continued|(?:these|above) (?:are|tasks)|if you (?:need|want|have|would)|would you like|end of",
    re.IGNORECASE,
)


def is_remark(text: str) -> bool:
    """True if a paragraph may be a remark of the model about its reply: 以上共17道…, 希望对您有帮助, 如需更多…, 请告诉我."""
    return len(text) <= 400 and _REMARK.search(text.strip()) is not None


_TASK_REMARK = re.compile(r"任务|任務|指令|示例|题目|題目|[\d一二三四五六七八九十][道题題条條组組]|tasks?\b|examples?\b", re.IGNORECASE)  # fmt: skip


def is_remark_about_tasks(text: str) -> bool:
    """True if a remark names tasks, so that after a separator it cannot be part of the last output."""
    return is_remark(text) and _TASK_REMARK.search(text) is not None
