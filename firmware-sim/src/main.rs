//! The appliance: callreel's core as firmware for a Cortex-M3 with Ethernet and an SD card.
//!
//! Two sides share the one core. The network's side ([`net`]) never waits. The card's side
//! ([`recorder`]) may wait; meanwhile the card's driver polls the network's side.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod card;
#[cfg(target_os = "none")]
mod copy;
#[cfg(target_os = "none")]
mod door;
#[cfg(target_os = "none")]
mod enet;
#[cfg(all(target_os = "none", feature = "fault-injection"))]
mod fault;
#[cfg(target_os = "none")]
mod log;
#[cfg(target_os = "none")]
mod net;
#[cfg(target_os = "none")]
mod recorder;

#[cfg(target_os = "none")]
use {callreel_firmware_sim::store::Card, core::cell::RefCell, static_cell::StaticCell};

#[cfg(target_os = "none")]
#[cortex_m_rt::entry]
fn main() -> ! {
    board::paint_stack();
    let reset = board::start_note();
    let core = cortex_m::Peripherals::take().expect("taken once");
    board::start(core.SYST);
    log::start();
    defmt::info!("callreel appliance: {=usize} calls at once", net::CALLS_MAX);
    let (front, recorder) = start(reset, net::make_places());
    let mut is_busy = false;
    loop {
        board::feed_watchdog();
        let is_moved = front.borrow_mut().poll();
        // Without a cause on the network's side the card's side has nothing new to do.
        is_busy = (is_moved || is_busy) && recorder.step();
        if !is_busy && !front.borrow().has_work() {
            board::sleep();
        }
    }
}

/// Makes both sides. Not inlined, so that the parts they are built from do not stay on the stack
/// for ever.
#[cfg(target_os = "none")]
#[inline(never)]
fn start(
    reset: board::Reset,
    places: &'static mut net::Places,
) -> (&'static RefCell<net::Front>, &'static mut recorder::Recorder) {
    static FRONT: StaticCell<RefCell<net::Front>> = StaticCell::new();
    static DEVICE: StaticCell<card::PatientCard> = StaticCell::new();
    static CARD: StaticCell<Card<&card::PatientCard>> = StaticCell::new();
    static RECORDER: StaticCell<recorder::Recorder> = StaticCell::new();

    let front = &*FRONT.init_with(|| RefCell::new(net::Front::start(reset, places)));
    let device = &*DEVICE.init_with(|| card::PatientCard::start(front));
    let card = &*CARD.init_with(|| RefCell::new(None));
    (front, RECORDER.init_with(|| recorder::Recorder::new(front, device, card)))
}

#[cfg(not(target_os = "none"))]
mod demo;

#[cfg(not(target_os = "none"))]
fn main() -> anyhow::Result<()> {
    demo::run()
}
