//! callreel: records the phone calls that a provider streams over WebSocket.

pub mod audio;
pub mod caller;
