"""Measures the loss from new rows in the embedding and in the LM head separately, on SmolLM2 before any training.

    python scripts/experiments/input_or_output_rows.py --work /tmp/extend --added 8000

Output rows: the hidden states come from the old tokenization, so that the embedding loses nothing, and the new tokens are
predicted. Both: the whole text in the new tokenization, with fitted output rows. WORK is that of extend_or_not.py.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
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

from zhllama.model import row_init  # noqa: E402
from zhllama.model.growth_plan import GrowthPlan, plan_growth  # noqa: E402
from zhllama.model.load import load_base  # noqa: E402
from zhllama.model.row_init_distilled import align_tokenizations  # noqa: E402
from zhllama.model.row_init_fitted import fit_output_rows  # noqa: E402

EXCERPT, PASSAGES = 300, 24  # characters of each validation passage, and their number


class States:
    """Hidden states of the old tokenization at the ends of new tokens, and the next new tokens."""

    def __init__(self, model: Any, plan: GrowthPlan, texts: Sequence[str]) -> None:
        states, following = list[Tensor](), list[int]()
        for text in texts:
            snippet = align_tokenizations(plan.old, plan.new, text)
            hidden = last_hidden_states(model, input_ids=torch.tensor([snippet.old]))
            for before, place in snippet.positions:
                if place + 1 < len(snippet.new):
                    states.append(hidden[before])
                    following.append(snippet.new[place + 1])
        self.states, self.following = torch.stack(states), torch.tensor(following)
        self.characters = sum(map(len, texts))

    def bits(self, head: Tensor) -> float:
        """Bits per character of the next tokens under a complete LM head, without the first tokens."""
        parts = zip(self.states.split(2048), self.following.split(2048), strict=True)
        nats = sum(float(cross_entropy(s @ head.T, f, reduction="sum")) for s, f in parts)
        return nats / math.log(2) / self.characters


def last_hidden_states(model: Any, **inputs: Tensor) -> Tensor:
    """Last hidden states [ids, width] of one text."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states: Tensor = model.base_model(**inputs).last_hidden_state[0]
    return states.float()


def bits_per_character(
    model: Any, texts: Sequence[list[int]], embedding: Tensor, head: Tensor, characters: int
) -> float:
    """Bits per character of tokenized texts, without their first tokens."""
    nats = 0.0
    for ids in map(torch.tensor, texts):
        states = last_hidden_states(model, inputs_embeds=embedding[ids][None])
        nats += float(cross_entropy(states[:-1] @ head.T, ids[1:], reduction="sum"))
    return nats / math.log(2) / characters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--added", type=int, default=8000)
    args = parser.parse_args()
    texts = texts_of("smollm2", draw(args.data, args.work / "texts.json"))
    base = open_base("smollm2", args.work, args.data, texts)
    plan = plan_growth(base.folder / "base", base.tokenizer(args.added, texts))
    model = load_base(base.folder / "base", torch.float32).eval()
    old_rows = model.get_input_embeddings().weight.detach()
    validation = [text[:EXCERPT] for text in texts.validation_zh[:PASSAGES]]
    characters = sum(map(len, validation))

    def print_row(side: str, way: str, bits: float) -> None:
        print(f"| {side} | {way} | {bits:.3f} |", flush=True)

    print("| new rows | initialized by | bits/character |\n|---|---|---|")
    print_row(
        "none",
        "old vocabulary",
        bits_per_character(model, plan.old.encode(validation), old_rows, old_rows, characters),
    )
    mean = row_init.mean(plan.old_tokens).rows(old_rows)
    outputs = fit_output_rows(model, plan.old, plan.new, plan.old_tokens, texts.zh[:400])
    states = States(model, plan, validation)
    for way, rows in {"mean": mean, "fitted": outputs}.items():
        print_row("output", way, states.bits(torch.cat([old_rows, rows])))
    last = old_rows[[ids[-1] for ids in plan.old_tokens]]
    ways = {"mean": mean, "weighted": row_init.weighted_mean(plan.old_tokens, "input").rows(old_rows),
            "last old piece": last}  # fmt: skip
    new_ids, head = plan.new.encode(validation), torch.cat([old_rows, outputs])
    for way, rows in ways.items():
        print_row(
            "both",
            f"{way}; fitted",
            bits_per_character(model, new_ids, torch.cat([old_rows, rows]), head, characters),
        )


if __name__ == "__main__":
    main()
