"""Finds the text and the codes of a server's error message, and classifies the error."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["quota", "content", "rate", "other"]
LONGEST = 300  # characters of a message that are shown

MESSAGES = ("message", "msg", "detail", "error_msg", "errormessage", "error_description", "status_msg", "description", "text", "title", "reason")  # fmt: skip
CODES = ("code", "type", "status", "error_code", "errorcode", "status_code", "param", "error_type")
CONTAINERS = (
    "error",
    "errors",
    "detail",
    "details",
    "base_resp",
    "innererror",
    "response",
    "responsemetadata",
)

# What the servers of a dozen providers write, in both languages. Codes are split into words before they are compared.
_QUOTA = re.compile(
    r"insufficient[ _](\w+ )?(quota|balance|credits?|funds?)|arrear|overdue|past due|payment required"
    r"|(balance|credits?|funds)\b[^.]{0,40}\b(insufficient|too low|exhausted|not enough|depleted|used up|ran out|negative)"
    r"|billing (hard )?(limit|is not active|not active)|(exceeded|exhausted)[^.]{0,30} quota|spending limit"
    r"|quota[^.]{0,20} (exhausted|used up)|resource ?pack(age)? (is )?exhausted|(no|out of|not enough) (credits?|balance|funds|resource package)"
    r"|top[ -]?up|recharge|欠费|充值|余额.{0,6}(不足|为零|为0|耗尽)|(余额|额度|配额|资源包).{0,8}(不足|耗尽|用完|用尽|已到期)|套餐.{0,8}(到期|用完)"
)
_RATE = re.compile(
    r"rate.?(limit|quota)|too many requests|(tokens|requests)[- ]per[- ](second|min|minute|hour|day)|per (second|minute)|perminute|\b[rt]p[msd]\b|\bqps\b"
    r"|throttl|concurren|(retry|try again|wait)[^.]{0,20}(\d|later|after)|频率|频繁|限流|速率|并发|请求过多|每(秒|分钟)"
)
_CONTENT = re.compile(
    r"content[ _-]?(filter|polic|safety|moderation|violat|exists risk|security)|content management policy|responsible ?ai|data ?inspection"
    r"|sensitive[ _](content|information|words?|data|text)|text sensitive|(input|output)[ _](new[ _])?sensitive|inappropriate|moderation|flagged"
    r"|unsafe|harmful|prohibited content|safety (system|filter|settings?|reasons?|guidelines|policy|check)|usage (polic|guideline)|censor"
    r"|(prompt|content|output|input|response)s?( was| were| is| has been)? blocked"
    r"|违规|(?<!大小写)敏感|不安全|不合规|(安全|内容)审核|审核(不|未)通过|内容安全|涉政|色情|风控|不当内容|违禁"
)
_ACCOUNT = re.compile(
    r"(account|organization|api[ _-]?key|user)\b[^.]{0,40}\b(suspend|deactivat|disabled|banned)|(账[户号]|用户).{0,8}(停用|封禁|冻结|禁用)"
)


@dataclass(frozen=True)
class ErrorMessage:
    """What a server says about an error: its text on one line, its codes, and an HTTP status named in the body."""

    message: str
    codes: tuple[str, ...] = ()
    status: int | None = None

    @property
    def words(self) -> str:
        """The codes, split into words, and the message, in lower case."""
        codes = " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_.\-]", " ", code) for code in self.codes)
        return f"{codes} {self.message}".lower()


def kind_of(error: ErrorMessage, status: int, waits: bool = False) -> Kind:
    """What an error is about, by the words of its codes and its message.

    `status` is that of HTTP, or 200 for an error that arrived as a success; `waits` is true if the server said how long
    to wait, which none does for an empty account.
    """
    codes = ErrorMessage("", error.codes).words
    if status == 402 or _QUOTA.search(codes):
        return "quota"
    rate = bool(_RATE.search(error.words))
    if _QUOTA.search(error.words):
        return "rate" if rate or waits else "quota"
    if status not in (401, 404, 429) and _CONTENT.search(error.words) and not _ACCOUNT.search(error.words):
        return "content"
    return "rate" if status == 429 or (rate and status < 500) else "other"


def read_error(body: bytes) -> ErrorMessage:
    """The message in the body of an error response: JSON of any of the usual forms, HTML, or plain text."""
    text = body.decode("utf-8", "replace").strip().removeprefix("data:").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        plain = html.unescape(re.sub(r"<[^>]*>", " ", title[1] if title else text))
        return ErrorMessage(_one_line(plain))
    return _message(value) or ErrorMessage(_one_line(text))


def find_error(value: Mapping[str, Any]) -> ErrorMessage | None:
    """The error in an object that is no completion; None if it reports none."""
    names = {str(name).lower(): member for name, member in value.items()}
    base = names.get("base_resp")
    reports = (
        any(
            names.get(name)
            for name in ("error", "errors", "detail", "error_msg", "error_code", "errormessage")
        )
        or names.get("object") == "error"
        or names.get("type") == "error"
        or names.get("success") is False
        or (isinstance(base, Mapping) and bool(base.get("status_code")))
        or ("choices" not in names and "code" in names and bool(names.get("message") or names.get("msg")))
    )
    return (
        (_message(value) or ErrorMessage(_one_line(json.dumps(value, ensure_ascii=False))))
        if reports
        else None
    )


def _message(value: Any) -> ErrorMessage | None:
    """The first text by breadth among the members that servers use for it, with all codes."""
    texts, codes = list(_texts(value, 0)), list(dict.fromkeys(_codes(value, 0)))
    if not texts and not codes:
        return None
    text = min(texts)[1] if texts else ", ".join(codes)
    statuses = [int(code) for code in codes if code.isdigit() and 400 <= int(code) <= 599]
    return ErrorMessage(_one_line(text), tuple(codes), statuses[0] if statuses else None)


def _texts(value: Any, depth: int) -> Iterator[tuple[tuple[int, int], str]]:
    """Texts with their rank: the outer before the inner, then in the order of MESSAGES."""
    if depth > 4:
        return
    if isinstance(value, str):
        yield (depth, -1), value
    elif isinstance(value, list):
        for item in value[:3]:
            yield from _texts(item, depth + 1)
    elif isinstance(value, Mapping):
        for name, member in value.items():
            lower = str(name).lower()
            if lower in MESSAGES and isinstance(member, str) and member.strip():
                yield (depth, MESSAGES.index(lower)), member
            elif lower in CONTAINERS and member:
                yield from _texts(member, depth + (not isinstance(member, str)))


def _codes(value: Any, depth: int) -> Iterator[str]:
    if depth > 4:
        return
    if isinstance(value, list):
        for item in value[:3]:
            yield from _codes(item, depth + 1)
    elif isinstance(value, Mapping):
        for name, member in value.items():
            lower = str(name).lower()
            if lower in CODES and isinstance(member, str | int) and not isinstance(member, bool):
                yield str(member)[:100]
            elif lower in CONTAINERS:
                yield from _codes(member, depth + 1)


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())[:LONGEST]
