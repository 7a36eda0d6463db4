//! The one door for a finished recording: every consumer of finished recordings is told here.

use std::io;
use std::sync::Arc;

use crate::board::Board;
use crate::home::{Form, Health, Home};
use crate::instance::Instance;
use crate::outbox::Outbox;
use crate::record::{InFlac, Key, Record};

/// Consumers of finished recordings: the outboxes, if there is a home or somebody is to be told, and the
/// board. Each recording has a clone, so it is small.
#[derive(Clone, Debug, Default)]
pub struct Finished(Arc<Consumers>);

#[derive(Clone, Debug, Default)]
struct Consumers {
    webhooks: Option<Outbox>,
    home: Option<(Home, Outbox)>,
    form: Form,
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
        Self(Arc::new(Consumers { webhooks, board, ..Consumers::default() }))
    }

    /// The door to a home as well, and its outbox.
    #[must_use]
    pub fn with_home(mut self, home: Home, outbox: Outbox) -> Self {
        Arc::make_mut(&mut self.0).home = Some((home, outbox));
        self
    }

    /// The door to a home that gets audio in this form.
    #[must_use]
    pub fn in_form(mut self, form: Form) -> Self {
        Arc::make_mut(&mut self.0).form = form;
        self
    }

    /// The door for recordings of this instance.
    #[must_use]
    pub fn of_instance(mut self, instance: Option<Instance>) -> Self {
        Arc::make_mut(&mut self.0).instance = instance;
        self
    }

    /// Writes the instance, the place in the home and the form of the audio there into a record that is about to
    /// be written for the last time. A place that an earlier run gave to this key is kept.
    pub(crate) fn place(&self, key: &Key, record: &mut Record) {
        let of_record = record.instance.as_deref().and_then(|name| name.parse().ok());
        let instance = of_record.or_else(|| self.0.instance.clone());
        record.instance = instance.as_ref().map(|instance| instance.as_str().into());
        record.home = self.0.home.as_ref().map(|(home, _)| {
            home.address().url_of(key, &instance.unwrap_or_else(Instance::of_host)).into()
        });
        let is_flac = self.0.form == Form::Flac && self.0.home.is_some() && record.samples > 0;
        if let Some(wav) = &mut record.wav {
            let flac = || Box::new(InFlac { file: format!("{}.flac", key.id()), made: None });
            wav.flac = is_flac.then(flac);
        }
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
        self.0.home.as_ref().map(|(home, outbox)| Health::of(home, outbox))
    }

    /// Counts the recording, shows it to watchers and has it uploaded, or its message delivered. Call it
    /// once, when the final names are durable.
    pub(crate) fn settle(&self, record: &Record) {
        self.0.board.publish(record);
        self.0.webhooks.iter().for_each(Outbox::wake);
        self.0.home.iter().for_each(|(_, outbox)| outbox.wake());
    }
}
