"""`cutaway chat`: a conversation in the terminal."""

import json as json_format
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cutaway.cli import _options as options
from cutaway.cli._frame import harmless
from cutaway.cli._speed import Watch
from cutaway.errors import CutawayError, InputError, unknown
from cutaway.files import write_atomic
from cutaway.generation.conversation import LONGEST_ANSWER, Conversation
from cutaway.generation.engine import Engine
from cutaway.generation.hindsight import weighed
from cutaway.generation.turn import FORMATS

COMMANDS = {
    "/help": "this list",
    "/system TEXT": "tell the model something before all that is said; no TEXT: no longer",
    "/reset": "forget what was said",
    "/undo": "forget the last question and its answer",
    "/save FILE": "write the conversation: as JSON, or a .md file as Markdown",
    "/look": "the last answer's tokens: how likely each was, and what else was",
    "/look N [FILE]": "one of them; FILE is a page of what the model did there",
    "/model": "the models that were opened",
    "/model NAME": "go on with another: one of these, a folder, a file or a hub name",
    "/speed": "how fast the last answer was",
    "/quit": "end; so does Ctrl-D",
}
QUOTES = '"""'
HISTORY = 1000  # lines kept in a file of what was typed
HELP = f"""\
{chr(10).join(f"  {name:<15} {line}" for name, line in COMMANDS.items())}
  {QUOTES:<15} begins a text of several lines, and ends it
  //…             says something that begins with /
  Ctrl-C          stops an answer; what there is of it stays
"""


def chat(
    model: Annotated[str, typer.Argument(help="A model with a chat template: a folder, a .gguf file, or a hub name.")],
    system: Annotated[str | None, typer.Option(help="What the model is told first (or @FILE).")] = None,
    format: Annotated[
        str, typer.Option(help="template, the model's own; plain: User: and Assistant: before what is said.")
    ] = FORMATS[0],
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens", "-n", help=f"Tokens of an answer; as the checkpoint says, or {LONGEST_ANSWER}."
        ),
    ] = None,
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
    history: Annotated[
        Path | None, typer.Option(help="Keep what is typed in this file, for the next time; else nothing is kept.")
    ] = None,
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

        def another(source: str) -> Engine:
            return options.engine_for(options.opened(source, dequantise), cache, threads, rounding)

        with _remembered(history):
            _Talk(conversation, json, verbose, another).hold()
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


@contextmanager
def _remembered(history: Path | None) -> Iterator[None]:
    """What was typed before can be called back, and what is typed now is kept; without a file, neither."""
    if history is None:
        yield
        return
    try:
        readline = import_module("readline")
    except ImportError:
        raise InputError(
            "this Python keeps no history of what is typed (it has no readline); leave --history out"
        ) from None
    if history.exists():
        readline.read_history_file(history)
    else:
        history.touch(0o600)  # nobody else's to read
    readline.set_history_length(HISTORY)
    try:
        yield
    finally:
        readline.write_history_file(history)


class _Talk:
    """A conversation with someone at a terminal.

    Args:
        conversation: with the first model.
        json: whether answers are told as JSON.
        verbose: whether their speed is told.
        another: opens another model.
    """

    def __init__(self, conversation: Conversation, json: bool, verbose: bool, another: Callable[[str], Engine]) -> None:
        self.conversation, self.json, self.verbose = conversation, json, verbose
        self.watch: Watch | None = None
        self._another, self._answered = another, conversation  # the one that the last answer is of
        source = conversation.engine.model.source
        self._engines = {_name(source, {}): conversation.engine}

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
        self._answered = self.conversation
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
                file, messages = Path(rest.strip()), self.conversation.messages
                told = json_format.dumps(messages, ensure_ascii=False, indent=2)
                if file.suffix == ".md":
                    told = "\n".join(f"## {one['role']}\n\n{one['content'].strip()}\n" for one in messages).rstrip()
                write_atomic(file, told + "\n")
                print(f"saved in {harmless(rest.strip())}", file=sys.stderr)
            case "/look":
                self._look(*rest.split(maxsplit=1))
            case "/model":
                self._model(rest.strip())
            case _:
                raise InputError(unknown("command", name, {known.split()[0] for known in COMMANDS}))
        return True

    def _look(self, word: str = "", file: str = "") -> None:
        """Look at the last answer's tokens, or at one of them."""
        from cutaway.cli import _look

        talk = self._answered
        if talk.ticket is None:
            raise InputError("nothing was said yet that could be looked at")
        tokens, model = weighed(talk.engine, talk.ticket), talk.engine.model
        number = _look.chosen(word, len(tokens))
        if self.json:
            print(json_format.dumps(_look.to_json(model, tokens, number), ensure_ascii=False), flush=True)
            return
        console = Console(highlight=False)
        if number is None:
            _look.table(model, tokens, console)
        elif not file:
            _look.opened(model, number, tokens[number - 1], console)
        else:
            from cutaway.interp import look

            before = [*talk.ticket.prompt_ids, *(token.id for token in tokens[: number - 1])]
            write_atomic(Path(file.strip()), look(model, before, token=tokens[number - 1].id).to_html())
            print(f"wrote {harmless(file.strip())}", file=sys.stderr)

    def _model(self, wanted: str) -> None:
        """Go on with another model, or say which there are."""
        if wanted:
            name = next((name for name, engine in self._engines.items() if wanted in (name, engine.model.source)), "")
            if not name:
                engine = self._another(wanted)
                self.conversation = self.conversation.with_engine(engine)  # it may have no template
                self._engines[_name(wanted, self._engines)] = engine
            else:
                self.conversation = self.conversation.with_engine(self._engines[name])
        for name, engine in self._engines.items():
            mark = "→" if engine is self.conversation.engine else " "
            print(f"{mark} {harmless(name)}  {harmless(engine.model.source)}", file=sys.stderr)


def _name(source: str, taken: Collection[str]) -> str:
    """What a model is called here: the last part of where it came from, numbered where that is taken."""
    first = source.rstrip("/").rpartition("/")[2] or source
    names = (first if number == 1 else f"{first}-{number}" for number in count(1))
    return next(name for name in names if name not in taken)
