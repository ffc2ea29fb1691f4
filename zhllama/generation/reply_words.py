"""The words that label the parts of a task in replies: 指令, 输入, 输出, 标签 and their many spellings."""

from typing import Literal

Role = Literal["instruction", "input", "output", "label"]

WORDS: dict[str, Role] = {
    **dict.fromkeys(
        [
            "指令",
            "任务指令",
            "任務指令",
            "指令内容",
            "指令內容",
            "指示",
            "instruction",
            "任务描述",
            "任務描述",
            "任务说明",
            "任務說明",
            "任务内容",
            "任務內容",
            "任务要求",
            "任務要求",
            "任务",
            "任務",
            "问题",
            "問題",
            "提问",
            "提問",
            "题目",
            "題目",
            "题干",
            "題幹",
            "提示词",
            "提示詞",
            "prompt",
            "question",
            "task",
            "问",
            "問",
            "q",
        ],
        "instruction",
    ),
    **dict.fromkeys(
        [
            "输入",
            "輸入",
            "任务输入",
            "任務輸入",
            "输入内容",
            "輸入內容",
            "输入材料",
            "輸入材料",
            "输入文本",
            "輸入文本",
            "输入数据",
            "輸入資料",
            "input",
        ],
        "input",
    ),
    **dict.fromkeys(
        [
            "输出",
            "輸出",
            "任务输出",
            "任務輸出",
            "输出内容",
            "輸出內容",
            "输出结果",
            "輸出結果",
            "回答",
            "参考答案",
            "參考答案",
            "标准答案",
            "標準答案",
            "答案",
            "回复",
            "回覆",
            "回应",
            "回應",
            "解答",
            "答",
            "output",
            "response",
            "answer",
            "a",
        ],
        "output",
    ),
    **dict.fromkeys(["标签", "標籤", "標簽", "类别", "類別", "分类标签", "分類標籤", "label"], "label"),
    "class label": "label",
}
# Words that start an instruction wherever they stand; the other instruction words may be part of a text.
STRONG = {"指令", "任务指令", "指令内容", "instruction"}
USUAL = {"输出", "output", "输入", "input", "标签", "label"}
HEADING_WORDS = {"任务", "题目", "问题", "task", "question", "q"}  # before another label, headings: 任务5：
SHORT = {"a", "q", "问", "問", "答"}  # labels only with a colon
SIMPLIFIED = {word: simple for word in WORDS if (simple := word.translate(str.maketrans("務內輸問題幹詞資參標準覆應籤簽類別", "务内输问题干词资参标准复应签签类别"))) != word}  # fmt: skip
