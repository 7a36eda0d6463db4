//! Answers on their way to the peer: pongs, and messages that its provider must be sent.

use std::collections::VecDeque;

use callreel_core::frame::{REPLY_BYTES_MAX, Reply};
use callreel_core::ws;

/// Most pongs that wait to be sent. One more replaces the oldest: a peer needs an answer only to its
/// newest ping (RFC 6455, section 5.5.3).
const PONGS_MAX: usize = 16;

/// Most replies that wait to be sent: ten seconds of the busiest conversation. None is ever left out.
const REPLIES_MAX: usize = 64;

/// A frame for the peer.
#[derive(Debug)]
pub enum Answer {
    /// The answer to a ping.
    Pong(ws::Control),
    /// A text message, header included.
    Reply(Vec<u8>),
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Pong(frame) => frame,
            Self::Reply(frame) => frame,
        }
    }
}

/// Frames for the peer, oldest first. *Invariant: sixteen pongs at most.* Takes memory only while it
/// holds some.
#[derive(Debug, Default)]
pub struct Answers {
    queue: VecDeque<Answer>,
    replies: usize,
}

impl Answers {
    /// Adds the answer to a ping with this payload.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.push(Answer::Pong(ws::pong(payload)));
    }

    /// Adds a message for the provider.
    pub(super) fn reply(&mut self, reply: &Reply<'_>) {
        let mut text = String::with_capacity(REPLY_BYTES_MAX);
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{reply}"));
        let mut frame = ws::text_header(text.len()).to_vec();
        frame.extend_from_slice(text.as_bytes());
        self.push(Answer::Reply(frame));
    }

    fn push(&mut self, answer: Answer) {
        if let Answer::Reply(_) = answer {
            self.replies += 1;
        } else if self.queue.len() - self.replies == PONGS_MAX {
            let oldest = self.queue.iter().position(|answer| matches!(answer, Answer::Pong(_)));
            oldest.and_then(|oldest| self.queue.remove(oldest));
        }
        self.queue.push_back(answer);
    }

    /// Adds later answers behind these.
    pub fn extend(&mut self, later: Self) {
        later.queue.into_iter().for_each(|answer| self.push(answer));
    }

    /// Whether so many replies wait that the peer must take some before it gets more.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.replies >= REPLIES_MAX
    }

    /// Takes all of them, to be sent.
    #[must_use]
    pub fn take(&mut self) -> VecDeque<Answer> {
        self.replies = 0;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_their_order_and_only_old_pongs_give_way() {
        let mut answers = Answers::default();
        for round in 0..PONGS_MAX as u8 + 2 {
            answers.pong(&[round]);
            answers.push(Answer::Reply(vec![round]));
        }
        let mut all = Answers::default();
        all.extend(answers);
        let kinds = |answers: &VecDeque<Answer>| {
            let of =
                |answer: &Answer| (matches!(answer, Answer::Reply(_)), answer.as_ref().to_vec());
            answers.iter().map(of).collect::<Vec<_>>()
        };
        let kept = kinds(&all.take());
        let replies: Vec<_> = kept.iter().filter(|(is_reply, _)| *is_reply).collect();
        let expected: Vec<_> = (0..PONGS_MAX as u8 + 2).map(|round| (true, vec![round])).collect();
        assert!(replies.into_iter().eq(&expected));
        assert_eq!(kept.len(), 2 * PONGS_MAX + 2);
        // The pongs of the first two rounds gave way; the third stands between its neighbours.
        assert_eq!(kept[2], (false, ws::pong(&[2]).to_vec()));
        assert_eq!(kept[3], (true, vec![2]));
        assert!(all.take().is_empty() && !all.is_full());
    }
}
