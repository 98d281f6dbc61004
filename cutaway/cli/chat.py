"""`cutaway chat`: a conversation in the terminal."""

import json as json_format
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from cutaway.cli import _options as options
from cutaway.cli._frame import harmless
from cutaway.cli._speed import Watch
from cutaway.errors import CutawayError, InputError, unknown
from cutaway.files import write_atomic
from cutaway.generation.conversation import Conversation
from cutaway.generation.turn import FORMATS

COMMANDS = {
    "/help": "this list",
    "/system TEXT": "tell the model something before all that is said; nothing takes it away",
    "/reset": "forget what was said",
    "/undo": "forget the last question and its answer",
    "/save FILE": "write the conversation, as JSON",
    "/speed": "how fast the last answer was",
    "/quit": "end; so does Ctrl-D",
}
QUOTES = '"""'
HELP = f"""\
{chr(10).join(f"  {name:<14} {line}" for name, line in COMMANDS.items())}
  {QUOTES:<14} begins a text of several lines, and ends it
  //…            says something that begins with /
  Ctrl-C         stops an answer; what there is of it stays
"""


def chat(
    model: Annotated[str, typer.Argument(help="A model with a chat template: a folder, a .gguf file, or a hub name.")],
    system: Annotated[str | None, typer.Option(help="What the model is told first (or @FILE).")] = None,
    format: Annotated[
        str, typer.Option(help="template, the model's own; plain: User: and Assistant: before what is said.")
    ] = FORMATS[0],
    max_new_tokens: options.NewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    stop: options.Stop = None,
    seed: options.Seed = 0,
    speculate: options.Speculate = None,
    cache: options.Cache = "auto",
    threads: options.Threads = None,
    rounding: options.Rounding = None,
    dequantise: options.Dequantise = False,
    adapter: options.Adapter = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr how fast each answer was.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each answer as a JSON object in a line.")] = False,
) -> None:
    """Hold a conversation; /help lists its commands.

    Where the input is no terminal, each of its lines is said, and each answer is written in a line.

    Examples:
      cutaway chat model.gguf --system "Answer in one sentence."
      printf 'What is 2 + 2?\\nAnd twice that?\\n' | cutaway chat model.gguf --json
    """
    loaded = options.opened(model, dequantise, adapter)
    guesses = options.speculation(speculate)
    conversation = Conversation(
        options.engine_for(loaded, cache, threads, rounding),
        system=options.text_or_file(system, "the system's message"),
        format=format,
        max_new_tokens=max_new_tokens,
        seed=seed,
        sampling=options.said(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
        ),
        stop=stop or None,
        speculate=guesses,
    )
    if sys.stdin.isatty():
        _Talk(conversation, json, verbose).hold()
    else:
        for line in sys.stdin.buffer:
            if text := options.decoded(line, "a line of the input").strip():
                _answer(conversation, text, json, verbose)


def _answer(conversation: Conversation, text: str, json: bool, verbose: bool) -> None:
    """Say something and write the answer in a line."""
    watch, forgotten = Watch(conversation.engine), conversation.forgotten
    answer = "".join(token.text for token in watch.tokens(conversation.say(text))).strip()
    assert conversation.ticket is not None
    watch.results(conversation.ticket)
    if json:
        print(_json(conversation, answer, watch), flush=True)
    else:
        _told(conversation, forgotten)
        print(harmless(answer.replace("\\", "\\\\").replace("\n", "\\n")), flush=True)
    if verbose:
        print(watch, file=sys.stderr)


def _json(conversation: Conversation, answer: str, watch: Watch) -> str:
    said = {"text": answer, "finish_reason": conversation.finish_reason, "forgotten": conversation.forgotten}
    return json_format.dumps({**said, "speed": watch.to_json()}, ensure_ascii=False)


def _told(conversation: Conversation, before: int) -> None:
    """Say what was forgotten."""
    if (count := conversation.forgotten - before) > 0:
        what = "a message is" if count == 1 else f"{count} messages are"
        print(f"(the context is full: the oldest {what} forgotten)", file=sys.stderr)


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Ctrl-C asks to stop, which is seen between two tokens, and a second one breaks off at once.

    An exception may come anywhere: within a step, which should be finished, or where Python only reports and drops it.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield asked
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Talk:
    """A conversation with someone at a terminal."""

    def __init__(self, conversation: Conversation, json: bool, verbose: bool) -> None:
        self.conversation, self.json, self.verbose = conversation, json, verbose
        self.watch: Watch | None = None

    def hold(self) -> None:
        """Until /quit or the end of the input."""
        with suppress(ImportError):  # input() edits lines with it, and keeps their history
            import_module("readline")
        model = self.conversation.engine.model
        print(f"{harmless(model.source)}: say something, or /help", file=sys.stderr)
        while True:
            try:
                if (text := self._said()) is None:
                    return
                if text.startswith("/") and not text.startswith("//"):
                    if self._command(*text.split(maxsplit=1)) is False:
                        return
                elif text.strip():
                    self._turn(text.removeprefix("/") if text.startswith("//") else text)
            except KeyboardInterrupt:
                print("\n(/quit or Ctrl-D ends the conversation)", file=sys.stderr)
            except CutawayError as error:
                print(f"cutaway chat: {error}", file=sys.stderr)
            except OSError as error:
                print(f"cutaway chat: {error.filename or ''}: {error.strerror}", file=sys.stderr)

    def _said(self) -> str | None:
        """What is typed, a line or several between quotes; None at the end of the input."""
        try:
            line = input("> ")
            if not line.startswith(QUOTES):
                return line
            lines, line = [], line.removeprefix(QUOTES)
            while not line.endswith(QUOTES):
                lines.append(line)
                line = input(". ")
            return "\n".join([*lines, line.removesuffix(QUOTES)]).strip("\n")
        except EOFError:
            print(file=sys.stderr)
            return None
        except UnicodeDecodeError as error:
            raise InputError(f"what was typed is not UTF-8: {error.reason}") from error

    def _turn(self, text: str) -> None:
        """Say something; the answer is shown as it comes, until Ctrl-C."""
        self.watch, forgotten = Watch(self.conversation.engine), self.conversation.forgotten
        said, answer = self.conversation.say(text), []
        with _stopping() as asked:
            try:
                for token in self.watch.tokens(said):
                    if not answer:
                        _told(self.conversation, forgotten)
                    answer.append(token.text)
                    if not self.json:
                        sys.stdout.write(harmless(token.text))
                        sys.stdout.flush()
                    if asked:
                        break
            except KeyboardInterrupt:
                pass  # a second Ctrl-C: not even until the next token
        if asked:
            said.close()
            print(" (stopped)", file=sys.stderr, end="")
        if self.conversation.ticket is not None:
            self.watch.results(self.conversation.ticket)
        if self.json:
            print(_json(self.conversation, "".join(answer).strip(), self.watch), end="")
        print(flush=True)
        if self.verbose:
            print(self.watch, file=sys.stderr)

    def _command(self, name: str, rest: str = "") -> bool:
        """Do what a command says; False: end."""
        match name:
            case "/quit" | "/exit" | "/bye":
                return False
            case "/help":
                print(HELP, end="", file=sys.stderr)
            case "/reset":
                self.conversation.reset()
            case "/undo":
                self.conversation.undo()
            case "/system":
                self.conversation.system = rest
            case "/speed":
                print(self.watch or "nothing was said yet", file=sys.stderr)
            case "/save":
                if not rest:
                    raise InputError("name the file to save the conversation in: /save FILE")
                told = json_format.dumps(self.conversation.messages, ensure_ascii=False, indent=2)
                write_atomic(Path(rest.strip()), told + "\n")
                print(f"saved in {harmless(rest.strip())}", file=sys.stderr)
            case _:
                raise InputError(unknown("command", name, [known.split()[0] for known in COMMANDS]))
        return True
