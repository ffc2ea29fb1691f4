"""Files that are random, cut off, or wrong in a bit or a value: each is read, or refused in one line; nothing else happens."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model_toys import base_vocabulary, write_model
from zhllama.commands.recipes import read_recipe
from zhllama.corpus.sources import read_source
from zhllama.errors import InputError, ZhllamaError
from zhllama.io.yaml import read_yaml
from zhllama.lineage import lineage
from zhllama.manifest import changed_inputs, read_manifest
from zhllama.model.chain import resolve_chain
from zhllama.model.growth_plan import plan_growth as plan_growth
from zhllama.model.load import load_transformers_tokenizer
from zhllama.model.weight_files import read_weights
from zhllama.run import Run
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import load_any_tokenizer

EXAMPLES = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip
MANY = settings(EXAMPLES, max_examples=10_000, derandomize=False)
HOSTILE = (
    None,
    True,
    -1,
    0,
    1 << 70,
    1e308,
    "",
    "\x00",
    "../../etc/passwd",
    "<s>",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model with its tokenizer, as .model, tokenizer.json and GGUF."""
    import gguf

    folder = write_model(tmp_path_factory.mktemp("good") / "model")
    kinds = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
    pieces = base_vocabulary().pieces
    writer = gguf.GGUFWriter(folder.parent / "t.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.text for p in pieces])
    writer.add_token_scores([p.score for p in pieces])
    writer.add_token_types([kinds[p.kind] for p in pieces])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return folder


def spoiled(good: bytes, seed: int) -> bytes:
    """Random bytes, a part, or the file with some bits and bytes changed, most of them near its beginning."""
    chance = random.Random(seed)
    way = chance.random()
    if way < 0.1:
        return chance.randbytes(chance.randrange(4000))
    if way < 0.25:
        return good[: chance.randrange(len(good))]
    made = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        at = chance.randrange(min(len(made), 400) if chance.random() < 0.5 else len(made))
        made[at] = made[at] ^ 1 << chance.randrange(8) if chance.random() < 0.6 else chance.randrange(256)
    return bytes(made)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, held in list(entries):
        yield value, key
        yield from places(held)


def replaced(good: Any, seed: int) -> Any:
    """A JSON value with one to three of its parts replaced by something hostile, or taken out."""
    chance = random.Random(seed)
    made = copy.deepcopy(good)
    for _ in range(chance.randrange(1, 4)):
        found = list(places(made))
        if not found:
            return made
        container, key = chance.choice(found[:40] if chance.random() < 0.5 else found)
        if isinstance(container, dict) and chance.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(chance.choice(HOSTILE))
    return made


def read_or_refused(read: Callable[[], object]) -> None:
    """An error of ours is one line; any other is a fault of this project."""
    try:
        read()
    except ZhllamaError as error:
        assert len(" ".join(str(error).split())) < 500, error


def use_tokenizer(path: Path) -> None:
    tokenizer = load_any_tokenizer(path)
    tokenizer.encode(["人工智能 hello", "😀"])
    tokenizer.decode([1, 5, tokenizer.size - 1])
    for id in range(0, tokenizer.size, 37):
        tokenizer.surface(id)


READERS: dict[str, Callable[[Path], object]] = {
    "tokenizer.model": use_tokenizer,
    "tokenizer.json": use_tokenizer,
    "t.gguf": use_tokenizer,
    "model.safetensors": lambda path: read_weights(path.parent),
}


def check_bytes(model: Path, tmp_path: Path, name: str, seed: int) -> None:
    source = model / name if (model / name).exists() else model.parent / name
    (tmp_path / name).write_bytes(spoiled(source.read_bytes(), seed))
    read_or_refused(lambda: READERS[name](tmp_path / name))


@pytest.mark.parametrize("name", READERS)
@EXAMPLES
@given(seed=st.integers(0, 1 << 30))
def test_spoiled_bytes(model: Path, tmp_path: Path, name: str, seed: int) -> None:
    check_bytes(model, tmp_path, name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@MANY
@given(seed=st.integers(0, 1 << 30))
def test_spoiled_bytes_ten_thousand_times(model: Path, tmp_path: Path, name: str, seed: int) -> None:
    check_bytes(model, tmp_path, name, seed)


@EXAMPLES
@given(seed=st.integers(0, 1 << 30))
def test_spoiled_values_of_a_tokenizer_json(model: Path, tmp_path: Path, seed: int) -> None:
    good = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(replaced(good, seed)), encoding="utf-8")
    read_or_refused(lambda: use_tokenizer(path))


@pytest.mark.parametrize("length", ['"1"', "true", "[1]", '7, "model_max_length": 8', "{}"])
def test_a_length_that_transformers_would_compare_with_numbers(
    model: Path, tmp_path: Path, length: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "m")
    (folder / "tokenizer_config.json").write_text(f'{{"model_max_length": {length}}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer_config\.json"):
        load_transformers_tokenizer(folder)


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("content", ['{"a": 1, "a": 2}', "[]", "{"])
def test_files_that_transformers_reads_itself_are_read_strictly(
    model: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "m")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=name):
        load_transformers_tokenizer(folder)


@settings(EXAMPLES, max_examples=150)
@given(seed=st.integers(0, 1 << 30))
def test_spoiled_values_of_a_config(model: Path, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    for path in model.iterdir():
        with suppress(FileExistsError):
            (folder / path.name).symlink_to(path)
    (folder / "config.json").unlink()
    good = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(replaced(good, seed)), encoding="utf-8")
    read_or_refused(lambda: plan_growth(resolve_chain(folder).base, model))


@EXAMPLES
@given(seed=st.integers(0, 1 << 30))
def test_spoiled_values_of_a_manifest(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "run"
    (tmp_path / "text.txt").write_text("好\n", encoding="utf-8")
    with Run(folder, "train-vocab", {"model": "m"}, [tmp_path / "text.txt"], force=True) as run:
        run.write("zh.model", b"x")
        run.finish({"pieces": 3})
    good = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps(replaced(good, seed)), encoding="utf-8")
    read_or_refused(lambda: changed_inputs(read_manifest(folder)))
    read_or_refused(lambda: lineage(folder).as_json())
    read_or_refused(lambda: resolve_chain(folder))


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "..", "a/b.safetensors", "..\\x.safetensors"]
)
def test_shards_outside_of_their_folder_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ZhllamaError, match="outside the folder"):
        read_weights(tmp_path)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    "text",
    [LAUGHS, "a: " + "[" * 20_000, "!!python/object/apply:os.system ['true']", "a: !!python/name:os.system\n",
     "? {a: b}\n: c\n", "a: 1\na: 2\n", "\x00", "%YAML 9.9\n---\na: 1\n"],
    ids=["laughs", "deep", "object", "name", "key", "twice", "null byte", "version"],
)  # fmt: skip
def test_hostile_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (
        lambda: read_yaml(path, "a mapping"),
        lambda: read_recipe(str(path)),
        lambda: read_source(path),
    ):
        with pytest.raises(ZhllamaError):
            read()


def test_a_date_in_yaml_stays_its_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 2001-99-99\nb: 2001-01-02\n", encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml", "a mapping") == {"a": "2001-99-99", "b": "2001-01-02"}
