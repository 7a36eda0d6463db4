//! Parts that the areas share: the messages of a provider, the bytes of a WebSocket client, a recorder
//! of core's parts, the fixtures, independent tools as judges, and the running program.

pub(crate) mod admin;
pub(crate) mod bot;
pub(crate) mod bucket;
pub(crate) mod client;
pub(crate) mod clouds;
pub(crate) mod disk;
pub(crate) mod fixtures;
pub(crate) mod intermediary;
pub(crate) mod line;
pub(crate) mod messages;
pub(crate) mod oracle;
pub(crate) mod packages;
pub(crate) mod pebble;
pub(crate) mod peer;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod receiver;
pub(crate) mod recorder;
pub(crate) mod relayed;
pub(crate) mod renewals;
pub(crate) mod seaweed;
pub(crate) mod served;
pub(crate) mod serving;
pub(crate) mod shelf;
pub(crate) mod small_disk;
pub(crate) mod taken;
pub(crate) mod tap;
