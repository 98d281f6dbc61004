"""Boilerplate: text that is on the page but not of it. Licences around books, cookie notices, menus, running heads.

Everything is judged a line at a time, and source code is left alone. Cheap searches for necessary words come first,
so a text without any of them is passed at the speed of a memory scan.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from cutaway.text.documents import Document
from cutaway.text.outcome import Outcome, excerpt, is_code

# Project Gutenberg puts the licence outside a pair of marker lines.
_BOOK_START = re.compile(r"^\s{0,8}\*{3} ?START OF (?:THIS|THE) PROJECT GUTENBERG[^\n]{0,300}$", re.M)
_BOOK_END = re.compile(
    r"^\s{0,8}(?:\*{3} ?END OF (?:THIS|THE) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)[^\n]{0,300}$",
    re.M,
)
_PRODUCED = re.compile(r"\s*(?:Produced|E-text prepared) by [^\n]{1,300}(?:\n[^\n]{1,300}){0,8}\n\n")

# Lines of a web page that are about the page (C4, Raffel et al. 2020, section 2.2, drops lines with such words).
NOTICE_LINE = 200  # characters; a longer line is a paragraph, and may be an article about cookies
_NOTICE = re.compile(
    r"""\b(?:
      (?:we|sites?|websites?|pages?|services?) \s (?:\w+\s)? uses? \s (?:\w+\s){0,3} cookies
    | (?:accept|allow|reject|manage|about) \s (?:all\s|our\s|the\s)? cookies
    | cookie \s (?:policy|settings|preferences|notice|consent)
    | (?:enable|turn\son|requires?|activate) \s javascript
    | javascript \s (?:is|must\sbe|seems\sto\sbe) \s (?:disabled|enabled|required)
    | your \s browser \s does \s not \s support
    | all \s rights \s reserved
    | (?:subscribe\sto|sign\sup\sfor) \s our \s newsletter
    )""",
    re.I | re.X,
)
_NOTICE_ZH = re.compile(
    r"""(?:使用|接受|允许|拒绝)[^。\n]{0,8}cookie | (?:启用|开启|打开)\s?javascript
    | 版权所有 | ICP备\d+号 | 扫一扫关注 | 转载请注明""",
    re.I | re.X,
)
_NOTICE_WORDS = (
    "ookie",
    "OOKIE",
    "avaScript",
    "avascript",
    "ights reserved",
    "IGHTS RESERVED",
    "ewsletter",
    "r browser",
    "ICP",
)
_NOTICE_WORDS_ZH = ("版权所有", "扫一扫", "转载请")

# A menu: three or more short labels between separators, or three or more lines in a row that are each such a label.
_SEPARATED = re.compile(r"^(?:[^|•·»›\n.!?。！？]{1,25} ?[|•·»›] ?){2,40}[^|•·»›\n.!?。！？]{1,25}$")
_SEPARATOR = re.compile("[|•·»›]")
_SEPARATORS = ("»", "›", "·", "•")
_MENU_LABELS = """
home,about,about us,contact,contact us,log in,login,sign in,sign up,register,search,menu,skip to content
skip to main content,skip to navigation,share,share this,tweet,facebook,twitter,instagram,linkedin,youtube,print,email
rss,next,previous,next page,previous page,back to top,read more,more,reply,subscribe,privacy policy,terms of use
terms of service,terms and conditions,sitemap,site map,help,faq,news,blog,products,services,download,downloads,cart
首页,登录,注册,搜索,关于我们,联系我们,返回顶部,上一页,下一页,上一篇,下一篇,分享,收藏,更多,网站地图,帮助中心
"""
_MENU = frozenset(_MENU_LABELS.strip().replace("\n", ",").split(","))
MENU_RUN, LONGEST_LABEL = 3, 24

# A running head or foot: the same line near the edge of many documents of one origin.
EDGE_LINES = 6  # how many lines from either end are looked at
REPEATED_SHARE = 0.3  # of one origin's documents in the batch
REPEATED_SAMPLE = 100  # of them are looked at, evenly spread
REPEATED_DOCUMENTS = 5  # and at least so many of them
# A document inside a file: "crawl.warc.gz#https://…", "reviews.csv:17", "book.txt@262144", "log.jsonl@0:3".
_INSIDE = re.compile(r"([^#]+)#|(.+?)(?:@\d+|:\d+|@\d+:\d+)$")
_LABEL = (":", "：")  # "User:", "Question:" are structure, as are headings and tags
_MARKUP = ("#", "<", "[", "|", "`", "-", "*")


def boilerplate(documents: Sequence[Document]) -> Outcome:
    """Remove book licences, cookie and script notices, menus, and lines repeated at the edges of documents."""
    outcome = Outcome()
    heads = _running_heads(documents)
    for document in documents:
        text = document.text
        if is_code(document):
            outcome.kept.append(document)
            continue
        what, shown = "", ""
        for name, remove in (("book licence", _book), ("notice or menu", _notices)):
            less, removed = remove(text)
            if less != text:
                what, shown, text = what or name, shown or removed, less
        if heads and (repeated := heads.get(_origin(document.source))):
            lines = text.split("\n")
            rest = [line for line in lines if line.strip() not in repeated]
            if len(rest) < len(lines):
                what, shown, text = what or "repeated line", shown or min(repeated), "\n".join(rest)
        # line breaks at the ends alone are not worth telling
        outcome.keep(document, text.strip("\n"), what and f"{what} removed", lambda shown=shown: excerpt(shown))
    return outcome


def _book(text: str) -> tuple[str, str]:
    """A Project Gutenberg book without what stands before its start and after its end; and an example of that."""
    if "GUTENBERG" not in text and "Project Gutenberg" not in text:
        return text, ""
    removed = ""
    if start := _BOOK_START.search(text):
        removed, text = text[: start.end()], text[start.end() :]
        if produced := _PRODUCED.match(text):
            text = text[produced.end() :]
    if end := _BOOK_END.search(text):
        removed, text = removed or text[end.start() :], text[: end.start()]
    return text, removed


def _notices(text: str) -> tuple[str, str]:
    """The text without notices and menus; and an example of those."""
    lines = text.split("\n")
    short = {number: line for number, line in enumerate(lines) if 0 < len(line) <= NOTICE_LINE}
    together = "\n".join(short.values())
    notices = _holds(together, _NOTICE_WORDS) or (not text.isascii() and _holds(together, _NOTICE_WORDS_ZH))
    separated = " | " in together or (not text.isascii() and _holds(together, _SEPARATORS))
    gone = _menus(lines, short)
    if notices or separated:
        gone |= {
            number
            for number, line in short.items()
            if (notices and _is_notice(line)) or (separated and _is_separated(line))
        }
    if not gone:
        return text, ""
    return "\n".join(line for number, line in enumerate(lines) if number not in gone), lines[min(gone)]


def _running_heads(documents: Sequence[Document]) -> dict[str, set[str]]:
    """For each origin with enough documents here: the lines repeated near the edges of many of them."""
    sources: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        if not is_code(document):
            sources[_origin(document.source)].append(document)
    heads = {}
    for source, group in sources.items():
        if len(group) < REPEATED_DOCUMENTS:
            continue
        sample = group[:: 1 + len(group) // REPEATED_SAMPLE]
        counts: Counter[str] = Counter()
        for document in sample:
            lines = (
                document.text.split("\n", EDGE_LINES)[:EDGE_LINES]
                + document.text.rsplit("\n", EDGE_LINES)[-EDGE_LINES:]
            )
            counts.update(
                {line for line in map(str.strip, lines) if 12 <= len(line) <= NOTICE_LINE and _is_plain(line)}
            )
        least = max(REPEATED_DOCUMENTS, REPEATED_SHARE * len(sample))
        if repeated := {line for line, count in counts.items() if count >= least}:
            heads[source] = repeated
    return heads


def _menus(lines: list[str], short: dict[int, str]) -> set[int]:
    """The numbers of the lines of menus: MENU_RUN or more labels with at most empty lines between them."""
    labels = [
        number
        for number, line in short.items()
        if len(line) <= LONGEST_LABEL and line.strip(" \t|>»›•·*-").lower() in _MENU
    ]
    gone: set[int] = set()
    run: list[int] = []
    for number in labels if len(labels) >= MENU_RUN else ():
        if run and any(line.strip() for line in lines[run[-1] + 1 : number]):
            run = []
        run.append(number)
        if len(run) >= MENU_RUN:
            gone.update(range(run[0], number + 1))
    return gone


def _is_separated(line: str) -> bool:
    """Whether a line is a menu: a row of short labels between separators, of which half are known labels of menus.

    One known label is enough where all are written as labels are. What a grammar or a type has between its bars
    (`int | str | None`, `"home" | name | more`) is written otherwise.
    """
    labels = [*map(str.strip, _SEPARATOR.split(line))]
    if _MENU.isdisjoint(map(str.lower, labels)) or line.lstrip().startswith("|") or not _SEPARATED.match(line.strip()):
        return False
    known = sum(label.lower() in _MENU for label in labels)
    return 2 * known >= len(labels) or all(label[:1].isalpha() and not label[0].islower() for label in labels)


def _is_notice(line: str) -> bool:
    """Whether a line is about cookies, scripts or rights."""
    if not (_holds(line, _NOTICE_WORDS) or _holds(line, _NOTICE_WORDS_ZH)):
        return False
    return bool(_NOTICE.search(line) or _NOTICE_ZH.search(line))


def _holds(text: str, words: Iterable[str]) -> bool:
    """Whether any of the words is in the text; a memory scan each, far faster than one regular expression for all."""
    return any(map(text.__contains__, words))


def _origin(source: str) -> str:
    """What documents have in common: the file they are in, or for whole files their folder."""
    inside = _INSIDE.match(source)
    return inside[1] or inside[2] if inside else source.rpartition("/")[0]


def _is_plain(line: str) -> bool:
    """Whether a line is neither a label ("User:") nor markup."""
    return not line.endswith(_LABEL) and not line.startswith(_MARKUP)
