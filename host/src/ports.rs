//! Faults of a port that a listener cannot have.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// The reason why `option` cannot listen on an address, and the remedy.
#[must_use]
pub fn refusal(address: SocketAddr, option: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program uses the port: stop it, or choose another port with"
        }
        ErrorKind::AddrNotAvailable => "no network interface has that address: choose another with",
        ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose another port with",
        _ => return format!("cannot listen on {address}: {error}"),
    };
    format!("cannot listen on {address}: {advice} {option}")
}
