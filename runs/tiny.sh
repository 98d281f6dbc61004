#!/usr/bin/env bash
# A language model of your own in under a minute, each step spelled out.  runs/tiny.sh [TEXT]
set -euo pipefail
text=${1:-python:}
room=${TMPDIR:-/tmp}/cutaway-tiny
rm -rf "$room"

cutaway prepare "$text" --out "$room/corpus" --vocab-size 2048                 # clean, tokenize, shard
cutaway train "$room/corpus" --out "$room/run" --size 2 --context 128 --steps 200   # a 2-layer decoder
cutaway generate "$room/run" --prompt "def " --max-new-tokens 60               # what it writes
cutaway look "$room/run" "import os" --html "$room/look.html"                  # what it thinks
