"""Files of rows: saved datasets, datasets of the hub's cache, and LLaMA-Factory's dataset_info.json, honored or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.test_row_fields import ANSWER, ASK, A, Q, S
from zhllama.conversation.read_comparisons import read_comparisons
from zhllama.conversation.read_conversations import BadRow, read_conversations, training_fault
from zhllama.conversation.records import Comparison, Conversation, ToolCall, Turn
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.row_files import RowFiles, find_row_files
from zhllama.errors import InputError
from zhllama.io.rows import read_rows

datasets = pytest.importorskip("datasets")
ROWS = [{"instruction": "问？", "input": "", "output": f"答{n}。"} for n in range(3)]


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def read(found: RowFiles) -> tuple[list[Conversation | BadRow], RowReading]:
    (path,) = found.files
    reading = RowReading(form=found.forms.get(path))
    return list(read_conversations(path, training_fault, None, reading)), reading


def described(folder: Path, rows: Any, **entry: Any) -> tuple[Any, RowReading]:
    """The only row of a file that a dataset_info.json describes."""
    write(folder / "d.json", rows)
    write(folder / "dataset_info.json", {"one": {"file_name": "d.json", **entry}})
    (found,), reading = read(find_row_files([folder]))
    return found, reading


def test_a_saved_dataset_with_and_without_splits(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "saved", num_shards=2)
    datasets.DatasetDict(train=whole).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=whole, test=whole.select([1])).save_to_disk(tmp_path / "two")
    whole.select([2, 0]).save_to_disk(tmp_path / "selected")
    for name, numbers in (("saved", [0, 1, 2]), ("one", [0, 1, 2]), ("two/test", [1]), ("selected", [2, 0])):
        found = find_row_files([tmp_path / name])
        assert [row for path in found.files for _, row in read_rows(path)] == [ROWS[n] for n in numbers], name
    with pytest.raises(
        InputError, match=r"two: has the splits train, test. Name one of them, e.g. .*two/train"
    ):
        find_row_files([tmp_path / "two"])
    # a folder above them contains their rows, and not the files that describe them
    assert {path.suffix for path in find_row_files([tmp_path]).files} == {".arrow"}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"_data_files": [{"filename": "gone.arrow"}]}, "gone.arrow: is missing"),
        ({"_data_files": [{"filename": "../../etc/passwd"}]}, "which is not in it"),
        ({"_data_files": [], "_indices_files": [{"filename": "i.arrow"}]}, "is a selection of the rows"),
        ({"_data_files": None}, "state.json: names no data files"),
    ],
)
def test_a_broken_saved_dataset_names_its_fault(tmp_path: Path, state: dict[str, Any], reason: str) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "a")
    write(tmp_path / "a" / "state.json", state)
    with pytest.raises(InputError, match=reason):
        find_row_files([tmp_path / "a"])


def test_arrow_files_of_both_formats_and_damage(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather

    table = pa.Table.from_pylist([{**row, "at": pa.scalar(0, pa.timestamp("s")).as_py()} for row in ROWS])
    feather.write_feather(table, tmp_path / "a.arrow")
    rows = [row for _, row in read_rows(tmp_path / "a.arrow")]
    assert rows == [{**row, "at": "1970-01-01 00:00:00"} for row in ROWS], "a time is text, as in JSON"
    datasets.Dataset.from_list(ROWS * 400).save_to_disk(tmp_path / "b")
    (path,) = find_row_files([tmp_path / "b"]).files
    content = path.read_bytes()
    for end in (10, len(content) // 2):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match="is not a readable Arrow file, or is damaged"):
            list(read_rows(path))


def test_a_list_that_datasets_stored_as_an_object_of_lists(tmp_path: Path) -> None:
    """Older versions of `datasets` store a list of objects as an object of lists, in Arrow and in Parquet."""
    row = {"conversations": {"from": ["human", "gpt"], "value": ["问？", "答。"]}}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
    ((found,), _) = read(find_row_files([tmp_path / "a.parquet"]))
    assert isinstance(found, Conversation) and found.turns == (Q, A)


def test_a_dataset_of_the_hub_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "d.json", ROWS)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    made = datasets.load_dataset(
        "json", data_files=str(tmp_path / "d.json"), cache_dir=str(tmp_path / "made")
    )
    folder = Path(made["train"].cache_files[0]["filename"]).parent
    target = tmp_path / "cache" / "owner___name" / "default" / "0.0.0" / "a1b2"
    shutil.copytree(folder, target)
    for file in target.glob("json-*"):
        file.rename(target / file.name.replace("json-", "name-"))
    info = json.loads((target / "dataset_info.json").read_text())
    write(target / "dataset_info.json", {**info, "builder_name": "json", "dataset_name": "name"})
    found = find_row_files(["owner/name"])
    assert [row for path in found.files for _, row in read_rows(path)] == ROWS
    assert find_row_files(["owner/name#train"]) == found
    with pytest.raises(InputError, match=r"owner/name: has no split test. Choose from: train"):
        find_row_files(["owner/name#test"])
    with pytest.raises(InputError, match="other/name: is not in the cache, and HF_HUB_OFFLINE is set"):
        find_row_files(["other/name"])
    with pytest.raises(InputError, match=r"d.jsonl: no such file"):
        find_row_files(["other/d.jsonl"])


RENAMED = {"题": "问？", "料": "", "答": "答。", "令": "令", "往": [["问？", "答。"]]}
COLUMNS = {"prompt": "题", "query": "料", "response": "答", "system": "令", "history": "往"}
MESSAGES = [
    {"角": "机", "文": "令"}, {"角": "人", "文": "问？"}, {"角": "调", "文": '{"name": "f", "arguments": {"a": 1}}'},
    {"角": "果", "文": "晴"}, {"角": "模", "文": "答。"},
]  # fmt: skip
TAGS = {
    "role_tag": "角", "content_tag": "文", "user_tag": "人", "assistant_tag": "模", "observation_tag": "果",
    "function_tag": "调", "system_tag": "机",
}  # fmt: skip
CALLED = (S, Q, Turn("assistant", "", calls=(ToolCall("f", '{"a": 1}'),)), Turn("tool", "晴"), A)


@pytest.mark.parametrize(
    ("row", "entry", "wanted"),
    [
        ({"instruction": "问？", "input": "", "output": "答。"}, {}, (Q, A)),
        (RENAMED, {"columns": COLUMNS}, (S, Q, A, Q, A)),
        (RENAMED, {"columns": COLUMNS, "formatting": "alpaca", "file_sha1": "0" * 40, "split": "train"}, (S, Q, A, Q, A)),
        ({"问": MESSAGES}, {"formatting": "sharegpt", "columns": {"messages": "问"}, "tags": TAGS}, CALLED),
        ({"conversations": MESSAGES}, {"formatting": "sharegpt", "tags": TAGS}, CALLED),
        ({"conversations": [{"from": "human", "value": "问？"}, {"from": "gpt", "value": "答。"}]}, {"formatting": "sharegpt"}, (Q, A)),
        ({"messages": [ASK, ANSWER]}, {"formatting": "openai", "columns": {"messages": "messages"}, "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}}, (Q, A)),
        # tags that name the roles the other way round are what they say
        ({"conversations": [{"from": "gpt", "value": "问？"}, {"from": "human", "value": "答。"}]}, {"formatting": "sharegpt", "tags": {"user_tag": "gpt", "assistant_tag": "human"}}, (Q, A)),
        ({"text": "问？", "out": "答。", "kto": True}, {"columns": {"prompt": "text", "response": "out", "kto_tag": "kto"}}, (Q, A)),
    ],
)  # fmt: skip
def test_columns_and_tags_of_dataset_info(
    tmp_path: Path, row: Any, entry: dict[str, Any], wanted: Any
) -> None:
    found, reading = described(tmp_path, [row], **entry)
    assert isinstance(found, Conversation) and found.turns == wanted, found
    assert not reading.unused


def test_fields_that_the_columns_do_not_name_are_counted_and_never_learned(tmp_path: Path) -> None:
    row = {"q": "问？", "a": "答。", "output": "别的", "system": "别的", "input": "别的", "id": 7}
    found, reading = described(tmp_path, [row], columns={"prompt": "q", "response": "a"})
    assert isinstance(found, Conversation) and found.turns == (Q, A) and found.id == "7"
    assert reading.unused == {"output": 1, "system": 1, "input": 1}
    for more, reason in (
        ({"images": ["a.png"]}, "images: only text"),
        ({"kto_tag": False}, "is marked as a bad answer"),
    ):
        found, _ = described(
            tmp_path, [{"q": "问？", "a": "答。", **more}], columns={"prompt": "q", "response": "a"}
        )
        assert isinstance(found, BadRow) and found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        ({"q": "问？", "好": "好", "坏": "坏"}, {"columns": {"prompt": "q", "chosen": "好", "rejected": "坏"}}),
        ({"instruction": "问？", "output": ["好", "坏"]}, {"columns": {"prompt": "instruction", "response": "output"}}),
        ({"c": [{"r": "u", "t": "问？"}], "w": {"r": "a", "t": "好"}, "l": {"r": "a", "t": "坏"}},
         {"formatting": "sharegpt", "columns": {"messages": "c", "chosen": "w", "rejected": "l"},
          "tags": {"role_tag": "r", "content_tag": "t", "user_tag": "u", "assistant_tag": "a"}}),
    ],
)  # fmt: skip
def test_ranked_pairs_of_dataset_info(tmp_path: Path, row: Any, entry: dict[str, Any]) -> None:
    write(tmp_path / "d.json", [row])
    write(tmp_path / "dataset_info.json", {"one": {"file_name": "d.json", "ranking": True, **entry}})
    found = find_row_files([tmp_path])
    (pair,) = read_comparisons(found.files[0], None, RowReading(form=found.forms[found.files[0]]))
    assert isinstance(pair, Comparison) and (pair.prompt.turns, pair.chosen, pair.rejected) == (
        (Q,),
        "好",
        "坏",
    )
    (refused,), _ = read(found)
    assert isinstance(refused, BadRow), "sft refuses them"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"num_samples": 5}, "#one: num_samples: is not supported"),
        ({"subset": "zh"}, "#one: subset: is not supported"),
        ({"formatting": "pretrain"}, "#one: formatting: is 'pretrain', not alpaca, sharegpt, openai"),
        ({"split": "test"}, "#one: split: is 'test'"),
        ({"columns": {"promt": "q"}}, "#one: columns.promt: is not supported; known are prompt, query"),
        ({"columns": {"prompt": "q", "response": "q"}}, "#one: columns: names one field twice"),
        ({"columns": ["q"]}, "#one: columns: is not a JSON object"),
        ({"columns": {"prompt": 7}}, "#one: columns.prompt: is not a name"),
        ({"tags": {"role": "r"}}, "#one: tags.role: is not supported"),
        ({"tags": {"user_tag": "a", "assistant_tag": "a"}}, "#one: tags: gives one name to two roles"),
        ({"file_name": None, "script_url": "x.py"}, "#one: script_url: is not supported"),
        ({"file_name": None, "om_hub_url": "a/b"}, "#one: om_hub_url: is not supported"),
        ({"file_name": "gone.json"}, "gone.json: no such file"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_honored_is_refused_by_name(
    tmp_path: Path, entry: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError) as raised:
        described(tmp_path, ROWS, **entry)
    assert reason in str(raised.value)


def test_one_of_several_descriptions_is_named(tmp_path: Path) -> None:
    write(tmp_path / "d.json", ROWS)
    write(tmp_path / "e.json", ROWS[:1])
    file = write(
        tmp_path / "dataset_info.json", {"甲": {"file_name": "d.json"}, "b": {"file_name": "e.json"}}
    )
    for name in (tmp_path, file):
        with pytest.raises(InputError, match=r"describes 甲, b. Name one of them: .*dataset_info.json#甲"):
            find_row_files([name])
        assert find_row_files([f"{name}#b"]).files == (tmp_path / "e.json",)
        with pytest.raises(InputError, match=r"does not describe c. Choose from: 甲, b"):
            find_row_files([f"{name}#c"])
    both = find_row_files([f"{file}#b", f"{file}#甲"])
    assert both.inputs == [tmp_path / "e.json", tmp_path / "d.json", file]
    write(file, {"a": {"file_name": "d.json"}, "b": {"file_name": "d.json", "columns": {"prompt": "output"}}})
    with pytest.raises(InputError, match=r"d.json: is read in two forms"):
        find_row_files([f"{file}#a", f"{file}#b"])
