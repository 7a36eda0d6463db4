#!/bin/sh
# Builds the static program and lays out the image's files below the folder ROOT, which must not exist:
#
#   host/deploy/image.sh ROOT [CARGO OPTIONS]      without options: --release
#
# It needs rustup, musl-gcc (Debian's musl-tools; ring has C code) and the certificates of ca-certificates. The
# Dockerfile runs it, and so does a test, which starts the program below ROOT by chroot as another user.
set -eu
root=$1
shift
if [ $# -eq 0 ]; then set -- --release; fi
cd "$(dirname "$0")/../.."
target=$(uname -m)-unknown-linux-musl
command -v musl-gcc >/dev/null || {
  echo "musl-gcc is missing: apt-get install musl-tools" >&2
  exit 1
}
rustup target add "$target"
# The last line of the messages that tells of a program names the one that was built.
program=$(cargo build --locked --package callreel --bin callreel --target "$target" --message-format json "$@" |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
if [ -z "$program" ]; then exit 1; fi
mkdir -p "$root"/etc/ssl/certs "$root"/recordings
install -m 0755 "$program" "$root"/callreel
# Receivers of webhook messages, bots and ACME servers are checked by these.
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root"/etc/ssl/certs/
# A name for the user of the image, where a program asks for one.
echo 'callreel:x:10001:10001::/recordings:/sbin/nologin' >"$root"/etc/passwd
echo 'callreel:x:10001:' >"$root"/etc/group
chmod 0700 "$root"/recordings
if [ "$(id -u)" -eq 0 ]; then chown 10001:10001 "$root"/recordings; fi
