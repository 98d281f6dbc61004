"""`cutaway keys`: who may use a server, and how much."""

import json as json_format
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cutaway.errors import ConfigError
from cutaway.serve.keys import SCOPES, add_key, read_keys, remove_key

Requests = Annotated[int | None, typer.Option(min=1, help="It may ask so often. [any number]")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Read and written. [any number]")]


def keys(
    action: Annotated[Literal["add", "list", "remove"], typer.Argument(help="add, list or remove.")],
    file: Annotated[Path, typer.Argument(help="File of keys, which `cutaway serve --keys` is given.")],
    name: Annotated[str | None, typer.Argument(help="How to call the key; not of list.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help=f"What it may do, of {', '.join(SCOPES)}; may be given twice. [infer]")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it may ask for; may be repeated. [all]")] = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    tokens_per_day: Tokens = None,
    expires: Annotated[float | None, typer.Option(help="After so many days it is no key any more.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make, list and take away the keys of a server. A key is shown once; the file holds what tells it from others.

    A server that runs reads the file again when it has changed: a key that is taken away is refused at once.

    Examples:
      cutaway keys add keys.json anna --tokens-per-day 1000000
      cutaway keys add keys.json prometheus --scope metrics
      cutaway keys list keys.json
      cutaway keys remove keys.json anna
    """
    limits: dict[str, Any] = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
    }
    given = [scope, model, expires, *limits.values()]
    if (name is None) != (action == "list"):
        raise ConfigError("'add' and 'remove' need the name of a key, 'list' takes none; see: cutaway keys --help")
    if action != "add" and any(value for value in given):
        raise ConfigError(f"'{action}' takes no options; those of a key are given when it is added")
    if action == "add":
        if expires is not None and not 0 < expires < 36_500:
            raise ConfigError(f"a key cannot expire after {expires:g} days; give a number above 0 and below 36,500")
        options = {"scopes": tuple(scope or ("infer",)), "models": tuple(model or ()), **limits}
        made = add_key(file, name or "", days=expires, **options)
        print(json_format.dumps({"name": name, "key": made}) if json else made)
        typer.echo("This key is shown once, here. Keep it where no one else reads.", err=True)
    elif action == "remove":
        remove_key(file, name or "")
        if json:
            print(json_format.dumps({"name": name, "removed": True}))
    elif json:
        told = [{n: v for n, v in vars(key).items() if n not in ("salt", "hash")} for key in read_keys(file)]
        print(json_format.dumps({"keys": told}))
    else:
        for key in read_keys(file):
            parts = [key.name, "+".join(key.scopes), *(f"model {model}" for model in key.models)]
            parts += [f"{getattr(key, limit):,} {limit.replace('_', ' ')}" for limit in limits if getattr(key, limit)]
            if key.expires is not None:
                passed = "" if key.valid(time.time()) else " (expired)"
                parts.append(f"until {time.strftime('%Y-%m-%d %H:%M', time.gmtime(key.expires))} UTC{passed}")
            print("  ".join(parts))
