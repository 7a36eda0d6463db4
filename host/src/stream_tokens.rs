//! One-time tokens that tie a stream to the webhook of its call.
//!
//! A signature has no nonce, so anybody that has seen a stream's signed upgrade can repeat it. A token
//! is good for [`AGE_MAX`] and for its own call. A call has one: once a stream has shown a token, all
//! others that the call's webhook was given before are void. Tokens are made with a key that only this
//! process has, so webhook and stream must come to the same process.
//!
//! With a key that instances share, a token would be good once at each of them: that it was redeemed is
//! known to one process alone. To ask the others means to wait for the disk, which no media thread does.
//!
//! Nothing is stored of a token before it is redeemed, so no number of webhooks takes memory or another
//! call's token.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::lock::lock;

/// The name of the stream parameter that carries the token.
pub(crate) const PARAMETER: &str = "callreel_token";

/// Another name of it, for providers that take letters and digits alone.
pub(crate) const PLAIN_PARAMETER: &str = "callreelToken";

/// The name under which a stream's URL or parameters have the id of its call, as the webhook told it.
pub(crate) const CALL: &str = "callreel_call";

/// The time for which a token is good: the call rings, is answered, and the greeting is said meanwhile.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(60);

/// The most tokens that may be redeemed within that time; one more is refused.
const REDEEMED_MAX: usize = 65_536;

/// Characters of a token in its plain spelling: two for each byte of its time and its MAC.
const PLAIN_CHARS: usize = 2 * (size_of::<u64>() + 32);

/// A call, by the digest of its id.
type Call = [u8; 16];

/// Issues and redeems tokens.
pub struct StreamTokens {
    key: [u8; 32],
    began: Instant,
    redeemed: Mutex<Redeemed>,
}

/// The calls that redeemed tokens in the last [`AGE_MAX`].
#[derive(Default)]
struct Redeemed {
    /// Each call with the microsecond of its last redemption.
    calls: HashMap<Call, u64>,
    /// The redemptions in order, oldest first; a call that redeemed another token since is there twice.
    order: VecDeque<(u64, Call)>,
}

impl StreamTokens {
    /// Makes tokens with a new random key.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, began: Instant::now(), redeemed: Mutex::default() })
    }

    /// Makes a token for a call.
    pub fn issue(&self, call_id: &str, now: Instant) -> String {
        let issued = self.micros(now);
        let mac = self.mac(call_id, issued).finalize().into_bytes();
        BASE64URL_NOPAD.encode(&[&issued.to_be_bytes()[..], &mac].concat())
    }

    /// A token in another spelling: of digits and lower-case letters alone.
    pub fn in_plain(token: &str) -> String {
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes());
        HEXLOWER.encode(&bytes.unwrap_or_default())
    }

    /// Redeems a token in either spelling. Returns whether it is good: it is this call's, fresh, and no token of the call
    /// was redeemed since it was issued.
    pub fn redeem(&self, call_id: &str, token: &str, now: Instant) -> bool {
        let bytes = match token.len() {
            PLAIN_CHARS => HEXLOWER.decode(token.as_bytes()),
            _ => BASE64URL_NOPAD.decode(token.as_bytes()),
        };
        let Ok(bytes) = bytes else {
            return false;
        };
        let Some((issued, mac)) = bytes.split_first_chunk() else {
            return false;
        };
        let (now, issued) = (self.micros(now), u64::from_be_bytes(*issued));
        if self.mac(call_id, issued).verify_slice(mac).is_err() || is_over(issued, now) {
            return false;
        }
        let mut call = Call::default();
        call.copy_from_slice(&Sha256::digest(call_id)[..16]);
        let mut redeemed = lock(&self.redeemed);
        redeemed.forget_old(now);
        let is_new = redeemed.calls.get(&call).is_none_or(|last| issued > *last);
        if !is_new || redeemed.order.len() >= REDEEMED_MAX {
            return false;
        }
        // The stream's thread may have read its clock before the webhook did.
        let now = now.max(issued);
        redeemed.calls.insert(call, now);
        redeemed.order.push_back((now, call));
        true
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_micros() as u64
    }

    fn mac(&self, call_id: &str, issued: u64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key");
        mac.update(&issued.to_be_bytes());
        mac.update(call_id.as_bytes());
        mac
    }
}

impl Redeemed {
    fn forget_old(&mut self, now: u64) {
        while let Some((at, call)) = self.order.front().filter(|(at, _)| is_over(*at, now)) {
            // The call stays if it redeemed another token later.
            if self.calls.get(call) == Some(at) {
                self.calls.remove(call);
            }
            self.order.pop_front();
        }
    }
}

/// Whether at least [`AGE_MAX`] has passed from `then` to `now`.
const fn is_over(then: u64, now: u64) -> bool {
    now.saturating_sub(then) >= AGE_MAX.as_micros() as u64
}

impl fmt::Debug for StreamTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamTokens(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_token_is_good_once_for_its_call_and_its_time() {
        let tokens = StreamTokens::new().unwrap();
        let now = Instant::now();
        let token = tokens.issue("CA1", now);
        assert!(!tokens.redeem("CA2", &token, now));
        assert!(!StreamTokens::new().unwrap().redeem("CA1", &token, now));
        assert!(!tokens.redeem("CA1", &token, now + AGE_MAX));
        for wrong in ["", "AAAA", "+", &token[1..], &"A".repeat(54)] {
            assert!(!tokens.redeem("CA1", wrong, now), "{wrong}");
        }
        assert!(tokens.redeem("CA1", &token, now + AGE_MAX - SECOND));
        assert!(!tokens.redeem("CA1", &token, now + AGE_MAX - SECOND));
    }

    #[test]
    fn a_token_is_one_in_both_spellings() {
        let tokens = StreamTokens::new().unwrap();
        let now = Instant::now();
        let token = tokens.issue("CA1", now);
        let plain = StreamTokens::in_plain(&token);
        assert!(
            plain.bytes().all(|byte| byte.is_ascii_alphanumeric()) && plain.len() == PLAIN_CHARS
        );
        assert!(!tokens.redeem("CA2", &plain, now));
        assert!(tokens.redeem("CA1", &plain, now));
        assert!(!tokens.redeem("CA1", &token, now) && !tokens.redeem("CA1", &plain, now));
    }

    #[test]
    fn a_call_has_one_token_however_often_its_webhook_asks() {
        let tokens = StreamTokens::new().unwrap();
        let now = Instant::now();
        let many: Vec<String> =
            (0..100).map(|n| tokens.issue("CA1", now + SECOND * n / 100)).collect();
        assert!(tokens.redeem("CA1", &many[50], now + SECOND));
        for other in &many {
            assert!(!tokens.redeem("CA1", other, now + SECOND));
        }
        // The call's webhook is asked again, for a second stream.
        let later = tokens.issue("CA1", now + 2 * SECOND);
        assert!(tokens.redeem("CA1", &later, now + 3 * SECOND));
        assert!(!tokens.redeem("CA1", &later, now + 3 * SECOND));
        assert!(!tokens.redeem("CA1", &many[99], now + 3 * SECOND));
    }

    #[test]
    fn a_flood_of_webhooks_costs_no_other_call_its_token() {
        let tokens = StreamTokens::new().unwrap();
        let now = Instant::now();
        let honest = tokens.issue("CA1", now);
        for number in 0..100_000 {
            tokens.issue(if number % 2 == 0 { "CA2" } else { "CA3" }, now);
        }
        let last = tokens.issue("CA2", now);
        assert!(tokens.redeem("CA2", &last, now) && tokens.redeem("CA1", &honest, now));
        assert_eq!(tokens.redeemed.lock().unwrap().calls.len(), 2);
        let later = tokens.issue("CA4", now + 2 * AGE_MAX);
        assert!(tokens.redeem("CA4", &later, now + 2 * AGE_MAX));
        let redeemed = tokens.redeemed.lock().unwrap();
        assert_eq!((redeemed.calls.len(), redeemed.order.len()), (1, 1));
    }
}
