//! Messages to the service manager (systemd), if one has asked for them: `NOTIFY_SOCKET`,
//! `WATCHDOG_USEC`. Without one, nothing here has an effect.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::engine::Handle;
use crate::tasks;

/// The time that a message about the drain gives the service to end, in microseconds. Each such message
/// extends it, so a drain needs no `TimeoutStopSec` of its length.
const EXTENSION_US: u32 = 30_000_000;

/// Tells that calls are taken.
pub(crate) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the recorder has begun to stop.
pub(crate) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that new calls are still taken although the recorder has begun to stop, and asks for more time. Never
/// waits.
pub(crate) fn tell_leaving() {
    let more = NotifyState::ExtendTimeoutUsec(EXTENSION_US);
    let status = NotifyState::Status("about to drain, new calls are still taken");
    drop(tasks::blocking(move || tell(&[more, status])));
}

/// Tells that calls go on, and asks for more time. Never waits.
pub(crate) fn tell_draining(calls: usize) {
    let more = NotifyState::ExtendTimeoutUsec(EXTENSION_US);
    let status = format!("draining, {calls} calls left");
    // The socket may be full.
    drop(tasks::blocking(move || tell(&[more, NotifyState::Status(&status)])));
}

/// Tells that the calls are being finished.
pub(crate) fn tell_finishing() {
    let state = || tell(&[NotifyState::Status("finishing every call")]);
    drop(tasks::blocking(state));
}

/// Shows a sign of life twice in each interval of the watchdog, while no thread that reads calls or
/// writes files stands still; until the future is dropped. If the manager wants none, does nothing.
pub(crate) async fn feed_watchdog(engine: Handle) {
    let mut interval_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut interval_us) || interval_us == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_micros(interval_us).div_f64(2.0));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stuck = engine.stuck(Instant::now());
        if stuck.is_empty() {
            let beat = || tell(&[NotifyState::Watchdog]);
            // The socket may be full; the next beat waits for this one.
            let _ = tasks::blocking(beat).await;
        } else {
            tracing::error!(
                threads = stuck.join(", "),
                "the watchdog of the service manager gets no sign of life"
            );
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
