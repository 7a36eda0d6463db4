//! The appliance: callreel's core as firmware for a Cortex-M3 with Ethernet and an SD card.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod enet;
#[cfg(target_os = "none")]
mod log;
#[cfg(target_os = "none")]
mod net;

#[cfg(target_os = "none")]
#[cortex_m_rt::entry]
fn main() -> ! {
    board::paint_stack();
    let core = cortex_m::Peripherals::take().expect("taken once");
    board::start(core.SYST);
    log::start();
    defmt::info!("callreel appliance");
    let mut front = net::Front::new();
    loop {
        front.poll();
        board::sleep();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("build me for thumbv7m-none-eabi");
}
