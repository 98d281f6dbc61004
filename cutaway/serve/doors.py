"""Where a server may listen, and under which names. It needs nothing of HTTP: it is asked before anything is opened."""

from __future__ import annotations

import ipaddress
import re

from cutaway.errors import ConfigError
from cutaway.serve.keys import read_keys
from cutaway.serve.settings import Settings

HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?)(?::[0-9]{1,5})?")
ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?)(?::[0-9]{1,5})?")
EVERYWHERE = ("", "0.0.0.0", "::")


def is_local(host: str) -> bool:
    """Whether nobody but this machine reaches what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_doors(settings: Settings) -> frozenset[str]:
    """Refuse to be a server that others reach and that asks nobody for a key.

    Returns:
        Names that a Host header may have.

    Raises:
        ConfigError: others can reach the address, and there is no file of keys; or a host or an origin is none.
        CutawayError: the file of keys cannot be used; see `read_keys`.
    """
    if settings.keys is None and settings.token is None and not is_local(settings.host):
        raise ConfigError(
            f"other machines can reach {settings.host or 'all addresses'}, so keys are needed: make one with "
            "'cutaway keys add keys.json NAME' and give --keys keys.json, or listen on 127.0.0.1"
        )
    if settings.keys is not None:
        read_keys(settings.keys)
    for origin in settings.origins:
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(f"{origin!r} is no origin of a page; one looks like https://app.example.org")
    own = () if settings.host in EVERYWHERE else (settings.host,)
    return frozenset({"localhost", "127.0.0.1", "[::1]", *map(_name, (*own, *settings.hosts))})


def _name(host: str) -> str:
    """A name without its port.

    Raises:
        ConfigError: it is none.
    """
    lower = host.lower()
    found = HOST.fullmatch(f"[{lower}]" if lower.count(":") > 1 and not lower.startswith("[") else lower)
    if found is None:
        raise ConfigError(f"{host!r} is no name of a host; one looks like models.example.org")
    return found[1]
