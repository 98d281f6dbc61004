"""Texts of every sort, to compare tokenizers on."""

from __future__ import annotations

import pydoc_data.topics
import random

PIECES = ["the", "Hello", "naïve", "WORLD", "don't", "I'LL", "12", "3.14", "!", "...", "-----", "aaaaaaa", "==", "_x"]
PIECES += [" ", " ", "  ", "   ", " " * 9, "\n", "\n\n", "\t", "\r\n", "\u3000", "\xa0", "\u2028", "\u200b", "\ufeff"]
PIECES += [
    "中文",
    "。",
    "语言模型",
    "한국어",
    "日本語",
    "é",
    "e\u0301",
    "ß",
    "İ",
    "ﬁ",
    "Ⅷ",
    "½",
    "ＡＢ",
    "नमस्ते",
    "ไทย",
    "עברית",
]
PIECES += ["😀", "👩\u200d👧", "🏳️\u200d🌈", "\x00", "\x01", "\x07", "\x1f", "\x7f", "\x85", "\ufffd", "▁", "Ġ", "##a"]
PIECES += [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<mask>",
    "[CLS]",
    "[MASK]",
    "<|endoftext|>",
    "<0x41>",
    "<0x0A>",
    "<extra_id_0>",
]


def prose() -> list[str]:
    """Real English with code, by lines."""
    topics = pydoc_data.topics.topics
    lines = [line for name in sorted(topics)[:60] for line in topics[name].split("\n") if line.strip()]
    chinese = ["人工智能的语言模型学习预测下一个词。", "训练数据越多，模型越好。", "我们打开模型，看看里面有什么。"]
    return lines + chinese * 20 + ["naïve café — “quoted” 😀 👩‍👩‍👧", "        if x:    y", "----- ==== aaaa"] * 20


def varied(count: int = 3000, *, without: tuple[str, ...] = (), seed: int = 0) -> list[str]:
    """Mixtures, real lines, and random characters; `without` some pieces."""
    draw = random.Random(seed)
    pieces = [piece for piece in PIECES if piece not in without]
    mixed = ["".join(draw.choices(pieces, k=draw.randint(0, 14))) for _ in range(count)]

    def character() -> str:
        blocks = (
            (0x20, 0x250),
            (0x4E00, 0x9FFF),
            (0x1F300, 0x1F6FF),
            (0x10000, 0x1FFFF),
            (0x1, 0x300),
            (0x370, 0xD7FF),
        )
        return chr(draw.randrange(*draw.choice(blocks)))

    chance = ["".join(character() for _ in range(draw.randint(1, 10))) for _ in range(count // 3)]
    return [*mixed, *chance, *draw.sample(prose(), 300), "x" * 3000 + " " * 300, ""]
