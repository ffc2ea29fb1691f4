"""Detects Chinese answers that open with the statement that an AI writes them."""

import re

_STATEMENT = re.compile(
    r"\A.{0,12}?(?:作为|身为|我(?:只|仅仅|仅)?是)(?:一个|一名|一位|一款|一种|由)?.{0,14}?(?:AI|人工智能|语言模型|大模型|智能助手|聊天机器人)"
    r"(?!专家|工程师|研究|领域|技术|产品|行业|公司|专业|课程|爱好者|从业|老师|教师|学)",
    re.IGNORECASE | re.DOTALL,
)
OPENING = 60  # characters of an answer that are searched


def ai_statement(answer: str) -> str | None:
    """The opening of an answer up to the statement, such as "作为一个人工智能", or None."""
    match = _STATEMENT.match(answer[:OPENING])
    return match.group() if match else None
