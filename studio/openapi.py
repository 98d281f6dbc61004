"""Write the schema of the server with the studio, from which the pages' types are made: python studio/openapi.py

A test holds studio/openapi.json to the server.
"""

import json
from pathlib import Path

from cutaway.serve import Settings
from cutaway.serve.app import create_app


def schema() -> str:
    """As it stands in studio/openapi.json."""
    made = create_app(Settings(models={}, studio=Path("."))).openapi()
    made["info"].pop("version")
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("openapi.json").write_text(schema(), "utf-8")
