//! Memory of answers that their clients have not taken yet, bounded for all connections together.
//!
//! Each connection is a guest with an account. The bytes made for a guest are booked before they wait,
//! and taken off when they go to the socket. When all accounts together pass the bound, the guest that
//! has taken nothing for the longest time is let go, with all bytes that wait for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::Notify;

use crate::lock::lock;

/// Most bytes that all answers may hold together. Beside them, each connection has two buffers of at
/// most [`SLICE_BYTES`](self::SLICE_BYTES).
pub(super) const HELD_BYTES_MAX: usize = 24 << 20;

/// Most bytes of an answer that go to the socket at once: from there, this module cannot take them
/// back.
pub(super) const SLICE_BYTES: usize = 16 * 1024;

tokio::task_local! {
    /// The guest that is being answered.
    static GUEST: Arc<Guest>;
}

/// The accounts of all connections.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    all: BTreeMap<u64, Account>,
    next_key: u64,
    /// Sum of the accounts that are not let go.
    sum: usize,
}

#[derive(Debug)]
struct Account {
    bytes: usize,
    /// Time at which the guest last took bytes, or had none to take.
    taken: Instant,
    is_let_go: bool,
    bell: Arc<Notify>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Guest {
    ledger: Arc<Ledger>,
    key: u64,
    bell: Arc<Notify>,
}

/// Bytes in a guest's account; taken off it when dropped.
#[derive(Debug)]
pub(super) struct Held {
    guest: Arc<Guest>,
    bytes: usize,
}

impl Ledger {
    /// Opens an account for a connection.
    pub(super) fn guest(self: &Arc<Self>) -> Arc<Guest> {
        let mut accounts = self.lock();
        let (key, bell) = (accounts.next_key, Arc::<Notify>::default());
        accounts.next_key += 1;
        let account =
            Account { bytes: 0, taken: Instant::now(), is_let_go: false, bell: Arc::clone(&bell) };
        accounts.all.insert(key, account);
        drop(accounts);
        Arc::new(Guest { ledger: Arc::clone(self), key, bell })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Accounts> {
        lock(&self.0)
    }
}

impl Accounts {
    fn book(&mut self, key: u64, bytes: usize, now: Instant) {
        let Some(account) = self.all.get_mut(&key) else { return };
        if account.bytes == 0 {
            account.taken = now;
        }
        account.bytes += bytes;
        if !account.is_let_go {
            self.sum += bytes;
        }
        while self.sum > HELD_BYTES_MAX {
            let holders = self.all.values_mut().filter(|one| one.bytes > 0 && !one.is_let_go);
            let Some(slowest) = holders.min_by_key(|one| one.taken) else { return };
            slowest.is_let_go = true;
            slowest.bell.notify_one();
            self.sum -= slowest.bytes;
        }
    }

    fn take_off(&mut self, key: u64, bytes: usize, now: Instant) {
        if let Some(account) = self.all.get_mut(&key) {
            account.bytes -= bytes;
            account.taken = now;
            if !account.is_let_go {
                self.sum -= bytes;
            }
        }
    }
}

impl Guest {
    /// The guest that is being answered. Outside of an answer, a guest with a ledger of its own.
    pub(super) fn current() -> Arc<Self> {
        GUEST.try_with(Arc::clone).unwrap_or_else(|_| Arc::<Ledger>::default().guest())
    }

    /// Books bytes that are made for the guest.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.ledger.lock().book(self.key, bytes, Instant::now());
        Held { guest: Arc::clone(self), bytes }
    }

    /// Resolves when the guest is let go.
    pub(super) async fn let_go(&self) {
        self.bell.notified().await;
    }

    /// Makes an answer, and books its body until the socket takes it.
    pub(super) async fn answer<E>(
        self: Arc<Self>,
        answer: impl Future<Output = Result<Response, E>>,
    ) -> Result<Response, E> {
        let (head, body) = GUEST.scope(Arc::clone(&self), answer).await?.into_parts();
        if body.size_hint().exact().is_none_or(|length| length == 0) {
            // A streamed body books its pieces itself, and an empty one needs no booking.
            return Ok(Response::from_parts(head, body));
        }
        let Ok(whole) = body.collect().await else {
            return Ok(Response::from_parts(head, Body::empty()));
        };
        let bytes = whole.to_bytes();
        let held = self.hold(bytes.len());
        Ok(Response::from_parts(head, Body::new(Whole(Some(Piece { bytes, held })))))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut accounts = self.ledger.lock();
        if let Some(account) = accounts.all.remove(&self.key)
            && !account.is_let_go
        {
            accounts.sum -= account.bytes;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guest.ledger.lock().take_off(self.guest.key, self.bytes, Instant::now());
    }
}

/// Bytes on their way to a guest.
#[derive(Debug)]
pub(super) struct Piece {
    pub bytes: Bytes,
    pub held: Held,
}

impl Piece {
    /// Takes the next slice for the socket from a piece; the last slice ends the piece.
    pub(super) fn next_slice(piece: &mut Option<Self>) -> Option<Bytes> {
        let Self { bytes, held } = piece.as_mut()?;
        // No bytes are taken off: the whole piece stays in memory as long as a part of it does.
        held.guest.ledger.lock().take_off(held.guest.key, 0, Instant::now());
        if bytes.len() > SLICE_BYTES {
            return Some(bytes.split_to(SLICE_BYTES));
        }
        piece.take().map(|piece| piece.bytes)
    }
}

/// The body of an answer that was made at once.
struct Whole(Option<Piece>);

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Piece::next_slice(&mut self.0).map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |piece| piece.bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_go(guest: &Guest) -> bool {
        guest.ledger.lock().all[&guest.key].is_let_go
    }

    #[test]
    fn who_takes_nothing_for_the_longest_time_goes_first() {
        let ledger = Arc::<Ledger>::default();
        let [stuck, reads, new] = [(); 3].map(|()| ledger.guest());
        let mut held: Vec<Held> = (0..3).map(|_| stuck.hold(HELD_BYTES_MAX / 4)).collect();
        for _ in 0..1000 {
            drop(reads.hold(HELD_BYTES_MAX / 5));
        }
        let last = reads.hold(1);
        assert_eq!(ledger.lock().sum, HELD_BYTES_MAX / 4 * 3 + 1);
        held.push(new.hold(HELD_BYTES_MAX / 4));
        assert_eq!([&stuck, &reads, &new].map(|guest| is_let_go(guest)), [true, false, false]);
        drop((last, held, stuck));
        let accounts = ledger.lock();
        assert_eq!((accounts.sum, accounts.all.len()), (0, 2));
    }

    #[test]
    fn an_answer_too_large_for_all_is_for_nobody() {
        let ledger = Arc::<Ledger>::default();
        let (one, other) = (ledger.guest(), ledger.guest());
        let _held = other.hold(100);
        let _too_much = one.hold(HELD_BYTES_MAX + 1);
        assert!(is_let_go(&one) && ledger.lock().sum <= 100);
    }
}
