"""Boilerplate, language, and the dict of steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.errors import ConfigError
from cutaway.text.clean import STEPS, USUAL, Cleaning, check_steps, clean
from cutaway.text.clean.boilerplate import boilerplate
from cutaway.text.clean.language import Survey, check_languages, identify, language
from cutaway.text.documents import Document
from cutaway.text.report import Report, StepReport, html

STORY = "It was late when the train arrived.\n\nNobody was waiting on the platform, and the lamps were out."


def cleaned(text: str, source: str = "a.html", kind: str = "") -> str:
    return boilerplate([Document(text, source, {"kind": kind} if kind else {})]).kept[0].text


def test_a_gutenberg_book_loses_its_licence() -> None:
    book = (
        "The Project Gutenberg EBook of Something\n\nThis eBook is for the use of anyone\n\n"
        "*** START OF THIS PROJECT GUTENBERG EBOOK SOMETHING ***\n\nProduced by A. Person and\nB. Person\n\n"
        f"{STORY}\n\nEnd of the Project Gutenberg EBook of Something\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK SOMETHING ***\n\nSection 1. General Terms\n"
    )
    assert cleaned(book) == STORY
    start, end = (f"*** {which} OF THE PROJECT GUTENBERG EBOOK X ***" for which in ("START", "END"))
    assert cleaned(f"{start}\n\n{STORY}\n\n{end}\nTerms") == STORY


@pytest.mark.parametrize(
    "line",
    [
        "We use cookies to improve your experience. Accept all cookies",
        "This website uses cookies.",
        "Please enable JavaScript to view the comments.",
        "Copyright 2020 Example Ltd. All rights reserved.",
        "Home | About us | Products | Contact",
        "home | about | contact",
        "Home | World | Business | Science | Sport",
        "Home › Garden › Chairs",
        "首页 · 新闻 · 关于我们 · 联系",
        "本网站使用Cookie，继续浏览即表示同意。",
        "Home\nAbout\n\nContact us\n首页",
    ],
)
def test_lines_about_the_page_go(line: str) -> None:
    assert cleaned(f"{STORY}\n{line}\nThe end.") == f"{STORY}\nThe end."


@pytest.mark.parametrize(
    "text",
    [
        "She baked cookies for the whole street and accepted no thanks for it.",
        "| name | age |\n|---|---|\n| Ann | 31 |",
        "He said: more.\nMore\nThe end.",
        "Use `a | b | c` to chain filters in a template, as the manual explains. It works with any number of them. "
        * 3,
        'literal: "a" | "b" | "c"\natom | list | dict\nint | str | None',
        'command: "help" | "next" | "search" | "more"\nstep | next | until | return | more\n[next | name | digit+]',
        "Bread | Butter | Milk",
        "该公司的版权纠纷案今天开庭。",
    ],
)
def test_prose_that_looks_a_little_like_it_stays(text: str) -> None:
    assert cleaned(text) == text.strip("\n")


def test_line_breaks_at_the_ends_are_not_worth_telling() -> None:
    outcome = boilerplate([Document("A story.\n", "a"), Document("Home | About | Help\nA story.\n", "b")])
    assert [document.text for document in outcome.kept] == ["A story.", "A story."]
    assert outcome.changed == {"notice or menu removed": 1}


def test_source_code_keeps_its_copyright_and_its_repeated_lines() -> None:
    code = "# Copyright 2020 X. All rights reserved.\nimport os\n"
    documents = [Document(code + f"x = {i}", f"src/{i}.py", {"kind": "code"}) for i in range(20)]
    assert boilerplate(documents).kept == documents


def test_running_heads_go_and_labels_stay() -> None:
    pages = [
        Document(
            f"The Daily Example, all the news\nQuestion about it:\nStory number {i} is told here.", f"crawl.warc#{i}"
        )
        for i in range(10)
    ]
    outcome = boilerplate(pages)
    assert [d.text for d in outcome.kept] == [f"Question about it:\nStory number {i} is told here." for i in range(10)]
    assert outcome.changed == {"repeated line removed": 10}
    elsewhere = [Document(page.text, f"folder{i}/page.html") for i, page in enumerate(pages)]
    assert boilerplate(elsewhere).kept == elsewhere


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The children walked home through the snow and told their mother everything.", "en"),
        ("Les enfants rentraient à la maison sous la neige et racontaient tout à leur mère.", "fr"),
        ("孩子们在雪中走回家，把一切都告诉了母亲。", "zh"),
        ("ok", "und"),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert identify(text) == code


def test_language_step_keeps_what_was_asked_for_and_the_undetermined() -> None:
    documents = [
        Document("The children walked home through the snow and told their mother everything.", "a"),
        Document("Die Kinder gingen durch den Schnee nach Hause und erzählten der Mutter alles.", "b"),
        Document("ok", "c"),
        Document("def f():\n    return 'Kinder gingen durch den Schnee nach Hause'", "d.py", {"kind": "code"}),
    ]
    outcome = language(documents, ("en",))
    assert [d.source for d in outcome.kept] == ["a", "c", "d.py"]
    assert outcome.dropped[0].reason == "in de, not in en"
    assert language(documents).kept == documents
    survey = Survey()
    assert survey(documents) == {"en": 1}
    assert not survey(documents)
    with pytest.raises(ConfigError, match="unknown language 'english'"):
        check_languages(["english"])


def test_unknown_steps_name_near_matches_and_order_does_not_matter() -> None:
    with pytest.raises(ConfigError, match="did you mean quality"):
        clean([], ["qualty"])
    assert check_steps(["quality", "unicode"]) == ("unicode", "quality")
    assert set(USUAL) <= set(STEPS)


@given(st.lists(st.text(max_size=80), max_size=8))
def test_every_step_accounts_for_every_document(texts: list[str]) -> None:
    documents = [Document(text, f"f.jsonl:{i}") for i, text in enumerate(texts)]
    for name, step in STEPS.items():
        before = list(documents)
        outcome = step(documents, Cleaning(languages=("en",)))
        assert documents == before  # pure: the batch is not touched
        sources = [d.source for d in outcome.kept] + [d.document.source for d in outcome.dropped]
        assert sorted(sources) == sorted(d.source for d in documents)
        assert [d.source for d in outcome.kept] == [
            s for s in (d.source for d in documents) if s in {k.source for k in outcome.kept}
        ]
        assert all(d.step == name and d.reason for d in outcome.dropped)


def test_reports_add_up_and_survive_json() -> None:
    documents = [Document(f"Sentence number {i} of the test, long enough.", "a") for i in range(4)] + [
        Document("<b>x", "b")
    ]
    whole, half = Report(), Report()
    for part in (documents[:2], documents[2:]):
        report = Report(files=1, documents=len(part), characters=sum(len(d.text) for d in part))
        left = part
        for name in USUAL:
            outcome = STEPS[name](left, Cleaning())
            report.step(name).add_outcome(sum(len(d.text) for d in left), outcome)
            left = outcome.kept
        whole.add(report)
    assert whole.files == 2
    assert whole.steps["quality"].documents == 5
    assert whole.steps["quality"].dropped == {"fewer than 16 characters": 1}
    assert whole.steps["quality"].lost == 4
    assert whole.steps["exact_duplicates"].documents == 4
    assert "quality dropped 1 of 5 (fewer than 16 characters)" in whole.losses()
    assert Report.from_dict(whole.to_dict()) == whole
    assert half == Report()


def test_the_page_is_offline_and_escapes_the_texts() -> None:
    report = Report(files=1, documents=2, characters=100, warnings=["<w>"], skipped={"<f>": "binary & odd"})
    report.steps["quality"] = StepReport(2, 100)
    report.steps["quality"].dropped["<reason>"] = 1
    report.steps["quality"].dropped_characters = 40
    report.steps["quality"].show("<reason>", "<script>alert('x')</script>")
    report.splits = {"train": {"documents": 1, "bytes": 60, "tokens": 20}}
    page = html(report)
    assert "<script" not in page
    assert "http" not in page
    assert "&lt;script&gt;" in page
    assert "60.0% of the characters" in page
    assert all(f"&lt;{x}&gt;" in page for x in ("w", "f", "reason"))
    assert "prefers-color-scheme:dark" in page
    # heads stand over their cells: numbers right, words left
    assert "<th scope=col class=n>tokens</th>" in page
    assert "<td class=n>20</td>" in page
    assert "<th scope=col>split</th>" in page
