"""SQuAD's nested JSON (Rajpurkar et al. 2016), which CMRC, XQuAD and many others share, as one record a question."""

from __future__ import annotations

from typing import Any


def questions(value: Any) -> list[dict[str, Any]] | None:
    """A record with title, context, id, question and answers for each question; None: it is no such file.

    Args:
        value: what a .json file holds: {"data": [{"paragraphs": [{"context": …, "qas": [{"question": …}]}]}]}.
    """
    try:
        found = [
            {
                "id": asked.get("id"),
                "title": article.get("title"),
                "context": paragraph["context"],
                "question": asked["question"],
                "answers": {
                    "text": [one["text"] for one in asked.get("answers", [])],
                    "answer_start": [one.get("answer_start") for one in asked.get("answers", [])],
                },
            }
            for article in value["data"]
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    except (AttributeError, KeyError, TypeError):
        return None
    return found or None
