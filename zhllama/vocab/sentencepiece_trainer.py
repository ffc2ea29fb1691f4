"""Runs SentencePiece's trainer in a child process, with its log in a file, progress, and Ctrl-C."""

import multiprocessing
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto

from zhllama.errors import InputError
from zhllama.signals import deferred_signals
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

Progress = Callable[[float], None]  # receives the finished share, 0 to 1

# Fixed, because the sums of unigram training depend on the number of threads.
THREADS = 2


def train_sentencepiece(
    lines: Iterable[str],
    options: Mapping[str, Any],
    log: Path | None = None,
    progress: Progress | None = None,
) -> SentencePieceVocabulary:
    """Train on `lines` (with `input_format=tsv`: word, tab, count), without local paths in the trained model.

    Errors: InputError where there is too little text for the size.
    """
    with tempfile.TemporaryDirectory(prefix="zhllama-") as folder:
        source, prefix = Path(folder, "input"), Path(folder, "model")
        with source.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        log = log or Path(folder, "log")
        spawn = multiprocessing.get_context("spawn")
        child = spawn.Process(
            target=_train, args=(dict(options), str(source), str(prefix), str(log)), daemon=True
        )
        try:
            resource_tracker.ensure_running()  # it unblocks signals when it starts with the first process
            with deferred_signals():
                child.start()
            while child.is_alive():
                child.join(0.2)
                if progress is not None:
                    progress(_share_done(log, options["vocab_size"]))
        finally:
            if child.pid is not None:
                child.kill()
                child.join()
        if child.exitcode != 0:
            raise _failure(log, options["vocab_size"])
        message = proto.ModelProto.FromString(prefix.with_suffix(".model").read_bytes())
    message.trainer_spec.ClearField("input")
    message.trainer_spec.ClearField("model_prefix")
    return SentencePieceVocabulary(message.SerializeToString())


def _train(options: dict[str, Any], source: str, prefix: str, log: str) -> None:
    with Path(log).open("wb") as file:
        os.dup2(file.fileno(), 2)
    from sentencepiece import SentencePieceTrainer

    try:
        SentencePieceTrainer.train(input=source, model_prefix=prefix, num_threads=THREADS, **options)
    except Exception as error:
        os.write(2, f"\nerror: {error}\n".encode())
        os._exit(1)


def _share_done(log: Path, size: int) -> float:
    """The finished share, from the vocabulary size in SentencePiece's log: it grows in BPE and shrinks in unigram training."""
    tail = log.read_bytes()[-4000:].decode("utf-8", "replace") if log.exists() else ""
    grown = re.findall(r"Added: .*\bsize=(\d+)", tail)
    if grown:
        return min(1.0, int(grown[-1]) / size)
    shrunk = re.findall(r"EM sub_iter=\d+ size=(\d+)", tail)
    return min(1.0, size / int(shrunk[-1])) if shrunk else 0.0


def _failure(log: Path, size: int) -> InputError:
    if not log.exists():  # a new process imports the main module, which then begins the work again
        return InputError(
            "the trainer of SentencePiece",
            "did not start in its own process",
            'In a script of your own, call zhllama below `if __name__ == "__main__":`',
        )
    content = log.read_text(encoding="utf-8", errors="replace")
    fewer = re.search(r"Vocabulary size (?:is )?too high.*?<= ?(\d+)", content, re.DOTALL)
    if fewer:
        return InputError(
            "the text",
            f"is too little for {size:,} pieces: it yields {int(fewer[1]):,}",
            "Give more text, or a smaller `size`",
        )
    if re.search(r"Vocabulary size is smaller than required_chars|smaller than required", content):
        return InputError(
            "`size`",
            f"{size:,} pieces are too few for the single characters asked for",
            "Raise `size`, or ask for less `cover` or `character_coverage`",
        )
    last = " ".join((content.strip().splitlines() or ["it was killed"])[-1].split())
    return InputError("the trainer of SentencePiece", f"failed ({last[:200]})", "Give less text at once")
