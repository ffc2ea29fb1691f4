"""What servers answer instead of a reply: empty accounts end the run, refused contents one request, limits are waited for."""

import json
from typing import Any

import pytest

from tests.serving import Served, served
from tests.test_gen_zh import stats
from tests.test_llm_client import ask, question
from zhllama.errors import OptionError
from zhllama.llm.client import Client
from zhllama.llm.completions_api import request_body
from zhllama.llm.connection import Connection, ServerError
from zhllama.llm.options import ServerOptions
from zhllama.llm.parameters import Adaptation
from zhllama.llm.requests import Reply, Request
from zhllama.llm.server_errors import ErrorMessage, kind_of, read_error

__all__ = ["served"]


def error(message: str, code: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, **more}}


EMPTY = [
    (429, error("You exceeded your current token quota: org-1, please check your account balance", type="exceeded_current_quota_error")),
    (429, error("Your account org-1 <ak-1> is suspended due to insufficient balance, please recharge your account", type="exceeded_current_quota_error")),
    (429, error("您的账户已欠费，请充值后重试。", "1113")),
    (429, error("Insufficient balance or no resource package. Please recharge.", "1113")),
    (429, error("You exceeded your current quota, please check your plan and billing details. Try again later.", "insufficient_quota")),
    (402, error("Insufficient Balance", "invalid_request_error")),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    (403, error("The request failed because your account has an overdue balance.", "AccountOverdueError")),
    (400, error("Access denied, please make sure your account is in good standing.", "Arrearage")),
    (400, error("Your credit balance is too low to access the API. Please go to Plans & Billing.", type="invalid_request_error")),
    (403, error("用户额度不足, 剩余额度: ¥0.00", "insufficient_user_quota")),
    (503, error("余额不足")),
    (429, error("Your account 21 has exhausted its free trial quota for the model.", "QuotaExceeded")),
    (200, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    (402, {"error": {"message": "Insufficient credits. Add more using https://example.com", "code": 402}}),
    (429, error("Your team has either used all available credits or reached its monthly spending limit.")),
]  # fmt: skip
REFUSED = [
    (400, error("系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语。", "1301")),
    (400, error("System detected potentially unsafe or sensitive content in input or generation.", "1301")),
    (400, error("Content Exists Risk", "invalid_request_error")),
    (400, error("The request failed because the output text may contain sensitive information.", "OutputTextSensitiveContentDetected")),
    (400, error("The response was filtered due to the prompt triggering Azure's content management policy.", "content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (400, error("Input data may contain inappropriate content.", "data_inspection_failed")),
    (400, error("Output data may contain inappropriate content.", "DataInspectionFailed")),
    (451, error("The content you provided or machine outputted is blocked.", type="censorship_blocked")),
    (403, error("The model requires moderation. Your input was flagged for violence.", 403)),
    (400, error("The request was rejected because it was considered high risk", type="content_filter")),
    (400, {"detail": "输入内容违规"}),
    (200, {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}),
    (500, error("Response blocked by the safety system")),
    (403, error("Content violates usage guidelines.", "permission_denied")),
]  # fmt: skip
LIMITED = [
    (429, error("Your account org-1 request reached max organization concurrency: 1, please try again after 1 seconds", type="rate_limit_reached_error")),
    (429, error("Rate limit reached for gpt-4 on tokens per min. Limit 10000. Add a payment method at https://platform.openai.com/account/billing to increase your limit.", "rate_limit_exceeded")),
    (429, error("You exceeded your current quota, please check your plan and billing details. Please retry in 36.2s.", 429, status="RESOURCE_EXHAUSTED")),
    (429, error("您当前使用该API的并发数过高，请降低并发，或联系客服增加限额。", "1302")),
    (429, error("Allocated quota exceeded, please increase your quota limit.", "Throttling.AllocationQuota")),
    (429, error("Requests rate limit exceeded, please try again later.", "Throttling.RateQuota")),
    (429, {"detail": "slow down"}),
    (429, {}),
    (400, error("Open api qps request limit reached", 18)),
    (403, error("Too many requests", "forbidden")),
    (200, {"error_code": 18, "error_msg": "Open api qps request limit reached"}),
    (429, error("The requests per minute (RPM) limit of the endpoint is exceeded.", "RateLimitExceeded.EndpointRPMExceeded")),
]  # fmt: skip
OTHER = [
    (400, error("model names are case-sensitive")),
    (400, error("模型名大小写敏感")),
    (403, error("Your account has been suspended for a violation of our usage policies")),
    (403, error("您的账号已封禁：内容违规")),
    (401, error("Incorrect API key provided. You can find it at https://example.com/account/api-keys", "invalid_api_key")),
    (404, error("The model `m` does not exist or you do not have access to it.", "model_not_found")),
    (400, error("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.", "context_length_exceeded")),
    (400, error("Unrecognized request argument supplied: top_k")),
    (500, error("Internal error, please try again later")),
    (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "extra fields not permitted"}]}),
]  # fmt: skip


def cases(rows: list[tuple[int, Any]], kind: str) -> list[Any]:
    return [
        pytest.param(status, body, kind, id=f"{kind}-{number}") for number, (status, body) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [*cases(EMPTY, "quota"), *cases(REFUSED, "content"), *cases(LIMITED, "rate"), *cases(OTHER, "other")],
)
def test_kinds_of_errors(status: int, body: Any, kind: str) -> None:
    found = read_error(json.dumps(body).encode())
    assert kind_of(found, status) == kind


def test_a_waiting_time_means_that_the_account_is_not_empty() -> None:
    message = ErrorMessage("You exceeded your current quota.")
    assert (kind_of(message, 429), kind_of(message, 429, waits=True)) == ("quota", "rate")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "model \'x\' not found, try pulling it first"}', "model 'x' not found, try pulling it first"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', "field required"),
        (b'{"detail": {"error": {"message": "deep"}}}', "deep"),
        (b'{"message": "outer", "error": {"message": "inner"}}', "outer"),
        (b'{"Response": {"Error": {"Code": "A.B", "Message": "tencent"}}}', "tencent"),
        (b'["first", "second"]', "first"),
        (b'"text"', "text"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (b"upstream   is\ndown", "upstream is down"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
        (b"[" * 100_000, "[" * 300),
        (b'{"error": {"message": null, "code": 1305}}', "1305"),
        (b'{"odd": 1}', '{"odd": 1}'),
    ],
)  # fmt: skip
def test_the_text_of_an_error(body: bytes, message: str) -> None:
    assert read_error(body).message == message


@pytest.mark.parametrize(("status", "body"), [EMPTY[2], EMPTY[0], EMPTY[13]])
def test_an_empty_account_ends_the_run_at_once(served: Served, status: int, body: Any) -> None:
    url = served(status=status, error=body.get("error", {})) if status != 200 else served(bodies=[json.dumps(body)], forever=True)  # fmt: skip
    with pytest.raises(ServerError, match="has no quota left for this key"):
        ask(Connection((url,), "m"))
    assert stats(url)["requests"] == 1


@pytest.mark.parametrize(("status", "body"), REFUSED[:5])
def test_refused_contents_as_first_replies_end_no_run(served: Served, status: int, body: Any) -> None:
    replies, _ = ask(Connection((served(status=status, error=body["error"]),), "m"), 2)
    assert replies == [Reply(text=None, refusal=f"refused: {body['error']['message']}")] * 2


def test_the_text_of_an_error_sent_as_success_is_shown(served: Served) -> None:
    for body in ('{"error": "model is loading"}', '{"detail": "model is loading"}'):
        with pytest.raises(ServerError, match="instead of a reply: model is loading"):
            ask(Connection((served(bodies=[body], forever=True),), "m"))


def warned(to: Connection, count: int = 12) -> tuple[list[Reply | None], list[str]]:
    import asyncio
    from random import Random

    warnings: list[str] = []

    async def work() -> list[Reply | None]:
        async with Client(to, Random(0), warn=warnings.append) as client:
            return await asyncio.gather(*(client.ask(question(i)) for i in range(count)))

    return asyncio.run(work()), warnings


@pytest.mark.parametrize(
    ("refused", "changes"),
    [
        ({"max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."}, ["`max_completion_tokens` instead of `max_tokens`"]),
        ({"top_k": "Unrecognized request argument supplied: top_k"}, ["without `top_k`"]),
        ({"max_tokens": "unknown field max_tokens", "top_k": "unexpected keyword argument 'top_k'"}, ["without `max_tokens`", "without `top_k`"]),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_left_out_once(
    served: Served, refused: dict[str, str], changes: list[str]
) -> None:
    url = served(refused=refused)
    replies, warnings = warned(Connection((url,), "m"))
    assert all(reply and reply.text for reply in replies)
    assert len(warnings) == len(changes) and all(change in one for change, one in zip(changes, warnings, strict=True))  # fmt: skip
    assert stats(url)["answered"] == 12 and stats(url)["requests"] <= 12 + 8 * len(changes), "remembered"


def test_servers_that_only_stream_are_streamed(served: Served) -> None:
    url = served(streams=True, text="春风又绿江南岸")
    replies, warnings = warned(Connection((url,), "m"))
    assert [reply and (reply.text, reply.finish, reply.estimated) for reply in replies] == [("春风又绿江南岸", "stop", False)] * 12  # fmt: skip
    assert (
        len(warnings) == 1
        and "asked again with `stream` (This model only supports stream mode" in warnings[0]
    )
    url = served(streams=True, refused={"stream_options": "stream_options is not supported"}, text="春风")
    replies, warnings = warned(Connection((url,), "m"))
    assert [reply and (reply.text, reply.estimated) for reply in replies] == [("春风", True)] * 12 and len(warnings) == 2  # fmt: skip


SENT = {"max_tokens": 10, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"]}


@pytest.mark.parametrize(
    ("message", "param", "left"),
    [
        ("Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported.", "temperature", {"max_tokens", "top_p", "stop"}),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", None, {"max_tokens", "temperature", "stop"}),
        ("unknown parameter top_p; known are max_tokens, temperature", None, {"max_tokens", "temperature", "stop"}),
        ("Invalid parameter", "stop", {"max_tokens", "temperature", "top_p"}),
        ("temperature: Extra inputs are not permitted", None, {"max_tokens", "top_p", "stop"}),
        ("参数 top_p 不支持", None, {"max_tokens", "temperature", "stop"}),
        ("Use max_completion_tokens instead of max_tokens", None, {"max_completion_tokens", "temperature", "top_p", "stop"}),
        ("max_tokens is too large: 5000. This model supports at most 4096 completion tokens", None, None),
        ("'max_tokens' or 'max_completion_tokens' is too large", None, None),
        ("Range of max_tokens should be [1, 8192]", None, None),
        ("the model does not exist", None, None),
        ("messages: at least one is required", None, None),
    ],
)  # fmt: skip
def test_what_an_error_changes(message: str, param: str | None, left: set[str] | None) -> None:
    adaptation = Adaptation()
    found = read_error(json.dumps(error(message, param=param)).encode())
    change = adaptation.learn(found, SENT, fixed=())
    assert (change is None) == (left is None)
    assert adaptation.apply(SENT).keys() == (SENT.keys() if left is None else left)
    assert Adaptation().learn(found, SENT, fixed=[*SENT, "max_completion_tokens"]) is None, (
        "the user's own fields stay"
    )


def test_omit() -> None:
    sampling = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 9}
    request = Request(0, 0, "tasks", "写诗", {}, sampling)
    options = ServerOptions(base_url=("http://h/v1",), omit=("top_p", "max_tokens"), extra_body='{"max_completion_tokens": 9}')  # fmt: skip
    body = request_body(options.connection("m"), request)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "写诗"}], "temperature": 0.0, "max_completion_tokens": 9}  # fmt: skip
    with pytest.raises(OptionError, match="omit max_token: is not a parameter that can be left out"):
        ServerOptions(omit=("max_token",))
