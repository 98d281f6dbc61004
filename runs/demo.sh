#!/usr/bin/env bash
# The story in one go: texts → tokens → a small model → its words → a look inside → the studio.  make demo [TEXT=path] [MINUTES=2]
#   runs/demo.sh [--minutes M] [TEXT …]     without a text: the sources and documentation of the Python that runs it
set -euo pipefail

minutes=2
if [ "${1:-}" = --minutes ]; then minutes=$2; shift 2; fi
texts=("$@")
[ ${#texts[@]} -gt 0 ] || texts=(python:)

room=demo-run
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/6  Texts to tokens"
rm -rf $room
cutaway prepare "${texts[@]}" --out $room/corpus --vocab-size 4096 --report

say "2/6  Training for about $minutes minutes"
cutaway train $room/corpus --out $room/run --minutes "$minutes" --size 3 --context 256 --set batch=8

say "3/6  What it writes"
if [ "${texts[0]}" = python: ]; then
  prompts=($'def read_lines(path):\n    """Return the lines of a file."""\n' $'class Counter(dict):\n    def __init__(self, ')
else
  prompts=("" "")
fi
for prompt in "${prompts[@]}"; do
  cutaway generate $room/run --prompt "$prompt" --max-new-tokens 120 --temperature 0.7 --seed 1 --verbose
  printf '\n'
done

say "4/6  The same in few bits"
cutaway quantize $room/run $room/int4 --kind int4 --json | python -c '
import json, sys
report = json.load(sys.stdin)
print("{bytes_before:,} bytes became {bytes_after:,}; the perplexity grew by {growth:.2f} %, and {agreement:.1%} of the".format(**report),
      "likeliest tokens are the same")'
cutaway generate $room/int4 --prompt "${prompts[0]}" --max-new-tokens 120 --temperature 0.7 --seed 1 --verbose

say "5/6  A look inside"
if [ "${texts[0]}" = python: ]; then
  look=$'for name in names:\n    if name not in seen:\n        seen.add(name)\n'
else
  look=$(cutaway generate $room/run --prompt "" --max-new-tokens 40 --temperature 0.7 --seed 2 --json |
    python -c 'import json, sys; print(json.load(sys.stdin)["text"])')
fi
cutaway look $room/run "$look" --html $room/look.html

say "What next"
next() { printf '  %-25s%s\n' "$@"; }
next "in each terminal first" "source .venv/bin/activate" \
  "the look, offline" "open $room/look.html" \
  "what became of the text" "open $room/corpus/report.html" \
  "all pages about it" "cutaway studio $room/run" \
  "let it write" "cutaway generate $room/run --prompt 'import '" \
  "talk to it, if untaught" "cutaway chat $room/run --format plain" \
  "why this token?" "cutaway look $room/run 'def main(' --token ' self'" \
  "let it learn for longer" "cutaway train --resume $room/run --minutes 10" \
  "with texts of yours" "make demo TEXT=path/to/your/texts" \
  "for OpenAI's clients" "cutaway serve $room/run --chat-format plain"

say "6/6  The studio"
if [ -t 0 ] && [ -t 1 ]; then
  exec cutaway studio $room/run --folder $room --port 0
fi
python - $room <<'PYTHON'
# Nobody watches: see that the page answers and that the model opens, and end.
import json, subprocess, sys, threading, urllib.request

command = ["cutaway", "studio", f"{sys.argv[1]}/run", "--folder", sys.argv[1], "--port", "0", "--no-browser", "--json"]
studio = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
late = threading.Timer(120, studio.kill)
late.start()
try:
    line = studio.stdout.readline()
    if not line:
        sys.exit("the studio did not start")
    url = json.loads(line)["studio"].rstrip("/")
    asked = urllib.request.Request(f"{url}/studio/open", b'{"model": "run"}', {"content-type": "application/json"})
    for what in (url, asked):
        with urllib.request.urlopen(what, timeout=60) as answer:
            assert answer.status == 200
    print(f"Its page answered and opened the model. In a terminal the demo ends on it: cutaway studio {sys.argv[1]}/run")
finally:
    late.cancel()
    studio.terminate()
    studio.wait()
PYTHON
