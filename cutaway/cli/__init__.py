"""The command line: one verb per public function, and no logic of its own.

The help page is answered without importing anything heavy; a verb's module is imported when it is called. Adding a verb
is one file, `cli/<verb>.py` with a function of that name, and one line in VERBS.
"""

import os
import sys

VERBS = {
    "prepare": "clean texts, train a tokenizer, and store the tokens",
    "train": "train a language model on a prepared corpus or on raw texts",
    "generate": "continue a prompt",
    "look": "see inside: surprisal, attention, the logit lens, and where a logit comes from",
    "doctor": "what this machine can do, and which choices follow from it",
}

HELP = """\
Cutaway: language models with the casing off. Build one, look inside it, put it to work.

Usage: cutaway VERB [OPTIONS]

{verbs}

  cutaway VERB --help    what a verb takes
  cutaway --version      which Cutaway this is

An error is one sentence and exit code 2; add --debug to a verb to see the traceback.

Example:
  cutaway prepare texts/ --out corpus
  cutaway train corpus --out run --minutes 2
  cutaway generate run --prompt "def "
  cutaway look run "import os" --html look.html
"""


def help_page() -> str:
    """What `cutaway --help` prints."""
    width = max(map(len, VERBS))
    return HELP.format(verbs="\n".join(f"  {verb:<{width}}  {line}" for verb, line in VERBS.items()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_page(), end="")
        return 0
    if words[0] == "--version":
        from cutaway import __version__

        print(f"cutaway {__version__}")
        return 0
    if words[0] not in VERBS:
        from cutaway.errors import unknown

        print(unknown("option" if words[0].startswith("-") else "verb", words[0], VERBS), file=sys.stderr)
        return 2
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # its threads do not survive a fork, and it says so at length
    from cutaway.cli._frame import run_verb

    return run_verb(words[0], words[1:])
