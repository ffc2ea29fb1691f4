"""Questions answered: by a model here in batches, or by one behind a server; every answer journalled as it comes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.evaluation.judging import ROUND
from zhllama.evaluation.questions import Question
from zhllama.generation.methods import Sampling
from zhllama.llm.journal import Journal, JournalRecord, Reply, Request

if TYPE_CHECKING:
    from zhllama.inference.transformers_chat_model import TransformersChatModel


@dataclass
class Answering:
    """The questions as requests, and what came back; questions == answered + refused + missing."""

    questions: Sequence[Question]
    sampling: Sampling
    watch: Callable[[], object] = lambda: None
    replies: dict[str, Reply] = field(default_factory=dict, init=False)

    def request(self, number: int) -> Request:
        """The request for one question; the same in every start, so that the journal finds it again."""
        question = self.questions[number]
        about = {"id": question.id}
        return Request(*divmod(number, ROUND), "answer", question.text, about, self.sampling)

    def requests(self, round: int) -> list[Request]:
        last = min(len(self.questions), (round + 1) * ROUND)
        return [self.request(number) for number in range(round * ROUND, last)]

    def fold(self, record: JournalRecord) -> None:
        self.replies[record.about["id"]] = record.reply
        self.watch()

    def rows(self, model: str) -> Iterator[dict[str, Any]]:
        """The answered questions with their answers, in the order of the questions."""
        for question in self.questions:
            reply = self.replies.get(question.id)
            if reply is not None and reply.text is not None:
                said = {"answer": reply.text, "finish": reply.finish, "model": reply.model or model}
                yield {**question.row(), **said}

    def refused(self) -> list[dict[str, str]]:
        """Questions that got no answer, each with its reason."""
        replies = ((question.id, self.replies.get(question.id)) for question in self.questions)
        return [{"id": id, "reason": r.refusal} for id, r in replies if r is not None and r.text is None]

    def figures(self) -> dict[str, int]:
        """The accounts, and how many answers were cut off at the limit of tokens."""
        refused = len(self.refused())
        cut = sum(reply.finish == "length" for reply in self.replies.values())
        return {
            "questions": len(self.questions),
            "answered": len(self.replies) - refused,
            "refused": refused,
            "missing": len(self.questions) - len(self.replies),
            "cut_off": cut,
        }


def answer_here(
    answering: Answering, journal: Journal, speaker: "TransformersChatModel", at_once: int, system: str = ""
) -> None:
    """Answer all questions that the journal lacks, the longest first, `at_once` in a batch.

    Batches hold the same questions in every start and one that was cut short is made whole again, so that a resumed run
    gives the answers of one that was never stopped. Errors: InputError for a journal of other questions.
    """
    prompts = [_prompt_ids(speaker, question.text, system) for question in answering.questions]
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    for start in range(0, len(order), at_once):
        batch = order[start : start + at_once]
        requests = [answering.request(number) for number in batch]
        records = [_known(journal, request) for request in requests]
        if not all(records):
            replies = generate(
                speaker, [prompts[number] for number in batch], answering.sampling, seed=batch[0]
            )
            records = [
                record or journal.append(request, reply)
                for record, request, reply in zip(records, requests, replies, strict=True)
            ]
        for record in records:
            assert record is not None
            answering.fold(record)


def _known(journal: Journal, request: Request) -> JournalRecord | None:
    record = journal.get(request.key)
    if record is not None and record.print != request.print:
        told = f"answers another question than {request.about['id']!r} asks now"
        raise InputError(journal.path, told, "Put the questions back, or start over with --force")
    return record


def _prompt_ids(speaker: "TransformersChatModel", text: str, system: str) -> list[int]:
    from zhllama.conversation.records import Turn

    turns = [*([Turn("system", system)] if system else []), Turn("user", text)]
    rendered = speaker.template.render(speaker.tokenizer, turns, opened=True)
    ids: list[int] = speaker.tokenizer(rendered, add_special_tokens=False).input_ids
    return ids


def generate(
    speaker: "TransformersChatModel", prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int
) -> list[Reply]:
    """One batch, padded on the left; a prompt that leaves no room for an answer is refused."""
    import torch

    from zhllama.inference.transformers_chat_model import end_ids_of_answer

    fit = [ids for ids in prompts if len(ids) < speaker.context]
    if not fit:
        return [_too_long(ids, speaker.context) for ids in prompts]
    longest = max(map(len, fit))
    model, tokenizer = speaker.model, speaker.tokenizer
    ends = end_ids_of_answer(model.generation_config.eos_token_id, tokenizer, speaker.template)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in fit], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in fit], device=model.device)
    sample = sampling["temperature"] > 0
    torch.manual_seed(seed)
    with torch.inference_mode():
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(sampling["max_tokens"], speaker.context - longest),
            do_sample=sample,
            temperature=sampling["temperature"] if sample else None,
            top_p=sampling["top_p"] if sample else None,
            top_k=0 if sample else None,
            eos_token_id=ends,
            pad_token_id=pad,
        )
    said = iter(made[:, longest:].tolist())
    return [
        _reply(tokenizer, next(said), ends, len(ids))
        if len(ids) < speaker.context
        else _too_long(ids, speaker.context)
        for ids in prompts
    ]


def _reply(tokenizer: Any, ids: list[int], ends: Sequence[int], asked: int) -> Reply:
    stop = next((place for place, id in enumerate(ids) if id in ends), None)
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
    finish = "length" if stop is None else "stop"
    return Reply(
        text=text, finish=finish, prompt_tokens=asked, completion_tokens=len(ids) if stop is None else stop
    )


def _too_long(ids: Sequence[int], context: int) -> Reply:
    told = f"too long: {len(ids):,} tokens, and the model sees {context:,}"
    return Reply(text=None, refusal=told, prompt_tokens=len(ids))
