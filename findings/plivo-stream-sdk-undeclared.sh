#!/bin/sh
# plivo-stream-sdk cannot be imported as PyPI installs it.
#
# Its main module imports `plivo`, Plivo's other SDK, which it does not name among its requirements. With
# that installed as well, it works.
#
# Seen with plivo-stream-sdk 0.1.1 and plivo 4.63.0 on 2026-11-28. callreel's tests install both.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv python
pip() { python/bin/pip install --quiet --disable-pip-version-check "$@"; }
import() {
  python/bin/python -c 'import plivo_stream' 2>&1 | tail -n 1 | grep -o 'ModuleNotFoundError.*' ||
    echo "imported"
}
pip plivo-stream-sdk==0.1.1
import | tee output
pip plivo==4.63.0
import | tee -a output

cat > expected <<'TEXT'
ModuleNotFoundError: No module named 'plivo'
imported
TEXT
diff expected output
echo "plivo-stream-sdk 0.1.1: needs plivo, and does not say so"
