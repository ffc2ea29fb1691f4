"""Errors about a value of a recipe name the recipe and its key."""

from pathlib import Path

import pytest

from tests.model_toys import line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.txt").write_text("你好，世界。\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"t', encoding="utf-8")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "bad.txt").write_bytes(b"\xff\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "recipe", "told"),
    [
        ("train-vocab", "text: [nope.txt]", "r.yaml (text): nope.txt: no such file"),
        ("train-vocab", "text: [rows.jsonl]", "r.yaml (text): rows.jsonl:1: is not JSON"),
        ("train-vocab", "text: [texts]", "r.yaml (text): texts/bad.txt:1: is not UTF-8"),
        ("train-vocab", "text: [./texts/]", "r.yaml (text): texts/bad.txt:1: is not UTF-8"),
        ("train-vocab", "text: [texts/*.txt]", "r.yaml (text): texts/bad.txt:1: is not UTF-8"),
        ("train-vocab", "text: [~/nope]", "r.yaml (text): {home}/nope: no such file"),
        ("train-vocab small.txt", "cover: gbk", "r.yaml (cover): --cover: unknown character set"),
        ("train-vocab small.txt", "max-line-bytes: 3", "r.yaml (max_line_bytes): small.txt:1: is a line of more than 3"),
        ("train-vocab small.txt", "size: many", "r.yaml (size): "),
        ("train-vocab small.txt", "max_line_bytes: 0", "r.yaml (max_line_bytes): "),
        ("answer m", "questions: q\ntemperature: 9", "r.yaml (temperature): --temperature 9.0: is not from 0 to 5"),
        ("judge", "answers: [one=nope.json]", "r.yaml (answers): nope.json: no such file"),
        ("gen-zh", "method: odd", "r.yaml (method): "),
        ("gen-zh", "model: m\nbase_url: [ftp://x]", "r.yaml (base_url): --base-url ftp://x: is not a URL"),
        ("corpus clean", "text: [no*.txt]", "r.yaml (text): no*.txt: no such file"),
        ("pack", "text: [small.txt]\ntokenizer: texts", "r.yaml (tokenizer): texts"),
        ("merge-vocab", "zh: small.txt\nrecipe: continued", "r.yaml (zh): --zh: is not used by --recipe continued"),
        ("merge-vocab --zh small.txt", "recipe: continued", "r.yaml (recipe): --zh: is not used by --recipe continued"),
        ("pretrain --stage 1", "model: m\ntext: [zh=small.txt:-1]", "r.yaml (text): --text: the weight -1 of small.txt"),
        ("answer", "model: texts\nquestions: texts/no.json", "r.yaml (questions): texts/no.json: no such file"),
        ("train-vocab", "text: [0]", "r.yaml (text): Input is not a valid path"),
        ("merge-vocab", "zh: small.txt\nbase: 1.5", "r.yaml (base): 1.5: "),
        ("train-vocab", f"text: [{'长' * 300}]", f"r.yaml (text): {'长' * 100}"),
        # A flag replaces the value, and an error about anything else does not name the recipe.
        ("train-vocab nope.txt", "text: [small.txt]", "nope.txt: no such file"),
        ("train-vocab nope.txt", "cover: gb2312", "nope.txt: no such file"),
        ("train-vocab small.txt --cover gbk", "cover: gb2312", "--cover: unknown character set"),
    ],
)  # fmt: skip
def test_errors_name_the_recipe_and_the_key(folder: Path, command: str, recipe: str, told: str) -> None:
    (folder / "r.yaml").write_text(recipe, encoding="utf-8")
    ended = line(folder, *command.split(), "--config", "r.yaml", "--out", "o")
    assert ended.code in (1, 2)
    expected = told.format(home=Path.home())
    if ended.code == 1:
        assert ended.err.splitlines()[-1].startswith(f"zhllama: {expected}"), ended.err
    else:
        assert expected in ended.err, ended.err
