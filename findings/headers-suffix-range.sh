#!/bin/sh
# The crate `headers` finds no byte in a suffix range that is longer than the file.
#
# A player that asks for the last bytes of a recording sends `Range: bytes=-N`. RFC 9110, section 14.1.2:
# if the file is shorter than N, the whole file is meant. `Range::satisfiable_ranges` yields nothing, so a
# server built on it answers 416, or the whole file with 200, and the player's seek fails on short files.
# The same method yields the bytes 5 to 4 of `bytes=5-4`, which the same section calls invalid.
#
# Seen with headers 0.4.2 on 2026-11-27. callreel reads the field itself (host/src/admin/parts.rs).
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cargo init --quiet --vcs none --name range
cargo add --quiet headers@=0.4.2 http@=1.3.1
cat > src/main.rs <<'RUST'
use headers::{HeaderMapExt, Range};

fn main() {
    for asked in ["bytes=-100", "bytes=-1000", "bytes=-1001", "bytes=5-4"] {
        let mut fields = http::HeaderMap::new();
        fields.insert("range", asked.parse().unwrap());
        let range: Range = fields.typed_get().unwrap();
        let found: Vec<_> = range.satisfiable_ranges(1000).collect();
        println!("{asked} of 1000: {found:?}");
    }
}
RUST
cargo run --quiet | tee output

cat > expected <<'TEXT'
bytes=-100 of 1000: [(Included(900), Unbounded)]
bytes=-1000 of 1000: [(Included(0), Unbounded)]
bytes=-1001 of 1000: []
bytes=5-4 of 1000: [(Included(5), Included(4))]
TEXT
diff expected output
echo "headers 0.4.2: a suffix longer than the file finds nothing"
