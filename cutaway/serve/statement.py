"""What a server says when it is ready: where it is, what it has, what it may take, how to try it."""

from __future__ import annotations

import json
from typing import Any

from cutaway import __version__
from cutaway.generation import Engine
from cutaway.serve.models import Loaded
from cutaway.serve.server import Server
from cutaway.serve.settings import Settings
from cutaway.serve.sizes import for_requests, resident, spoken

# what a model is asked by what stands on top of it, with the page that answers
TRIED: dict[str, tuple[str, dict[str, Any]]] = {
    "causal_lm": ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 30}),
    "embedding": ("/v1/embeddings", {"input": "Hello!"}),
    "sequence_classification": ("/v1/classify", {"input": "Hello!"}),
    "token_classification": ("/v1/tag", {"input": "Ada was born in London."}),
}
CHAT = "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}
RANKED = "/v1/rerank", {"query": "What do plants eat?", "documents": ["Light and air.", "A bicycle has two wheels."]}
READ = "/tokenize", {"prompt": "Hello!"}  # what every model answers


def statement(server: Server, address: str, seconds: float) -> dict[str, Any]:
    """All of it as plain data.

    Args:
        server: which is ready.
        address: as a client begins its URL.
        seconds: from the start of the process until now.
    """
    settings, models = server.settings, server.models
    made = [_model(name, models.loaded.get(name), models.failed.get(name)) for name in models.sources]
    loaded = [one.sizes for one in models.loaded.values()]
    own = models.program + for_requests(settings)
    all_loaded = len(loaded) == len(models.names)
    return {
        "cutaway": __version__,
        "address": address,
        "ready_after_seconds": round(seconds, 2),
        "models": made,
        "adapters": {name: adapter.base for name, adapter in models.adapters.items()},
        "memory_bytes": {
            "program": models.program,
            "requests": for_requests(settings),
            "weights": sum(one.weights for one in loaded),
            "pages": sum(one.pages for one in loaded),
            "work": sum(one.work for one in loaded),
            "most": own + (sum(one.total for one in loaded) if all_loaded else models.budget),
            "now": resident(),
        },
        "limits": {
            "sequences_per_model": settings.max_batch,
            "queue": settings.queue,
            "deadline_seconds": settings.deadline,
            "drain_seconds": settings.drain,
            "max_body_bytes": settings.max_body,
            "max_tokens": settings.max_tokens,
        },
        "keys": settings.keys is not None,
        "texts_in_log": settings.log_texts,
        "try": _curl(address, models.loaded[made[0]["name"]], settings) if made and made[0]["loaded"] else "",
    }


def in_words(said: dict[str, Any]) -> str:
    """The same for people."""
    memory, limits = said["memory_bytes"], said["limits"]
    if "studio" in said:  # most of what else there is to say is for those who serve
        lines = [f"Cutaway {said['cutaway']}: the studio is at {said['studio']}   (Ctrl-C ends it)"]
        lines += [f"  model    {model['name']}: {_words(model)}" for model in said["models"] if model["loaded"]]
        return "\n".join(lines)
    lines = [f"Cutaway {said['cutaway']} answers at {said['address']}/v1 after {said['ready_after_seconds']:g} s"]
    for model in said["models"]:
        lines.append(f"  model    {model['name']}: {_words(model)}")
    for name, base in said["adapters"].items():
        lines.append(f"  adapter  {name} on {base}")
    parts = ", ".join(
        f"{name} {spoken(memory[key])}"
        for name, key in (
            ("program", "program"),
            ("weights", "weights"),
            ("keys and values", "pages"),
            ("work", "work"),
            ("requests", "requests"),
        )
    )
    lines.append(f"  memory   {spoken(memory['now'])} now, {spoken(memory['most'])} at the most ({parts})")
    lines.append(
        f"  limits   {limits['sequences_per_model']} texts of a model at a time, {limits['queue']} more wait, "
        f"{limits['deadline_seconds']:g} s for an answer, {limits['drain_seconds']:g} s to finish when it stops"
    )
    lines.append(
        f"  keys     {'are asked for' if said['keys'] else 'are not asked for: whoever reaches it may use it'}"
    )
    if said["texts_in_log"]:
        lines.append("  log      prompts and answers are written to it")
    lines.append(f"  try      {said['try']}")
    return "\n".join(lines)


def _model(name: str, loaded: Loaded | None, failed: Any) -> dict[str, Any]:
    if loaded is None:
        return {"name": name, "loaded": False, "why": failed[0].message if failed else "loaded when it is asked for"}
    engine, config = loaded.engine, loaded.model.config
    return {
        "name": name,
        "loaded": True,
        "kind": config.kind,
        "computed_by": engine.backend.name,
        "because": engine.backend.reason,
        "context": getattr(config, "longest", 0) or config.context,
        "chat": bool(loaded.model.tokenizer.chat_template),
        "weights_bytes": loaded.sizes.weights,
        "pages_bytes": loaded.sizes.pages,
        "work_bytes": loaded.sizes.work,
        "tokens_in_pages": _tokens(engine),
    }


def _tokens(engine: Engine) -> int:
    """Tokens whose keys and values are held at the most."""
    return engine.counts()["most"] * engine.backend.page


def _words(model: dict[str, Any]) -> str:
    if not model["loaded"]:
        return model["why"]
    held = f", keys and values of {model['tokens_in_pages']:,}" if model["tokens_in_pages"] else ""
    return (
        f"{model['computed_by']} ({model['because']}); sees {model['context']:,} tokens{held}; "
        f"weights {spoken(model['weights_bytes'])}"
    )


def _curl(address: str, loaded: Loaded, settings: Settings) -> str:
    """A line that a model answers."""
    key = " -H 'Authorization: Bearer YOUR_KEY'" if settings.keys is not None else ""
    if loaded.model.mel is not None:
        return f"curl {address}/v1/audio/transcriptions{key} -F model={loaded.name} -F file=@RECORDING.wav"
    path, asked = _tried(loaded, settings)
    body = json.dumps({"model": loaded.name, **asked})
    return f"curl {address}{path} -H 'Content-Type: application/json'{key} -d '{body}'"


def _tried(loaded: Loaded, settings: Settings) -> tuple[str, dict[str, Any]]:
    config, tokenizer = loaded.model.config, loaded.model.tokenizer
    head = getattr(config, "head", "causal_lm")
    if (
        head == "causal_lm"
        and config.kind != "seq2seq"
        and (tokenizer.chat_template or settings.chat_format == "plain")
    ):
        return CHAT
    if head == "sequence_classification" and len(getattr(config, "labels", ())) == 1:
        return RANKED
    return TRIED.get(head, READ)
