"""House rules that no linter knows: file sizes, no unsafe loading. Run by make check."""

import re
import subprocess
import sys
from pathlib import Path

LONGEST = 600
UNSAFE = re.compile(
    r"\bimport (pickle|joblib|dill|shelve|marshal)\b|\btorch\.load\(|allow_pickle=True|\beval\(|\bexec\("
)
CODE = {".py", ".ts", ".svelte", ".js", ".css", ".html", ".cpp", ".h"}


def complaints(root: Path) -> list[str]:
    """Every broken rule, a line each."""
    found = []
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        path = root / name
        if not path.is_file() or path.suffix not in CODE:
            continue
        lines = path.read_text("utf-8").splitlines()
        if len(lines) > LONGEST:
            found.append(f"{name}: {len(lines)} lines; split it by idea (at most {LONGEST})")
        if name.startswith("cutaway/"):
            found += [
                f"{name}:{number}: {line.strip()!r} may run code from a file"
                for number, line in enumerate(lines, 1)
                if UNSAFE.search(line) and ".eval()" not in line
            ]
    return found


if __name__ == "__main__":
    broken = complaints(Path(__file__).parents[1])
    print("\n".join(broken) or "house rules hold")
    sys.exit(1 if broken else 0)
