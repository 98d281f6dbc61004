"""A process of its own that tries forms out; `constrain.py` starts it as a script. It imports nothing of Cutaway.

A form comes from whoever asks. What compiles it is a library in another language: should a form break that, or take
long, it breaks this process and no other ({"type": "integer", "const": -1e308} uses up the stack of llguidance 1.9).
Requests and answers are JSON, each after its length in 8 bytes.
"""

import json
import sys
from typing import Any, BinaryIO

import llguidance

MEMORY = 2**31  # bytes


def confine() -> None:
    """Let this process use little memory, where the system has such a limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def answer(request: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a form, if anything."""
    try:
        limits = llguidance.LLParserLimits(verbose_errors=False, **request["limits"])
        wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(request["grammar"], limits=limits)
    except BaseException as error:  # a panic of the library is no Exception
        return {"error": f"panic: {error}"}
    return {"error": messages[0] if wrong else ""}


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while size := source.read(8):
        request = json.loads(source.read(int.from_bytes(size, "little")))
        data = json.dumps(answer(request)).encode()
        sink.write(len(data).to_bytes(8, "little") + data)
        sink.flush()


if __name__ == "__main__":
    confine()
    serve(sys.stdin.buffer, sys.stdout.buffer)
