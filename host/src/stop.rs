//! The order to stop. It comes from signals, the API or the program around the recorder, and only ever
//! becomes more urgent.

use std::sync::Arc;

use tokio::sync::watch;

/// How soon a recorder is to end.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Order {
    /// Not at all.
    #[default]
    GoOn,
    /// Take no new calls, and end with the last running one.
    Drain,
    /// The same, but finish all calls after [`Config::drain`](crate::Config::drain) at the latest.
    Stop,
    /// Finish all calls now.
    Finish,
}

/// Tells a recorder when to end. Clones give orders to the same recorder.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<watch::Sender<Order>>);

impl Stop {
    /// Drains without a limit: no new calls are taken, and the recorder ends with the last running one.
    pub fn drain(&self) {
        self.raise(Order::Drain);
    }

    /// Drains for [`Config::drain`](crate::Config::drain) at most. A second call finishes all calls now.
    pub fn stop(&self) {
        let next = if self.order() < Order::Stop { Order::Stop } else { Order::Finish };
        self.raise(next);
    }

    /// Finishes all calls now.
    pub fn finish(&self) {
        self.raise(Order::Finish);
    }

    /// The most urgent order so far.
    #[must_use]
    pub fn order(&self) -> Order {
        *self.0.borrow()
    }

    /// Waits for an order that is more urgent than this one.
    pub async fn exceeds(&self, order: Order) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|now| *now > order).await;
    }

    fn raise(&self, order: Order) {
        self.0.send_if_modified(|now| {
            let is_more = order > *now;
            *now = order.max(*now);
            is_more
        });
    }
}
