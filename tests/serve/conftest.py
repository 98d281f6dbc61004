"""What all tests of servers share."""

from httpx import _config

for wait in ("connect", "read", "write", "pool"):  # httpx gives up after 5 s, which a loaded machine may take
    setattr(_config.DEFAULT_TIMEOUT_CONFIG, wait, 60.0)
