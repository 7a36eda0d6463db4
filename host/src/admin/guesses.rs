//! Wrong tokens: each is answered late, counted and told, whichever way it was shown.
//!
//! An answer to a wrong token waits for its turn: five a second of one address, fifty a second of all,
//! half a second at least. A right one is let in at once; on a new connection it waits for half a
//! second, too, while its address, or all together, show more wrong ones than that. So whoever guesses
//! has to wait for each answer to know it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::live::Board;
use crate::pace::{Rate, Shares};

/// Answers to wrong tokens, of one address and of all.
const EACH: Rate = Rate { at_once: 5.0, per_second: 5.0 };
const TOGETHER: Rate = Rate { at_once: 50.0, per_second: 50.0 };

/// How long a wrong token's answer takes at least and at most.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How a token was shown.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Bearer,
    Cookie,
    Login,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Login => "login",
        }
    }
}

/// Who guesses how often.
pub struct Guesses(Shares);

impl Default for Guesses {
    fn default() -> Self {
        Self(Shares::new(EACH, TOGETHER))
    }
}

impl Guesses {
    /// Counts and tells a wrong token, and waits until it may be answered.
    pub async fn pause_wrong(&self, peer: SocketAddr, way: Way, board: &Board) {
        let now = Instant::now();
        board.counters.count_wrong_token();
        if let Some(left_out) = board.log_rooms.trouble.take(peer.ip(), now) {
            tracing::warn!(
                %peer,
                way = way.name(),
                left_out,
                "a wrong admin token was shown: if that was you, log in with the token of --admin-token"
            );
        }
        tokio::time::sleep(self.wrong(peer.ip(), now)).await;
    }

    /// Waits until a right token may be answered that is shown on a connection for the first time.
    pub async fn pause_right(&self, peer: SocketAddr) {
        if self.0.is_spent(peer.ip(), Instant::now()) {
            tokio::time::sleep(PAUSE_MIN).await;
        }
    }

    fn wrong(&self, peer: IpAddr, now: Instant) -> Duration {
        self.0.borrow(peer, now, PAUSE_MAX).clamp(PAUSE_MIN, PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_wrong_tokens_an_address_shows_the_later_each_is_answered() {
        let guesses = Guesses::default();
        let now = Instant::now();
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let pauses: Vec<Duration> = (0..100).map(|_| guesses.wrong(guesser, now)).collect();
        assert_eq!(pauses[..7], [PAUSE_MIN; 7]);
        assert!(pauses.is_sorted() && pauses[99] == PAUSE_MAX);
        // All together have had more than they may.
        assert!(guesses.wrong(other, now) > PAUSE_MIN);
        assert!(guesses.0.is_spent(other, now));
        // What was waited for at most is all that is owed.
        let later = now + PAUSE_MAX + Duration::from_secs(2);
        assert!(!guesses.0.is_spent(guesser, later) && !guesses.0.is_spent(other, later));
    }
}
