"""Writes the models at the end of finished curves of extend_or_not.py as plain folders, e.g. for eval --tasks.

python scripts/experiments/curve_models.py --work /tmp/extend --base smollm2 --only old --only 2000-mean-faster
zhllama eval /tmp/extend/smollm2/models/* --tasks zhllama_zh
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402 - after the path is set
from extend_or_not import FIRST  # noqa: E402
from extending.curve import Trained, load_checkpoint  # noqa: E402
from extending.texts import Texts, draw  # noqa: E402
from extending.variants import Base, Variant, open_base, texts_of  # noqa: E402

from zhllama.model.copy_files import copy_tokenizer  # noqa: E402
from zhllama.model.load import load_base  # noqa: E402


def write(base: Base, variant: Variant, texts: Texts, curve: Path, out: Path) -> None:
    """Write the model of a curve's checkpoint, with its tokenizer, into the folder `out`."""
    if variant.learn == "lora":
        raise SystemExit(f"{curve} has adapters, which this script does not merge")
    trained = base.start(variant, texts, rate=1e-9)
    if load_checkpoint(curve, trained) is None:
        raise SystemExit(f"{curve} has no checkpoint: train it with extend_or_not.py first")
    grown, _ = base.grown(variant, texts)
    plain = load_base(grown, torch.float32)
    copy_weights(trained, plain)
    plain.save_pretrained(out)
    copy_tokenizer(base.tokenizer(variant.added, texts), out)


@torch.no_grad()
def copy_weights(trained: Trained, plain: torch.nn.Module) -> None:
    """Copy all weights of a model in training into the same model as transformers builds it."""
    source = dict(trained.model.named_parameters())
    matrices = {
        id(plain.get_input_embeddings().weight): trained.model.get_input_embeddings().weight,
        id(plain.get_output_embeddings().weight): trained.model.get_output_embeddings().weight,
    }
    for name, parameter in plain.named_parameters():
        parameter.copy_(matrices[id(parameter)] if id(parameter) in matrices else source[name])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--base", choices=tuple(FIRST), default="small")
    parser.add_argument("--only", action="append", required=True, help="names of curves, e.g. old, 2000-mean")
    args = parser.parse_args()
    texts = texts_of(args.base, draw(args.data, args.work / "texts.json"))
    base = open_base(args.base, args.work, args.data, texts)
    for variant in FIRST[args.base]:
        curve = base.folder / "curves" / variant.name
        if variant.name in args.only:
            out = base.folder / "models" / variant.name
            write(base, variant, texts, curve, out)
            print(out, flush=True)


if __name__ == "__main__":
    main()
