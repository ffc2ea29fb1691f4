"""On which side do new rows lose? Bits per character of SmolLM2's with new rows on one side alone, before any training.

    python scripts/experiments/sides.py --work /tmp/extend --added 8000

Output rows: the hidden states are those of the old cut, so that nothing is lost on the way in, and the new tokens are what
comes next. Both: the whole text in the new cut, with fitted output rows. WORK is that of extend_or_not.py.
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
from zhllama.model.grow import GrowthPlan, plan_growth  # noqa: E402
from zhllama.model.load import load_base  # noqa: E402
from zhllama.model.row_init_distilled import align_tokenizations  # noqa: E402
from zhllama.model.row_init_fitted import fit_output_rows  # noqa: E402

EXCERPT, PASSAGES = 300, 24  # characters of each passage kept aside, and how many


class States:
    """Hidden states of the old cut where a new token ends, and the tokens that follow there."""

    def __init__(self, model: Any, todo: GrowthPlan, texts: Sequence[str]) -> None:
        states, following = list[Tensor](), list[int]()
        for text in texts:
            snippet = align_tokenizations(todo.old, todo.new, text)
            seen = body(model, input_ids=torch.tensor([snippet.old]))
            for before, place in snippet.positions:
                if place + 1 < len(snippet.new):
                    states.append(seen[before])
                    following.append(snippet.new[place + 1])
        self.states, self.following = torch.stack(states), torch.tensor(following)
        self.characters = sum(map(len, texts))

    def bits(self, head: Tensor) -> float:
        """Bits per character, first tokens left out, that a whole head spends on what follows."""
        parts = zip(self.states.split(2048), self.following.split(2048), strict=True)
        nats = sum(float(cross_entropy(s @ head.T, f, reduction="sum")) for s, f in parts)
        return nats / math.log(2) / self.characters


def body(model: Any, **given: Tensor) -> Tensor:
    """Last hidden states [ids, width] of one text."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states: Tensor = model.base_model(**given).last_hidden_state[0]
    return states.float()


def read(model: Any, texts: Sequence[list[int]], embedding: Tensor, head: Tensor, characters: int) -> float:
    """Bits per character of texts cut into ids, first ones left out."""
    nats = 0.0
    for ids in map(torch.tensor, texts):
        states = body(model, inputs_embeds=embedding[ids][None])
        nats += float(cross_entropy(states[:-1] @ head.T, ids[1:], reduction="sum"))
    return nats / math.log(2) / characters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--added", type=int, default=8000)
    given = parser.parse_args()
    texts = texts_of("smollm2", draw(given.data, given.work / "texts.json"))
    base = open_base("smollm2", given.work, given.data, texts)
    todo = plan_growth(base.folder / "base", base.tokenizer(given.added, texts))
    model = load_base(base.folder / "base", torch.float32).eval()
    old_rows = model.get_input_embeddings().weight.detach()
    aside = [text[:EXCERPT] for text in texts.aside_zh[:PASSAGES]]
    characters = sum(map(len, aside))

    def told(side: str, way: str, bits: float) -> None:
        print(f"| {side} | {way} | {bits:.3f} |", flush=True)

    print("| new rows | made by | bits/character |\n|---|---|---|")
    told("none", "old vocabulary", read(model, todo.old.encode(aside), old_rows, old_rows, characters))
    mean = row_init.mean(todo.old_tokens).rows(old_rows)
    outputs = fit_output_rows(model, todo.old, todo.new, todo.old_tokens, texts.zh[:400])
    held = States(model, todo, aside)
    for way, rows in {"mean": mean, "fitted": outputs}.items():
        told("output", way, held.bits(torch.cat([old_rows, rows])))
    last = old_rows[[cut[-1] for cut in todo.old_tokens]]
    ways = {"mean": mean, "weighted": row_init.weighted_mean(todo.old_tokens, "input").rows(old_rows),
            "last old piece": last}  # fmt: skip
    cut, head = todo.new.encode(aside), torch.cat([old_rows, outputs])
    for way, rows in ways.items():
        told("both", f"{way}; fitted", read(model, cut, torch.cat([old_rows, rows]), head, characters))


if __name__ == "__main__":
    main()
