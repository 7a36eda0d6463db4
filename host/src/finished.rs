//! The one door for a finished recording: every consumer of finished recordings is told here.

use std::io;
use std::sync::Arc;

use crate::board::Board;
use crate::home::{Address, Health};
use crate::instance::Instance;
use crate::outbox::Outbox;
use crate::record::{Key, Record};

/// Consumers of finished recordings: the outboxes, if there is a home or somebody is to be told, and the
/// board. Each recording has a clone, so it is small.
#[derive(Clone, Debug, Default)]
pub struct Finished(Arc<Consumers>);

#[derive(Clone, Debug, Default)]
struct Consumers {
    webhooks: Option<Outbox>,
    home: Option<(Address, Outbox)>,
    instance: Option<Instance>,
    board: Arc<Board>,
}

/// The consumer for which a recording has to stay on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Held {
    /// Somebody is still to be told of it, and may then ask for it.
    Webhook,
    /// The home lacks it: there is no other copy.
    Home,
}

impl Finished {
    /// The door to these consumers. `webhooks` is the outbox of those that are to be told.
    #[must_use]
    pub fn new(webhooks: Option<Outbox>, board: Arc<Board>) -> Self {
        Self(Arc::new(Consumers { webhooks, home: None, instance: None, board }))
    }

    /// The door to a home as well: its address, and its outbox.
    #[must_use]
    pub fn with_home(mut self, address: Address, outbox: Outbox) -> Self {
        Arc::make_mut(&mut self.0).home = Some((address, outbox));
        self
    }

    /// The door for recordings of this instance.
    #[must_use]
    pub fn of_instance(mut self, instance: Option<Instance>) -> Self {
        Arc::make_mut(&mut self.0).instance = instance;
        self
    }

    /// Writes the instance and the place in the home into a record that is about to be written for the last
    /// time. A place that an earlier run gave to this key is kept.
    pub(crate) fn place(&self, key: &Key, record: &mut Record) {
        let of_record = record.instance.as_deref().and_then(|name| name.parse().ok());
        let instance = of_record.or_else(|| self.0.instance.clone());
        record.instance = instance.as_ref().map(|instance| instance.as_str().into());
        record.home = self.0.home.as_ref().map(|(address, _)| {
            address.url_of(key, &instance.unwrap_or_else(Instance::of_host)).into()
        });
    }

    /// Keeps a message about the recording, durably. Call it just before the record gets its final name:
    /// after a crash a message may come twice, but is never lost.
    ///
    /// # Errors
    /// The recording is for the home, and its entry cannot be written: it must not be published yet.
    pub(crate) fn announce(&self, key: &Key, record: &Record) -> io::Result<()> {
        if let Some((_, outbox)) = &self.0.home {
            return outbox.try_post(key, record);
        }
        self.0.webhooks.iter().for_each(|outbox| outbox.post(key, record));
        Ok(())
    }

    /// The consumer that still needs a recording on the disk, the home first.
    pub(crate) fn holds(&self, key: &Key) -> Option<Held> {
        if self.0.home.as_ref().is_some_and(|(_, outbox)| outbox.holds(key)) {
            return Some(Held::Home);
        }
        self.0.webhooks.as_ref().is_some_and(|outbox| outbox.holds(key)).then_some(Held::Webhook)
    }

    /// The state of the home, if there is one.
    pub(crate) fn home(&self) -> Option<Health> {
        self.0.home.as_ref().map(|(address, outbox)| Health::of(address, outbox))
    }

    /// Counts the recording, shows it to watchers and has it uploaded, or its message delivered. Call it
    /// once, when the final names are durable.
    pub(crate) fn settle(&self, record: &Record) {
        self.0.board.publish(record);
        self.0.webhooks.iter().for_each(Outbox::wake);
        self.0.home.iter().for_each(|(_, outbox)| outbox.wake());
    }
}
