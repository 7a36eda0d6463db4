//! A session, and all that it has given back so far.

use callreel_core::frame::Provider;
use callreel_core::session::{Gap, RING_BOTH_TRACKS_MIN, Run, Session, SilenceBudget};

/// A session with a budget, and its output: codes of all channels, and gaps.
pub(crate) struct Taken {
    pub session: Session<Vec<u8>>,
    pub codes: Vec<u8>,
    pub gaps: Vec<Gap>,
    channels: usize,
}

impl Taken {
    /// A session that has taken its start, of so many channels.
    pub(crate) fn new(
        provider: Provider,
        start: &str,
        channels: usize,
        silence: SilenceBudget,
    ) -> Self {
        let mut session = Session::new(provider, vec![0; RING_BOTH_TRACKS_MIN]);
        *session.silence_mut() = silence;
        let mut taken = Self { session, codes: vec![], gaps: vec![], channels };
        taken.take(start);
        taken
    }

    /// Takes a message, and drains its turn.
    pub(crate) fn take(&mut self, message: &str) {
        let mut message = message.as_bytes().to_vec();
        let mut turn = self.session.handle_message(&mut message).expect("a good message");
        self.gaps.extend(turn.gaps());
        let mut out = [0; 512];
        loop {
            match turn.poll_run(&mut out) {
                Run::Bytes(0) => return,
                Run::Bytes(count) => self.codes.extend(&out[..count]),
                Run::Silence(samples) => {
                    let length = self.codes.len() + samples as usize * self.channels;
                    self.codes.resize(length, 0xFF);
                }
            }
        }
    }
}
