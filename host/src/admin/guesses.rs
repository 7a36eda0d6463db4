//! Wrong tokens: each is answered late, counted and logged, however it was sent.
//!
//! An answer to a wrong token waits for its turn: five a second for one address, fifty a second for all
//! together, and at least half a second. A right token is let in at once, with one exception: on a new
//! connection it waits for half a second, too, while its address or all together send more wrong tokens
//! than that. So a guesser has to wait for each answer to learn the result.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::pace::{Rate, Shares};

/// Rates of the answers to wrong tokens, for one address and for all together.
const EACH: Rate = Rate { at_once: 5.0, per_second: 5.0 };
const TOGETHER: Rate = Rate { at_once: 50.0, per_second: 50.0 };

/// Shortest and longest delay of the answer to a wrong token.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The way in which a token was sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
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

/// Rates of wrong tokens, by address and all together.
pub(super) struct Guesses(Shares);

impl Default for Guesses {
    fn default() -> Self {
        Self(Shares::new(EACH, TOGETHER))
    }
}

impl Guesses {
    /// Counts and logs a wrong token, and waits until it may be answered.
    pub(super) async fn pause_wrong(&self, peer: SocketAddr, way: Way, board: &Board) {
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

    /// Waits until the first right token of a connection may be answered.
    pub(super) async fn pause_right(&self, peer: SocketAddr) {
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
        // All together have used up their rate.
        assert!(guesses.wrong(other, now) > PAUSE_MIN);
        assert!(guesses.0.is_spent(other, now));
        // The debt is never more than the longest delay.
        let later = now + PAUSE_MAX + Duration::from_secs(2);
        assert!(!guesses.0.is_spent(guesser, later) && !guesses.0.is_spent(other, later));
    }
}
