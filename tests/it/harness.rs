//! What the areas share: the messages of a provider, the bytes of a WebSocket client, a recorder of
//! core's parts, the fixtures, and other people's tools as judges.

pub mod client;
pub mod fixtures;
pub mod messages;
pub mod oracle;
pub mod recorder;
