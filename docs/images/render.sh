#!/usr/bin/env bash
# Draws report.png, the picture in the README, from the newest report of the quickstart. Needs chromium.
#   docs/images/render.sh [REPORT.html]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
page=${1:-$("$root/.venv/bin/ilab" -C "$root/examples/quickstart" report open --print)}
picture=$root/docs/images/report.png
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --user-data-dir="$scratch" --hide-scrollbars --window-size=1120,1300 \
    --screenshot="$picture" "file://$(realpath "$page")" 2>"$scratch/errors" || { cat "$scratch/errors" >&2; exit 1; }

size=$(stat -c %s "$picture")
if [ "$size" -gt 250000 ] && command -v pngquant >/dev/null; then
    pngquant --force --output "$picture" 64 "$picture"
    size=$(stat -c %s "$picture")
fi
echo "$picture: $size bytes"
[ "$size" -le 250000 ] || { echo "over 250000 bytes: install pngquant and run this again" >&2; exit 1; }
