//! Parts that the areas share: the messages of a provider, the bytes of a WebSocket client, a recorder
//! of core's parts, the fixtures, independent tools as judges, and the running program.

pub mod admin;
pub mod client;
pub mod disk;
pub mod fixtures;
pub mod messages;
pub mod oracle;
pub mod peer;
pub mod process;
pub mod receiver;
pub mod recorder;
pub mod served;
pub mod serving;
pub mod shelf;
pub mod small_disk;
