#!/bin/sh
# The crate `prometheus-client` writes the help of a metric as it is, so that a line break or a quote in it
# breaks the whole page of metrics.
#
# OpenMetrics 1.0, section "Text format": in the text behind `# HELP`, a line feed, a backslash and a double
# quote are escaped. The crate escapes the values of labels, and not this text. A help in two lines, as a
# Rust string easily gets them, leaves a line that is no metric: the parser of Prometheus' own Python client
# refuses the page, and with it every other metric.
#
# Seen with prometheus-client 0.25.0 and the Python package prometheus-client 0.22.1 on 2026-11-27. The help
# texts of callreel are in one line, and a test gives the whole page to promtool.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cargo init --quiet --vcs none --name help_text
cargo add --quiet prometheus-client@=0.25.0
cat > src/main.rs <<'RUST'
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

fn main() {
    let mut registry = Registry::default();
    let calls: Counter = Counter::default();
    registry.register("calls", "Calls that began,\nof all providers", calls);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    print!("{text}");
}
RUST
cargo run --quiet | tee page

cat > expected <<'TEXT'
# HELP calls Calls that began,
of all providers.
# TYPE calls counter
calls_total 0
# EOF
TEXT
diff expected page

python3 -m venv env
env/bin/pip install --quiet prometheus-client==0.22.1
env/bin/python - <<'PYTHON' | tee verdict
from prometheus_client.openmetrics.parser import text_string_to_metric_families

try:
    list(text_string_to_metric_families(open("page").read()))
    print("read")
except ValueError as error:
    print("refused:", str(error).splitlines()[0])
PYTHON
grep -q '^refused: ' verdict
echo "prometheus-client 0.25.0: a help in two lines makes the page of metrics unreadable"
