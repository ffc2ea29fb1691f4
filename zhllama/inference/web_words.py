"""The texts of the chat page, and which Chinese a visitor's browser asks for."""

import re

ENGLISH = {
    "system": "System prompt",
    "system_hint": "The role of the model, e.g. a patient teacher of Chinese",
    "settings": "Settings",
    "temperature": "Temperature (0: always the most probable token)",
    "top_p": "Top-p",
    "max_tokens": "Maximum tokens of an answer",
    "message": "Say something",
    "new_chat": "New chat",
    "notice": "Note",
    "forgotten": "The conversation is long: the model no longer sees the first {n} exchanges.",
}
SIMPLIFIED = {
    "system": "系统提示词",
    "system_hint": "希望模型扮演什么角色，例如：一位耐心的语文老师",
    "settings": "设置",
    "temperature": "温度（0表示每次取概率最高的词元）",
    "top_p": "Top-p",
    "max_tokens": "回答的最大词元数",
    "message": "说点什么吧",
    "new_chat": "新对话",
    "notice": "提示",
    "forgotten": "对话太长，模型已看不到最早的{n}组问答。",
}
TRADITIONAL = {
    "system": "系統提示詞",
    "system_hint": "希望模型扮演什麼角色，例如：一位有耐心的中文老師",
    "settings": "設定",
    "temperature": "溫度（0表示每次取機率最高的詞元）",
    "top_p": "Top-p",
    "max_tokens": "回答的最大詞元數",
    "message": "說點什麼吧",
    "new_chat": "新對話",
    "notice": "提示",
    "forgotten": "對話太長，模型已看不到最早的{n}組問答。",
}
# By the languages that gradio speaks; it knows no Chinese but these two, and compares their names to the letter.
WORDS = {"en": ENGLISH, "zh-CN": SIMPLIFIED, "zh-TW": TRADITIONAL}
_TRADITIONAL = r"^zh-(hant|tw|hk|mo)\b"
# Before gradio asks the browser for its language, zh-HK and the like become the Chinese that gradio knows.
CHOOSE_CHINESE = (
    "<script>{const asked = navigator.language; if (/^zh\\b/i.test(asked)) "
    f'Object.defineProperty(navigator, "language", {{value: /{_TRADITIONAL}/i.test(asked) ? "zh-TW" : "zh-CN"}});'
    "}</script>"
)


def words_for(accepted: str) -> dict[str, str]:
    """The texts in the first language of an Accept-Language header."""
    first = re.split("[,;]", accepted, maxsplit=1)[0].strip()
    if re.search(_TRADITIONAL, first, re.IGNORECASE):
        return TRADITIONAL
    return SIMPLIFIED if re.match(r"zh\b", first, re.IGNORECASE) else ENGLISH
