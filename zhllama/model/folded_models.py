"""Models with published adapters, folded once into the user's cache, so that every command uses them as any other folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.extras import require
from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.model.chain import local_folder, model_files
from zhllama.model.export import Proof, write_generation_config
from zhllama.model.foreign_adapters import (
    FoldPlan,
    adapter_folder,
    fold,
    plan_fold,
    prove_fold,
    tokenizer_folder,
)
from zhllama.model.load import load_base
from zhllama.model.model_cache import made_once
from zhllama.notices import note
from zhllama.resources import shipped

TEXTS = (("zh_news.txt", 500), ("en_essay.txt", 600), ("code_python.txt", 200))  # characters of each
WORSE = 1.5  # times the base's bits per byte of English text: what no published adapter comes near, and a wrong base does
MADE = "fold.json"  # in a folded folder: what it was made of, and its bits per byte


@dataclass(frozen=True)
class Folded:
    """A proof that a folded model is PEFT's, and bits per byte of shipped English text under the base and under it."""

    proof: Proof
    before: float
    after: float

    @property
    def warning(self) -> str | None:
        """What to say where the adapters make English so much worse that they belong to another base."""
        if self.after <= WORSE * self.before:  # NaN must be told too
            return None
        return (
            f"the model has {self.after:.2f} bits per byte on English text and its base {self.before:.2f}: the adapters were "
            f"trained on another base, or are in another order"
        )


def proof_texts() -> list[str]:
    """The shipped texts on which an exported or folded model is compared: Chinese, English and code."""
    return [shipped("corpora", "sample", name).read_text(encoding="utf-8")[:n] for name, n in TEXTS]


def fold_and_prove(plan: FoldPlan, out: Path, stage: Callable[[str], None] = lambda name: None) -> Folded:
    """Write a folded model and compare it with PEFT's merge. Errors: BrokenPromise, OutputError."""
    texts = proof_texts()
    changed = fold(plan, out)
    write_generation_config(out)
    stage("comparing logits with PEFT")
    proof = prove_fold(plan, out, texts, changed)
    before, after = (_bits_per_byte(folder, texts[1]) for folder in (plan.base.folder, out))
    return Folded(proof, before, after)


def folded_folder(base: str | Path, adapters: Sequence[str | Path]) -> Path:
    """The folder, in the cache, of a base with adapters folded in, in this order; made and proved where it is not there.

    Errors: InputError for a base that is a run, and for what does not fit; BrokenPromise, OutputError.
    """
    require(str(base), "train")
    folder, folders = plain_folder(base), [adapter_folder(adapter) for adapter in adapters]
    files = [*model_files(folder), *(path for one in folders for path in adapter_files(one))]

    def make(part: Path) -> None:
        note(f"folding {', '.join(one.name for one in folders)} into {folder.name}, once, into {part.parent}")
        plan = plan_fold(folder, folders, tokenizer_folder(folder, folders))
        folded = fold_and_prove(plan, part)
        made = {
            "base": folder.name,
            "before": folded.before,
            "after": folded.after,
            "warning": folded.warning,
        }
        (part / MADE).write_text(to_json(made), encoding="utf-8")

    path = made_once("folded-models", folder.name, files, make)
    if warning := read_object(path / MADE).get("warning"):
        note(warning)
    return path


def with_adapters(model: str, adapters: Sequence[str | Path]) -> str:
    """The name of a model with adapters folded in; without any, the name itself."""
    return str(folded_folder(model, adapters)) if adapters else model


def recorded_adapters(model: str, adapters: Sequence[str | Path]) -> dict[str, Any]:
    """What config.yaml records of a model with adapters, by which a later command finds it again; empty without adapters."""
    if not adapters:
        return {}
    path = Path(model).expanduser()
    return {"model": str(path.resolve()) if path.exists() else model, "adapter": adapter_paths(adapters)}


def adapter_paths(adapters: Sequence[str | Path]) -> list[str]:
    """The adapters as a run records them: absolute paths, and hub names as they are."""
    located = [Path(one).expanduser() for one in adapters]
    return [str(one.resolve()) if one.is_dir() else str(one) for one in located]


def plain_folder(base: str | Path) -> Path:
    """The folder of a base that adapters are folded into. Errors: InputError for a run."""
    folder = local_folder(base)
    if not (folder / "config.json").is_file():
        raise InputError(
            folder,
            "is no plain model, into which adapters can be folded",
            "Export it first, and give the result",
        )
    return folder


def adapter_files(folder: Path) -> list[Path]:
    """The files of an adapter, for a manifest's inputs."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]


def _bits_per_byte(folder: Path, text: str) -> float:
    """Bits per byte of a text under a plain model."""
    from zhllama.evaluation.bits_per_byte import measure_bits
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    return float(measure_bits(load_base(folder).eval(), load_any_tokenizer(folder), text).per_byte)
