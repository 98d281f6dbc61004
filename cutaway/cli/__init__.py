"""The command line: one verb per public function, and no logic of its own.

The help page is answered without importing anything heavy; a verb's module is imported when it is called. Adding a verb
is one file, `cli/<verb>.py` with a function of that name, and one line in WAYS.
"""

import gc
import os
import sys

WAYS = {
    "Build": {
        "prepare": "clean texts, train a tokenizer, and store the tokens",
        "train": "train a language model on a prepared corpus or on raw texts",
    },
    "Speak": {
        "generate": "continue a prompt, or many",
        "chat": "hold a conversation",
        "serve": "answer OpenAI's clients over HTTP",
        "keys": "who may use a server, and how much",
    },
    "Look": {
        "look": "see inside: surprisal, attention, the logit lens, and where a logit comes from",
        "studio": "see any model think, in the browser, offline",
    },
    "Work": {
        "task": "classify, tag, answer …: train on a file of yours, predict, measure, ask why",
    },
    "Measure": {
        "evaluate": "ask suites of questions, predict texts, compare two models",
    },
    "Exchange": {
        "get": "fetch a checkpoint from the Hugging Face hub",
        "convert": "write a model in a format that other tools open",
        "quantize": "store a model in fewer bits, and say what that costs",
    },
    "Help": {
        "doctor": "what this machine can do, and which choices follow from it",
    },
}
VERBS = {verb: line for way in WAYS.values() for verb, line in way.items()}

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

More: README.md and docs/, a page for each step.
"""


def help_page() -> str:
    """What `cutaway --help` prints."""
    width = max(map(len, VERBS))
    ways = (
        "\n".join([f"{way}:", *(f"  {v:<{width}}  {line}" for v, line in verbs.items())]) for way, verbs in WAYS.items()
    )
    return HELP.format(verbs="\n\n".join(ways))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for as long as we run)
    if arguments is None:
        gc.disable()  # what is imported stays: looking through it for garbage takes a fifth of the start; see run_verb
    code = 0
    try:
        code = _answer(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("cutaway: stopped by Ctrl-C", file=sys.stderr)
        return 130
    except OSError as error:  # standard output takes no more; what is left of it is dropped, or Python would try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code:  # the verb has said so already
            return code
        if isinstance(error, BrokenPipeError):  # `cutaway … | head` has read enough
            return 0
        print(f"cutaway: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        return 2


def _answer(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_page(), end="")
        return 0
    if words[0] == "--version":
        from cutaway import __version__

        print(f"cutaway {__version__}")
        return 0
    if words[0] not in VERBS:
        from cutaway.errors import unknown

        option = words[0].startswith("-")
        known = ("--help", "--version") if option else VERBS
        print(f"cutaway: {unknown('option' if option else 'verb', words[0], known)}", file=sys.stderr)
        return 2
    # the threads of the tokenizers library do not survive a fork, and it says so at length
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from cutaway.cli._frame import run_verb

    return run_verb(words[0], words[1:])
