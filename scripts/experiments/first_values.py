"""Measures what each initialization of new rows costs before any training, in the LM head alone and in both matrices.

    python scripts/experiments/first_values.py --work /tmp/extend --base smollm2 --added 2000 --added 8000

Head alone: the hidden states come from the old tokenization, so that the embedding loses nothing, and the new tokens are
predicted from them. Both (`--both`): the whole text in the new tokenization. WORK is that of extend_or_not.py. Every row is added
to WORK/BASE/first_values.json when it is measured, and the same command goes on where it stopped.

A seed chooses the text from which shares are counted; the validation text is the same for all.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402 - after the path is set
from extending.texts import draw  # noqa: E402
from extending.variants import open_base, texts_of  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from zhllama.io.files import to_json, write_whole  # noqa: E402
from zhllama.io.text import read_documents  # noqa: E402
from zhllama.model import row_init  # noqa: E402
from zhllama.model.growth_plan import GrowthPlan, plan_growth  # noqa: E402
from zhllama.model.head_fit import fit_changes, options_of  # noqa: E402
from zhllama.model.load import load_base  # noqa: E402
from zhllama.model.row_init_fitted import hidden_states, log_shares, solve_direction  # noqa: E402
from zhllama.model.row_init_shared import ENGLISH_IDS, STATES, English, share_head  # noqa: E402
from zhllama.model.row_init_shared import log_shares as shared_shares  # noqa: E402
from zhllama.resources import sample_files  # noqa: E402
from zhllama.vocab.any_tokenizer import AnyTokenizer  # noqa: E402

VALIDATION = {"zh": 8000, "en": 4000}  # old ids
SHARE_PASSAGES = 1500  # 0.9 million characters
EXCERPT, PASSAGES = 300, 24  # characters of each validation passage, and their number, for both matrices
WAYS = ("mean", "weighted", "fitted", "shared", "shared --fit", "shared --keep-old-rows")
Head = tuple[Tensor, list[int], Tensor]  # new rows, ids of old rows that change, and their values


@dataclass(frozen=True)
class Text:
    """Ids in the old tokenization and their hidden states [ids, width], by passage."""

    passages: list[tuple[list[int], Tensor]]

    def bits(self, plan: GrowthPlan, matrix: Tensor, head: Head | None) -> dict[str, float]:
        """Bits per character and per byte of the new tokens, or of the old ones without a head."""
        nats, size, characters = 0.0, 0, 0
        for ids, states in self.passages:
            known, following = [*range(len(ids) - 1)], ids[1:]
            if head is not None:
                known, following = _boundaries(plan, ids)
            content = b"".join(plan.old.surface(id) for id in ids[1:])
            size, characters = size + len(content), characters + len(content.decode(errors="ignore"))
            nats += _nats(states[known], torch.tensor(following), matrix, head)
        return {"per_character": nats / math.log(2) / characters, "per_byte": nats / math.log(2) / size}


def _boundaries(plan: GrowthPlan, ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """The positions of old ids at which a new token ends, and the new token that follows each."""
    ends, end = {}, 0
    for place, id in enumerate(ids):
        end += len(plan.old.surface(id))
        ends[end] = place
    content = b"".join(map(plan.old.surface, ids))
    new_ids = plan.new.encode([content.decode(errors="ignore")])[0]
    known, following, end = [], [], 0
    for id, after in pairwise(new_ids):
        end += len(plan.new.surface(id))
        if end in ends:
            known.append(ends[end])
            following.append(after)
    return known, following


def _nats(states: Tensor, targets: Tensor, matrix: Tensor, head: Head | None) -> float:
    logits = states @ matrix.T
    if head is not None:
        rows, changed, values = head
        if changed:
            logits[:, changed] = states @ values.T
        logits = torch.cat([logits, states @ rows.T], 1)
    return float(cross_entropy(logits, targets, reduction="sum"))


def cached_states(path: Path, model: Any, old: AnyTokenizer, texts: Any) -> dict[str, Any]:
    """All hidden states of the old tokenization, computed once."""
    if not path.is_file():
        english = list(read_documents(sample_files("en")))
        some = {
            "zh": (texts.zh, STATES), "en": (english, ENGLISH_IDS),
            "validation_zh": (texts.validation_zh, VALIDATION["zh"]), "validation_en": (texts.validation_en, VALIDATION["en"]),
        }  # fmt: skip
        torch.save({name: list(hidden_states(model, old, *one)) for name, one in some.items()}, path)
    states: dict[str, Any] = torch.load(path, weights_only=True)
    return states


def heads(
    plan: GrowthPlan, matrix: Tensor, states: dict[str, Any], shares: list[str]
) -> dict[str, Callable[[], Head]]:
    """The head of each way of initialization."""
    parts = [hidden[:-1] for _, hidden in states["en"]]
    targets = torch.tensor([id for ids, _ in states["en"] for id in ids[1:]])
    english = English(torch.cat(parts), targets, sum(len(plan.old.surface(int(id))) for id in targets))
    chinese = torch.cat([hidden for _, hidden in states["zh"]])
    firsts = [tokens[0] if tokens else -1 for tokens in plan.old_tokens]

    def fitted() -> Head:
        along = torch.from_numpy(log_shares(plan.new, firsts, shares)).float()[:, None] * solve_direction(
            [chinese]
        )
        return matrix[torch.tensor(firsts).clamp(min=0)] + along, [], torch.zeros(0)

    def shared(keep: bool, fit: bool = False) -> Head:
        counted = shared_shares(plan.new, firsts, shares)
        direction = solve_direction([chinese, english.states])
        changes = None
        if fit:
            options = options_of(counted.leads.tolist(), plan.old_tokens)
            changes = fit_changes(matrix, direction, options, counted.new, counted.own, states["zh"])
        found = share_head(matrix, counted, direction, english, keep, changes)
        return found.rows, found.changed, found.changed_rows

    def combined(combination: row_init.RowCombination) -> Head:
        return combination.rows(matrix), [], torch.zeros(0)

    return {
        "mean": lambda: combined(row_init.mean(plan.old_tokens)),
        "weighted": lambda: combined(row_init.weighted_mean(plan.old_tokens, "output")),
        "fitted": fitted,
        "shared": lambda: shared(False),
        "shared --fit": lambda: shared(False, True),
        "shared --keep-old-rows": lambda: shared(True),
    }


def head_alone(
    chinese: Text, english: Text, plan: GrowthPlan, matrix: Tensor, head: Head | None
) -> dict[str, float]:
    """Chinese bits per character and English bits per byte of the old states."""
    zh, en = (text.bits(plan, matrix, head) for text in (chinese, english))
    return {"zh": zh["per_character"], "en": en["per_byte"]}


def both(
    model: Any, plan: GrowthPlan, matrices: tuple[Tensor, Tensor], head: Head, texts: Sequence[str]
) -> dict[str, float]:
    """Bits per character of the new tokenization with means in the embedding, without the first tokens."""
    embedding = torch.cat([matrices[0], row_init.mean(plan.old_tokens).rows(matrices[0])])
    nats = 0.0
    for ids in map(torch.tensor, plan.new.encode(list(texts))):
        with torch.no_grad():
            states = model.base_model(inputs_embeds=embedding[ids][None]).last_hidden_state[0].float()
        nats += _nats(states[:-1], ids[1:], matrices[1], head)
    return {"zh": nats / math.log(2) / sum(map(len, texts))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--base", choices=("small", "half", "smollm2"), default="smollm2")
    parser.add_argument("--added", type=int, action="append")
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--both", action="store_true", help="also measure both matrices, which takes longer")
    args = parser.parse_args()
    texts = texts_of(args.base, draw(args.data, args.work / "texts.json"))
    base = open_base(args.base, args.work, args.data, texts)
    path = base.folder / "first_values.json"
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    model = load_base(base.folder / "base", torch.float32).eval()
    embedding, matrix = (
        m.weight.detach() for m in (model.get_input_embeddings(), model.get_output_embeddings())
    )

    def note(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        if name not in measured:
            begun = time.process_time()
            measured[name] = {**measure(), "cpu_seconds": round(time.process_time() - begun, 1)}
            write_whole(path, to_json(measured))
            print(name, measured[name], flush=True)

    excerpts = [text[:EXCERPT] for text in texts.validation_zh[:PASSAGES]]
    for added in args.added or [2000, 8000]:
        plan = plan_growth(base.folder / "base", base.tokenizer(added, texts))
        states = cached_states(base.folder / "states.pt", model, plan.old, texts)
        alone = partial(
            head_alone, Text(states["validation_zh"]), Text(states["validation_en"]), plan, matrix
        )
        note("old", partial(alone, None))
        for seed in range(args.seeds):
            begin = seed * SHARE_PASSAGES
            ways = heads(plan, matrix, states, texts.zh[begin : begin + SHARE_PASSAGES])
            for way in args.way or WAYS:
                name = f"{added} {way} seed {seed}"
                if (name in measured and not args.both) or (seed and way in ("mean", "weighted")):
                    continue
                found = ways[way]()
                note(name, partial(alone, found))
                if args.both:
                    note(f"{name} both", partial(both, model, plan, (embedding, matrix), found, excerpts))


if __name__ == "__main__":
    main()
