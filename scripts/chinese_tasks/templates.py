"""Translation and sentiment items, from sentences and remarks that were written for them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from scripts.chinese_tasks.items import Item, key, placed

ORDER = ((0, 0), (0, 1), (1, 0), (1, 1))


def translation(pairs: Sequence[Mapping[str, Any]], wanted: int) -> list[Item]:
    """An English sentence with its translation and three others, which differ in one or both of its two gaps.

    The four are all combinations of two words for each gap, so that none is closer to the others than the rest.
    """
    by_pair = []
    for pair in pairs:
        tables = [
            (a, b, right)
            for a in combinations(pair["a"].items(), 2)
            for b in combinations(pair["b"].items(), 2)
            for right in ORDER
        ]
        by_pair.append([(pair, *table) for table in sorted(tables, key=lambda table: key(pair["en"], table))])
    chosen = [tables[turn] for turn in range(wanted) for tables in by_pair if turn < len(tables)][:wanted]
    items = []
    for number, (pair, a, b, (right_a, right_b)) in enumerate(chosen):
        english = pair["en"].format(a=a[right_a][0], b=b[right_b][0])
        texts = {
            (i, j): f"英文：{english}\n中文：{pair['zh'].format(a=a[i][1], b=b[j][1])}" for i, j in ORDER
        }
        right = texts.pop((right_a, right_b))
        items.append(placed("translation", number, right, list(texts.values()), english, "translation.yaml"))
    return items


def sentiment(reviews: Mapping[str, Any]) -> list[Item]:
    """A review of two remarks and two conclusions, of which one agrees with it; as many good ones as bad ones."""
    items: list[Item] = []
    for review in reviews["reviews"]:
        for turn, (content, discontent) in enumerate(reviews["conclusions"]):
            for opinion, agrees, differs in (("good", content, discontent), ("bad", discontent, content)):
                remarks = review[opinion]
                text = f"{review['about']}。{remarks[turn]}，{remarks[(turn + 1) % len(remarks)]}，"
                number = len(items)
                # A good and a bad review at the same place: it does not tell the opinion.
                items.append(
                    placed(
                        "sentiment", number, f"{text}{agrees}。", [f"{text}{differs}。"], opinion, "sentiment.yaml",
                        place=number // 2,
                    )
                )  # fmt: skip
    return items
