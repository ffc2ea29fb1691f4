"""An OpenAI-compatible server for tests: standard library alone, as slow, rude or broken as it is told to be.

`python tests/fake_server.py '{"delay": 0.2}'` prints its port and serves until it is killed, or the process that started it
is gone. What it answers is a pure function of the prompt, so that two runs with one seed get the same replies; troubles (429, 500,
cut connections, garbage for a body) befall the first attempts of some prompts and pass. `GET /stats` tells what it did.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

WORDS = "春风秋雨山川湖海日月星辰花草树木鸟兽虫鱼城市乡村道路桥梁学校医院工厂农田书本笔墨音乐舞蹈茶酒米面衣帽鞋袜父母兄弟朋友老师医生司机厨师诗人画家历史地理数学物理化学生物经济法律哲学心理快慢高低大小长短冷暖明暗新旧喜怒哀乐"
VERBS = (
    "写出",
    "说明",
    "比较",
    "分析",
    "列举",
    "概括",
    "设计",
    "改写",
    "评论",
    "推荐",
    "计算",
    "归纳",
    "想象",
    "描述",
    "介绍",
)
KINDS = ("故事", "方法", "原因", "计划", "句子", "短文", "清单", "步骤", "道理", "例子", "区别", "特点")
TRADITIONAL = str.maketrans(
    "写说较举概设计评论推荐归纳风书笔农湾乡学医院师诗画历数理经济长鸟虫鱼树桥",
    "寫說較舉概設計評論推薦歸納風書筆農灣鄉學醫院師詩畫歷數理經濟長鳥蟲魚樹橋",
)


@dataclass
class Manner:
    """How the server behaves; shares are of prompts."""

    delay: float = 0.0  # seconds before each reply
    jitter: float = 0.0  # seconds more at most
    busy: float = 0.0  # answered 429 at first
    retry_after: float | None = None  # told with a 429
    broken: float = 0.0  # answered 500 at first
    cut: float = 0.0  # connection cut in the middle at first
    garbage: float = 0.0  # not JSON at first
    keep_alive: int = 0  # blank lines before the body
    messy: bool = False  # replies half JSON, misnumbered, Traditional, near duplicates, nonsense
    near: float = 0.2  # of tasks that are near duplicates, in messy replies
    tasks: int = 17  # in a reply
    status: int = 0  # always answered
    error: dict[str, Any] = field(default_factory=dict)  # with that status
    key: str = ""  # asked for
    text: str | None = None  # of every reply, instead
    finish: str = "stop"
    bodies: list[str] = field(default_factory=list)  # raw bodies of the first replies, bytes as Latin-1
    forever: bool = False  # the last of `bodies` is sent to all that follow
    usage: Any = "counted"  # reported instead
    refused: dict[str, str] = field(
        default_factory=dict
    )  # parameter -> message of the 400 that a request with it gets
    streams: bool = False  # refuses requests without `stream`
    batch: str = "completed"  # how a batch ends
    hold: float = 0.0  # seconds between a batch's creation and word of it
    lost: bool = False  # word of a batch's creation never comes: the connection is cut


class Server:
    def __init__(self, manner: Manner) -> None:
        self.manner, self.stats, self.attempts = manner, Counter[str](), Counter[str]()
        self.files, self.batches = dict[str, bytes](), dict[str, str]()
        self.answered, self.in_flight, self.most = Counter[str](), 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: *(\d+)", head, re.I)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
                try:
                    if not await self.answer(head.decode(), body, writer):
                        break
                finally:
                    self.in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        path = head.split(" ")[1]
        if path.endswith("/stats"):
            twice = sum(n > 1 for n in self.answered.values())
            return await self.send(
                writer, 200, {**self.stats, "prompts": len(self.answered), "twice": twice, "most": self.most}
            )
        if "/files" in path or "/batches" in path:
            return await self.batch(head.split(" ")[0], path, body, writer)
        manner, request = self.manner, json.loads(body)
        prompt = request["messages"][0]["content"] if "messages" in request else request["prompt"]
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        chance = random.Random(name)
        self.stats["requests"] += 1
        self.attempts[name] += 1
        first = self.attempts[name] == 1
        await asyncio.sleep(manner.delay + random.random() * manner.jitter)
        if manner.key and f"bearer {manner.key}".lower() not in head.lower():
            return await self.send(
                writer, 401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
            )
        if manner.status:
            return await self.send(writer, manner.status, {"error": manner.error})
        for name, message in manner.refused.items():
            if name in request:
                self.stats[f"400 {name}"] += 1
                return await self.send(
                    writer, 400, {"error": {"message": message, "type": "invalid_request_error"}}
                )
        if manner.streams and not request.get("stream"):
            self.stats["400 stream"] += 1
            return await self.send(
                writer,
                400,
                {
                    "error": {
                        "message": "This model only supports stream mode, please enable the stream parameter."
                    }
                },
            )
        if manner.bodies and (self.stats["bodies"] < len(manner.bodies) or manner.forever):
            body = manner.bodies[min(self.stats["bodies"], len(manner.bodies) - 1)]
            self.stats["bodies"] += 1
            return await self.send(writer, 200, body.encode("latin-1"))
        trouble = chance.random()
        if first and trouble < manner.busy:
            self.stats["429"] += 1
            more = "" if manner.retry_after is None else f"retry-after: {manner.retry_after}\r\n"
            return await self.send(
                writer, 429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, more
            )
        if first and (trouble := trouble - manner.busy) < manner.broken:
            self.stats["500"] += 1
            return await self.send(writer, 500, {"error": {"message": "oops"}})
        if first and (trouble := trouble - manner.broken) < manner.cut:
            self.stats["cut"] += 1
            writer.write(
                b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{"choices": ['
            )
            return False
        if first and (trouble := trouble - manner.cut) < manner.garbage:
            self.stats["garbage"] += 1
            return await self.send(writer, 200, b"<html>Bad gateway</html>")
        text, finish = self.reply(prompt, chance)
        self.answered[name] += 1
        self.stats["answered"] += 1
        choice = (
            {"text": text} if "prompt" in request else {"message": {"role": "assistant", "content": text}}
        )
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        usage = usage if manner.usage == "counted" else manner.usage
        if request.get("stream"):
            return await self.send(writer, 200, self.events(request, text, finish, usage))
        return await self.send(
            writer,
            200,
            {"model": request["model"], "choices": [{**choice, "finish_reason": finish}], "usage": usage},
        )

    def events(self, request: dict[str, Any], text: str, finish: str, usage: Any) -> bytes:
        """The reply as server-sent events, three characters in each."""
        parts = [text[at : at + 3] for at in range(0, len(text), 3)]
        chunks: list[dict[str, Any]] = [
            {"model": request["model"], "choices": [{"index": 0, "delta": {"content": part}}]}
            for part in parts
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if request.get("stream_options"):
            chunks.append({"choices": [], "usage": usage})
        lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
        return ": keep-alive\n\n".join(["", *lines]).encode() + b"data: [DONE]\n\n"

    async def batch(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """A Batch API whose batches are done when they are looked at for the second time."""
        if method == "POST" and path.endswith("/files"):
            lines = [line for line in body.split(b"\r\n") if line.startswith(b'{"custom_id"')]
            self.files[f"file-{len(self.files)}"] = b"".join(lines)
            return await self.send(writer, 200, {"id": f"file-{len(self.files) - 1}", "object": "file"})
        if path.endswith("/content"):
            return await self.send(writer, 200, self.results(self.files[path.split("/")[-2]]))
        if method == "POST":
            self.stats["batches"] += 1
            made = f"batch-{self.stats['batches']}"
            self.batches[made] = json.loads(body)["input_file_id"]
            await asyncio.sleep(self.manner.hold)
            if self.manner.lost:
                return False
            return await self.send(writer, 200, {"id": made, "status": "validating"})
        if path.split("?")[0].endswith("/batches"):
            return await self.send(writer, 200, self.page(path))
        name = path.split("/")[-1]
        self.attempts[name] += 1
        status = "in_progress" if self.attempts[name] == 1 else self.manner.batch
        return await self.send(
            writer,
            200,
            {
                "id": name,
                "status": status,
                "output_file_id": self.batches[name] if self.attempts[name] > 1 else None,
            },
        )

    def page(self, path: str) -> dict[str, Any]:
        """One page of the list of batches, two to a page, newest first."""
        names = list(self.batches)[::-1]
        after = re.search(r"after=([^&]*)", path)
        names = names[names.index(after[1]) + 1 :] if after else names
        data = [{"id": n, "input_file_id": self.batches[n], "object": "batch"} for n in names[:2]]
        return {"object": "list", "data": data, "has_more": len(names) > 2}

    def results(self, file: bytes) -> bytes:
        lines = []
        for line in file.decode().split("\n"):
            if line and not (self.manner.batch == "expired" and line.startswith('{"custom_id": "0-1"')):
                asked = json.loads(line)
                self.stats["answered"] += 1
                chance = random.Random(line)
                text, finish = self.reply(asked["body"]["messages"][0]["content"], chance)
                body = {
                    "model": "batch",
                    "choices": [{"message": {"content": text}, "finish_reason": finish}],
                }
                lines.append(
                    json.dumps(
                        {"custom_id": asked["custom_id"], "response": {"status_code": 200, "body": body}}
                    )
                )
        chance = random.Random(len(lines))
        chance.shuffle(lines)
        return "\n".join(lines).encode()

    async def send(self, writer: asyncio.StreamWriter, status: int, body: Any, more: str = "") -> bool:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        data = b"\n" * self.manner.keep_alive + data
        kind = "text/html" if isinstance(body, bytes) else "application/json"
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n{more}\r\n".encode()
            + data
        )
        await writer.drain()
        return True

    def reply(self, prompt: str, chance: random.Random) -> tuple[str, str]:
        if self.manner.text is not None:
            return self.manner.text, self.manner.finish
        if "公正的评委" in prompt:
            return self.verdict(prompt, chance), "stop"
        if "是分类任务吗" in prompt:
            return chance.choice(("否", "否", "是", "不是。")), "stop"
        if "从好到差" in prompt:
            return chance.choice(("1 > 2 > 3 > 4", "4 > 3 > 2 > 1", "2 > 1 = 3 > 4", "都好")), "stop"
        if "序号开头" in prompt or prompt.endswith("9."):
            return "\n".join(f"{n}. {instruction(chance)}" for n in range(9, 17)), "stop"
        if "标签：" in prompt:
            return f"标签：好\n输入：{sentence(chance)}\n标签：坏\n输入：{sentence(chance)}", "stop"
        if "本来就用中文写的" in prompt or "原来的指令：" in prompt or "参考指令：" in prompt:
            return f"指令：{instruction(chance)}\n输入：{chance.choice(('<无>', sentence(chance)))}", "stop"
        if "最多写三组" in prompt:
            return f"输入：<无>\n输出：{sentence(chance)}", "stop"
        if "###" not in prompt:
            return sentence(chance), "stop"
        return self.tasks(chance)

    def verdict(self, prompt: str, chance: random.Random) -> str:
        """The longer answer wins, and ten characters are worth a point; a messy judge is at times partial, at times mute."""
        answers = re.findall(r"的回答】\n(.*?)\n【.*?的回答到此为止】", prompt, re.DOTALL)
        if self.manner.messy and chance.random() < 0.4:
            return chance.choice(
                ("理由。\n结论：[[A]]", "两个都好。", "结论：[[A]] 或 [[B]]", "[[11]]", "<think>")
            )
        if len(answers) == 1:
            return f"尚可。\n结论：[[{max(1, min(10, len(answers[0]) // 10))}]]"
        first, second = map(len, answers)
        return f"比较长短。\n结论：[[{'A' if first > second else 'B' if first < second else '平局'}]]"

    def tasks(self, chance: random.Random) -> tuple[str, str]:
        rows = []
        for number in range(4, 4 + self.manner.tasks):
            near = self.manner.messy and rows and chance.random() < self.manner.near
            said = rows[-1][1][:-1] + "吧。" if near else instruction(chance)
            rows.append(
                (number, said, chance.choice(("<无>", sentence(chance))), sentence(chance) + sentence(chance))
            )
        text = "".join(f"###\n{n}. 指令：{a}\n{n}. 输入：{b}\n{n}. 输出：{c}\n" for n, a, b, c in rows)
        if not self.manner.messy:
            return text, "stop"
        kind = chance.random()
        if kind < 0.05:
            return chance.choice(
                ("", "好的，没问题！", "<think>想一想", '{"tasks": [', "###\n###\n", "\ud83d" + text[:50])
            ), "stop"
        if kind < 0.15:
            tasks = [{"instruction": a, "input": b, "output": c} for _, a, b, c in rows]
            return json.dumps({"tasks": tasks}, ensure_ascii=False)[: chance.randrange(200, 4000)], "length"
        if kind < 0.25:
            return re.sub(r"^\d+\.", lambda m: f"{chance.randrange(99)}.", text, flags=re.M), "stop"
        if kind < 0.35:
            return text.translate(TRADITIONAL), "stop"
        if kind < 0.45:
            return text[: len(text) * 2 // 3], "length"
        return text, "stop"


def sentence(chance: random.Random) -> str:
    return "".join(chance.choices(WORDS, k=chance.randrange(10, 24))) + "。"


def instruction(chance: random.Random) -> str:
    return (
        chance.choice(VERBS)
        + "".join(chance.choices(WORDS, k=chance.randrange(6, 14)))
        + "的"
        + chance.choice(KINDS)
        + "。"
    )


async def main(manner: Manner) -> None:
    server = await asyncio.start_server(Server(manner).serve, "127.0.0.1", 0, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await until_orphaned()


async def until_orphaned() -> None:
    """Wait for the end of the process that started this one: a test process that is killed cannot stop its servers."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    assert given.keys() <= {f.name for f in fields(Manner)}, given
    asyncio.run(main(Manner(**given)))
