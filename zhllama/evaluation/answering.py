"""Answers questions with a local model in batches or with a server; each answer goes to the journal at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.evaluation.judging import ROUND
from zhllama.evaluation.questions import Question
from zhllama.llm.journal import Journal, JournalRecord
from zhllama.llm.requests import Reply, Request, Sampling

if TYPE_CHECKING:
    from zhllama.inference.transformers_chat_model import TransformersChatModel


@dataclass
class Answering:
    """The request plan of a file of questions, and the replies: questions == answered + refused + missing."""

    questions: Sequence[Question]
    sampling: Sampling
    watch: Callable[[], object] = lambda: None
    replies: dict[str, Reply] = field(default_factory=dict, init=False)

    def request(self, number: int) -> Request:
        """The request for one question; identical in every start, so that the journal can be resumed."""
        question = self.questions[number]
        about = {"id": question.id}
        return Request(*divmod(number, ROUND), "answer", question.text, about, self.sampling)

    def requests(self, round: int) -> list[Request]:
        last = min(len(self.questions), (round + 1) * ROUND)
        return [self.request(number) for number in range(round * ROUND, last)]

    def accept(self, record: JournalRecord) -> None:
        self.replies[record.about["id"]] = record.reply
        self.watch()

    def expected_calls(self) -> int:
        return len(self.questions)

    def rows(self, model: str) -> Iterator[dict[str, Any]]:
        """The answered questions with their answers, in the order of the questions."""
        for question in self.questions:
            reply = self.replies.get(question.id)
            if reply is not None and reply.text is not None:
                answer = {"answer": reply.text, "finish": reply.finish, "model": reply.model or model}
                yield {**question.row(), **answer}

    def refused(self) -> list[dict[str, str]]:
        """The refused questions, each with its reason."""
        return [
            {"id": question.id, "reason": reply.refusal}
            for question in self.questions
            if (reply := self.replies.get(question.id)) is not None and reply.text is None
        ]

    def figures(self) -> dict[str, int]:
        """Counts of questions, answers, refusals and answers cut off at the token limit."""
        refused = len(self.refused())
        cut = sum(reply.finish == "length" for reply in self.replies.values())
        return {
            "questions": len(self.questions),
            "answered": len(self.replies) - refused,
            "refused": refused,
            "missing": len(self.questions) - len(self.replies),
            "cut_off": cut,
        }


def answer_locally(
    answering: Answering,
    journal: Journal,
    chat_model: "TransformersChatModel",
    batch_size: int,
    system: str = "",
) -> None:
    """Answer all questions that the journal does not contain, the longest prompts first.

    Batches contain the same questions in every start, and an incomplete batch is generated again as a whole, so that a
    resumed run gives the same answers as an uninterrupted one. Errors: InputError for a journal of other questions.
    """
    prompts = [_prompt_ids(chat_model, question.text, system) for question in answering.questions]
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        requests = [answering.request(number) for number in batch]
        records = [_find_record(journal, request) for request in requests]
        if not all(records):
            replies = generate(
                chat_model, [prompts[number] for number in batch], answering.sampling, seed=batch[0]
            )
            records = [
                record or journal.append(request, reply)
                for record, request, reply in zip(records, requests, replies, strict=True)
            ]
        for record in records:
            assert record is not None
            answering.accept(record)


def _find_record(journal: Journal, request: Request) -> JournalRecord | None:
    record = journal.get(request.key)
    if record is not None and record.fingerprint != request.fingerprint:
        problem = f"its reply to {request.about['id']!r} belongs to a different question"
        raise InputError(journal.path, problem, "Restore the questions, or start over with `force`")
    return record


def _prompt_ids(chat_model: "TransformersChatModel", text: str, system: str) -> list[int]:
    from zhllama.conversation.records import Turn

    turns = [*([Turn("system", system)] if system else []), Turn("user", text)]
    rendered = chat_model.template.render(chat_model.tokenizer, turns, opened=True)
    ids: list[int] = chat_model.tokenizer(rendered, add_special_tokens=False).input_ids
    return ids


def generate(
    chat_model: "TransformersChatModel", prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int
) -> list[Reply]:
    """Generate one batch, padded on the left; a prompt that leaves no room for an answer is refused."""
    import torch

    from zhllama.inference.transformers_chat_model import end_ids_of_answer

    fitting = [ids for ids in prompts if len(ids) < chat_model.context]
    if not fitting:
        return [_too_long(ids, chat_model.context) for ids in prompts]
    longest = max(map(len, fitting))
    model, tokenizer = chat_model.model, chat_model.tokenizer
    ends = end_ids_of_answer(model.generation_config.eos_token_id, tokenizer, chat_model.template)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    input_ids = torch.tensor(
        [[pad] * (longest - len(prompt)) + list(prompt) for prompt in fitting], device=model.device
    )
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in fitting], device=model.device
    )
    sample = sampling["temperature"] > 0
    torch.manual_seed(seed)
    with torch.inference_mode():
        generated = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=min(sampling["max_tokens"], chat_model.context - longest),
            do_sample=sample,
            temperature=sampling["temperature"] if sample else None,
            top_p=sampling["top_p"] if sample else None,
            top_k=0 if sample else None,
            eos_token_id=ends,
            pad_token_id=pad,
            tokenizer=tokenizer,  # for `stop_strings` of the model's generation config
        )
    answers = iter(generated[:, longest:].tolist())
    return [
        _reply(tokenizer, next(answers), ends, len(ids))
        if len(ids) < chat_model.context
        else _too_long(ids, chat_model.context)
        for ids in prompts
    ]


def _reply(tokenizer: Any, ids: list[int], ends: Sequence[int], prompt_tokens: int) -> Reply:
    stop = next((position for position, id in enumerate(ids) if id in ends), None)
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
    finish = "length" if stop is None else "stop"
    completion_tokens = len(ids) if stop is None else stop
    return Reply(text=text, finish=finish, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def _too_long(ids: Sequence[int], context: int) -> Reply:
    refusal = f"too long: {len(ids):,} tokens exceed the context of {context:,}"
    return Reply(text=None, refusal=refusal, prompt_tokens=len(ids))
