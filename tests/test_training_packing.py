"""Packing: no document is lost or visible to another, few positions are wasted, and memory is bounded."""

import json
import random
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model_toys import base_vocabulary, larger_vocabulary, line, write_tokenizer
from zhllama.errors import InputError, OptionError
from zhllama.io.cache import cache_folder
from zhllama.io.text import read_documents
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.mixture import (
    Mixture,
    WeightedSource,
    cached_blocks,
    frequent_ids,
    stream,
)
from zhllama.training.packed_blocks import PackedBlocks, example
from zhllama.training.packing import best_fit, best_fit_decreasing, concatenate

documents = st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=40), min_size=1, max_size=30)


@given(documents, st.integers(8, 20), st.integers(10, 200))
@settings(max_examples=60, deadline=None)
def test_concatenation_cuts_one_stream(texts: list[list[int]], size: int, window_size: int) -> None:
    packed = list(concatenate(texts, size, window_size))
    flat = [id for document in texts for id in document]
    ids = [id for window in packed for id in window.ids.ravel().tolist()]
    assert ids == flat[: len(flat) // size * size]
    begins = {sum(map(len, texts[:k])) for k in range(len(texts))}
    blocks, starts = 0, set()
    for window in packed:
        starts |= {(int(b) + blocks) * size + int(p) for b, p in window.starts}
        blocks += len(window.ids)
    assert starts == {b for b in begins if b < len(ids)} | set(range(0, len(ids), size))


@given(documents, st.integers(8, 20), st.integers(10, 200))
@settings(max_examples=60, deadline=None)
def test_best_fit_keeps_every_document_whole(texts: list[list[int]], size: int, window_size: int) -> None:
    pieces = [d[at : at + size] for d in texts for at in range(0, len(d), size)]
    result = []
    for window in best_fit(texts, size, filler=2, window=window_size):
        for block, used in enumerate(window.used):
            starts = window.starts[window.starts[:, 0] == block, 1].tolist()
            ends = [*starts[1:], size]
            assert starts[0] == 0 and (used == size or used in starts)
            result += [window.ids[block, a:b].tolist() for a, b in zip(starts, ends, strict=True) if a < used]
            assert (window.ids[block, used:] == 2).all()
    assert sorted(result) == sorted(pieces)


@given(st.lists(st.integers(1, 32), max_size=60))
def test_best_fit_decreasing_fills_the_fullest_bin_with_room(lengths: list[int]) -> None:
    """Compared with the definition, bin by bin."""
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rooms = [32 - sum(lengths[i] for i in members) for members in bins]
        fitting = [room for room in rooms if room >= lengths[item]]
        if not fitting:
            bins.append([item])
        else:
            candidates = [k for k, room in enumerate(rooms) if room == min(fitting)]
            ours = next(m for m in best_fit_decreasing(lengths, 32) if item in m)
            bins[next((k for k in candidates if bins[k][0] in ours), candidates[-1])].append(item)
    assert len(bins) == len(best_fit_decreasing(lengths, 32))


def test_best_fit_uses_at_least_98_percent() -> None:
    rng = random.Random(0)
    texts = [[5] * min(int(rng.lognormvariate(4.5, 0.8)) + 3, 900) for _ in range(4000)]
    packed = list(best_fit(texts, 512, 2))
    used = sum(int(some.used.sum()) for some in packed)
    assert used / sum(some.ids.size for some in packed) >= 0.98


def test_best_fit_of_real_text_uses_98_percent(data: Path) -> None:
    texts = list(islice(read_documents([data / "text" / "zh_tech_lctt.txt.xz"]), 1500))
    tokens = DocumentTokenizer.open(data / "llama" / "llama.model")
    packed = list(best_fit(tokens.documents(texts), 512, tokens.end))
    assert sum(int(some.used.sum()) for some in packed) / sum(some.ids.size for some in packed) >= 0.98


def test_an_example_restarts_positions_and_masks_first_tokens_and_filler() -> None:
    row = example(np.arange(10, 18), np.array([0, 3, 4]), used=6)
    assert row["position_ids"].tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert row["labels"].tolist() == [-100, 11, 12, -100, -100, 15, -100, -100]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path / "tokenizer")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    paragraphs = [f"我们今天在中国研究人工智能的历史，第{n}次。" * (1 + n % 5) for n in range(400)]
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    return path


def test_pack_on_the_command_line(tmp_path: Path, tokenizer: Path, text: Path) -> None:
    for fit, filled in (("concatenate", 1.0), ("best-fit", 0.85)):  # five lengths alone
        arguments = ("--text", text, "--tokenizer", tokenizer, "--block-size", 128, "--fit", fit, "--json")
        result = line(tmp_path, "pack", *arguments, "--out", tmp_path / fit)
        figures = json.loads(result.out)
        assert figures["filled"] >= filled and figures["documents"] == 400
        blocks = PackedBlocks.open(tmp_path / fit / "blocks")
        assert len(blocks) == figures["blocks"] and isinstance(blocks.ids, np.memmap)
        tokens = DocumentTokenizer.open(tokenizer)
        first = blocks[0]["input_ids"]
        assert first[0] == tokens.begin and tokens.end in first


def test_blocks_decode_to_the_documents(tmp_path: Path, tokenizer: Path, text: Path) -> None:
    line(
        tmp_path,
        "pack",
        "--text",
        text,
        "--tokenizer",
        tokenizer,
        "--block-size",
        512,
        "--fit",
        "best-fit",
        "--out",
        "p",
    )
    blocks, tokens = PackedBlocks.open(tmp_path / "p" / "blocks"), DocumentTokenizer.open(tokenizer)
    texts = []
    for block in range(len(blocks)):
        row = blocks[block]
        starts = np.flatnonzero(row["position_ids"] == 0).tolist()
        for low, high in zip(starts, [*starts[1:], 512], strict=True):
            ids = row["input_ids"][low:high].tolist()
            if ids[0] == tokens.begin:
                assert ids[-1] == tokens.end
                texts.append(larger_vocabulary().processor.decode(ids[1:-1]))
    assert sorted(texts) == sorted(text.read_text(encoding="utf-8").split("\n\n"))


def test_the_cache_key_is_content_not_name(tmp_path: Path, tokenizer: Path, text: Path) -> None:
    tokens, cache = DocumentTokenizer.open(tokenizer), tmp_path / "cache"
    blocks = cached_blocks(WeightedSource.parse(f"zh={text}"), tokens, 64, cache)
    renamed = text.rename(tmp_path / "other.txt")
    assert cached_blocks(WeightedSource.parse(f"zh={renamed}"), tokens, 64, cache).folder == blocks.folder
    other = DocumentTokenizer.open(write_tokenizer(base_vocabulary(), tmp_path / "base"))
    assert cached_blocks(WeightedSource.parse(f"zh={renamed}"), other, 64, cache).folder != blocks.folder
    assert cached_blocks(WeightedSource.parse(f"zh={renamed}"), tokens, 32, cache).folder != blocks.folder
    renamed.write_text(renamed.read_text(encoding="utf-8") + "新", encoding="utf-8")
    assert cached_blocks(WeightedSource.parse(f"zh={renamed}"), tokens, 64, cache).folder != blocks.folder
    assert len(list(cache.iterdir())) == 4


def test_every_hundredth_document_goes_to_the_validation_split(
    tmp_path: Path, tokenizer: Path, text: Path
) -> None:
    blocks = cached_blocks(
        WeightedSource.parse(f"zh={text}"), DocumentTokenizer.open(tokenizer), 64, tmp_path
    )
    all_of_them = text.read_text(encoding="utf-8").split("\n\n")
    assert blocks.validation() == all_of_them[99::100] and blocks.meta.documents == 396


def test_a_mixture_keeps_its_weights_and_its_order(tmp_path: Path, tokenizer: Path, text: Path) -> None:
    tokens = DocumentTokenizer.open(tokenizer)
    zh = cached_blocks(WeightedSource.parse(f"zh={text}"), tokens, 64, tmp_path / "cache")
    english = tmp_path / "en.txt"
    english.write_text(
        "\n\n".join(f"The river is long, and this is number {n}." for n in range(300)), encoding="utf-8"
    )
    en = cached_blocks(WeightedSource.parse(f"en={english}"), tokens, 64, tmp_path / "cache")
    mixture = Mixture([zh, en], [9, 1], 2000, seed=3)
    again = Mixture([zh, en], [9, 1], 2000, seed=3)
    picked = [tuple(mixture[n]["input_ids"]) for n in range(2000)]
    assert [tuple(again[n]["input_ids"]) for n in reversed(range(2000))] == picked[::-1]
    theirs = {tuple(en[n]["input_ids"]) for n in range(len(en))}
    assert 0.08 < sum(p in theirs for p in picked) / 2000 < 0.12
    ours = [p for p in picked if p not in theirs]
    assert len(set(ours[: len(zh)])) == len(
        {tuple(zh[n]["input_ids"]) for n in range(len(zh))}
    )  # each once an epoch
    assert [tuple(Mixture([zh, en], [9, 1], 9, 4)[n]["input_ids"]) for n in range(9)] != picked[:9]


def test_a_stream_gives_the_same_blocks_without_a_cache(tokenizer: Path, text: Path) -> None:
    """Each block occurs once an epoch, in an order that depends on the seed and differs between epochs."""
    tokens, source = DocumentTokenizer.open(tokenizer), WeightedSource.parse(f"zh={text}")
    everything = np.concatenate(list(tokens.documents(text.read_text(encoding="utf-8").split("\n\n"))))
    count = len(everything) // 64
    cut = [tuple(everything[at * 64 : at * 64 + 64]) for at in range(count)]

    def drawn(seed: int, buffer: int = 50) -> list[tuple[int, ...]]:
        flow = stream([source], tokens, 64, seed=seed, window=5000, buffer=buffer)
        return [tuple(next(flow)["input_ids"]) for _ in range(2 * count)]

    both = drawn(0)
    first, second = both[:count], both[count:]
    assert Counter(first) == Counter(second) == Counter(cut)
    assert first != cut and first != second and drawn(0) == both and drawn(1) != both
    assert drawn(0, buffer=10 * count)[:count] != first, "a larger buffer mixes more"
    # No block is drawn earlier than by the size of the buffer, so the stream is not read further ahead.
    places = {block: place for place, block in enumerate(cut)}
    assert len(places) == count and max(places[block] - at for at, block in enumerate(first)) < 50


def test_files_of_a_stream_are_shuffled(tmp_path: Path, tokenizer: Path) -> None:
    for name, word in (("a", "上海"), ("b", "中国"), ("c", "历史"), ("d", "经济")):
        (tmp_path / f"{name}.txt").write_text(word * 400, encoding="utf-8")
    tokens, source = DocumentTokenizer.open(tokenizer), WeightedSource.parse(f"zh={tmp_path}/?.txt")
    begins = set()
    for seed in range(8):
        flow = stream([source], tokens, 64, seed=seed, buffer=1)
        begins.add(tuple(next(flow)["input_ids"][5:20]))
    assert len(begins) > 2


def test_frequent_ids_cover_their_share(tmp_path: Path, tokenizer: Path, text: Path) -> None:
    blocks = cached_blocks(
        WeightedSource.parse(f"zh={text}"), DocumentTokenizer.open(tokenizer), 64, tmp_path
    )
    counts = np.bincount(blocks.ids.ravel(), minlength=600)[:600]
    ids = frequent_ids([blocks], 600)
    assert ids == sorted(ids) and counts[ids].sum() >= 0.95 * counts.sum()
    assert counts[[i for i in range(600) if i not in ids]].max() <= counts[ids].min()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("text.txt", "is not LABEL=PATH"),
        ("zh=", "is not LABEL=PATH"),
        ("zh=text.txt:-1", "is not above zero"),
    ],
)
def test_invalid_sources_are_refused(text: str, wanted: str) -> None:
    with pytest.raises(OptionError, match=wanted):
        WeightedSource.parse(text)


def test_text_shorter_than_a_block(tmp_path: Path, tokenizer: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("中国", encoding="utf-8")
    with pytest.raises(InputError, match="does not fill one block of 512 tokens"):
        cached_blocks(WeightedSource.parse(f"zh={short}"), DocumentTokenizer.open(tokenizer), 512, tmp_path)
    assert not list(tmp_path.glob(".*part"))
    result = line(tmp_path, "pack", "--text", short, "--tokenizer", tokenizer, "--out", "p")
    assert result.code == 1 and "does not fill one block" in result.err and not (tmp_path / "p").exists()


def test_a_truncated_cache_is_reported(tmp_path: Path, tokenizer: Path, text: Path) -> None:
    blocks = cached_blocks(
        WeightedSource.parse(f"zh={text}"), DocumentTokenizer.open(tokenizer), 64, tmp_path
    )
    (blocks.folder / "ids.bin").write_bytes(b"12")
    with pytest.raises(InputError, match="and pack the text again"):
        cached_blocks(WeightedSource.parse(f"zh={text}"), DocumentTokenizer.open(tokenizer), 64, tmp_path)


def test_the_end_of_text_is_read_from_special_tokens_map(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"<end>": 0, "好": 1}, unk_token="<end>")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="names no end of text"):
        DocumentTokenizer.open(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "<end>"}}), encoding="utf-8"
    )
    assert DocumentTokenizer.open(tmp_path).end == 0
    (tmp_path / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="is not a JSON object"):
        DocumentTokenizer.open(tmp_path)


def test_the_cache_without_a_writable_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZHLLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("blocks") == tmp_path / ".cache" / "zhllama" / "blocks"
    monkeypatch.setenv("HOME", "/proc/nowhere")
    found = cache_folder("blocks")
    assert found.is_dir() and found.is_relative_to(tempfile.gettempdir()) and found == cache_folder("blocks")
    monkeypatch.setenv("ZHLLAMA_CACHE", "/proc/named")
    assert cache_folder("blocks") == Path("/proc/named/blocks"), "an error names what the user named"
