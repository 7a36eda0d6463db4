//! A recording in the console: a part of it shown large, repeated, heard without its silence, and heard on while one
//! looks at something else.

use thirtyfour::By;

use super::{Browser, open};
use crate::conversation;
use crate::harness::admin::Recorder;

const SOUND: &str = "document.querySelector('audio')";

/// Opens the row of a recording.
async fn unfold(browser: &Browser, number: usize) {
    let row = format!("document.querySelectorAll('.row')[{number}]");
    browser.wait(&row).await;
    browser.eval(&format!("{row}.click()")).await;
    browser.wait("document.querySelector('.player')?.dataset.drawn").await;
}

/// Sends keys to the waveform.
async fn press(browser: &Browser, keys: &str) {
    browser.driver.find(By::Css(".stage")).await.unwrap().send_keys(keys).await.unwrap();
}

fn recorder_of(recordings: usize) -> Recorder {
    let recorder = Recorder::start(open());
    for number in 1..=recordings {
        let mut plan = recorder.plan();
        plan.flood = true;
        plan.audio = Some(conversation::audio());
        assert!(recorder.place(&plan).is_good());
        recorder.wait_for_recordings(number);
    }
    recorder
}

#[test]
fn a_part_is_shown_large_and_repeated_and_silence_is_passed_over() {
    let recorder = recorder_of(1);
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/#recordings").await;
        unfold(&browser, 0).await;
        let overview = "document.querySelector('.overview').checkVisibility()";
        assert_eq!(browser.eval(&format!("return {overview}")).await, false);
        browser.eval(&format!("{SOUND}.currentTime = 5")).await;
        browser.wait(&format!("{SOUND}.currentTime === 5 && !{SOUND}.seeking")).await;
        // Of 20 s, 1.2 s are left around the fifth second.
        press(&browser, "++++++").await;
        browser.wait("document.querySelector('[data-drawn=fine]')").await;
        assert_eq!(browser.eval(&format!("return {overview}")).await, true);
        press(&browser, "l").await;
        let count = "window.rounds = 0; window.strays = 0; const a = document.querySelector('audio'); \
            a.addEventListener('seeked', () => { window.rounds += 1; }); \
            a.addEventListener('timeupdate', () => { \
                if (a.currentTime < 4 || a.currentTime > 7) window.strays += 1; });";
        browser.eval(count).await;
        press(&browser, " ").await;
        browser.wait("window.rounds >= 2").await;
        assert_eq!(browser.eval("return window.strays").await, 0);
        press(&browser, " l0").await;
        browser.wait(&format!("!{overview} && {SOUND}.paused")).await;

        // Nobody speaks in the last six seconds.
        browser.eval(&format!("{SOUND}.currentTime = 13")).await;
        browser.click(".transport [title^=Skip]").await;
        browser.click(".play").await;
        browser.wait(&format!("{SOUND}.ended")).await;
        let heard = "const p = document.querySelector('audio').played; let s = 0; \
            for (let i = 0; i < p.length; i += 1) if (p.start(i) >= 12) s += p.end(i) - p.start(i); return s";
        let heard = browser.eval(heard).await.as_f64().unwrap();
        assert!((0.8..3.5).contains(&heard), "{heard} s of 7 s were played");
        // Kept for the next recording.
        browser.driver.refresh().await.unwrap();
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        browser.wait("document.querySelector('.transport [title^=Skip][aria-pressed=true]')").await;
        browser.assert_fits().await;
        browser.assert_clean(&recorder);
        browser.close().await;
    });
}

#[test]
fn what_plays_goes_on_out_of_sight_and_gives_way_to_another_recording() {
    let recorder = recorder_of(2);
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/#recordings").await;
        unfold(&browser, 1).await;
        browser.click(".play").await;
        let bar = "document.querySelector('#bar').checkVisibility()";
        browser.wait(&format!("{SOUND}.currentTime > 0.2 && !{bar}")).await;
        let name = browser
            .eval("return document.querySelector('.row[aria-expanded=true] .id').textContent")
            .await;

        // In the other view, and with its row closed.
        browser.click("#tab-live").await;
        browser.wait(&format!("{bar} && !{SOUND}.paused")).await;
        assert_eq!(
            browser.eval("return document.querySelector('#bar-name').textContent").await,
            name
        );
        browser.click("#bar-name").await;
        browser
            .wait(&format!("!{bar} && document.querySelector('.player').checkVisibility()"))
            .await;
        browser.click(".row[aria-expanded=true]").await;
        browser
            .wait(&format!("{bar} && !{SOUND}.paused && !document.querySelector('.player')"))
            .await;

        // Opened again it is the same sound, where it is.
        unfold(&browser, 1).await;
        browser
            .wait(&format!("!{bar} && document.querySelector('.play').dataset.state === 'playing'"))
            .await;
        assert_eq!(browser.eval("return document.querySelectorAll('audio').length").await, 1);

        // Another one is looked at, and then heard.
        unfold(&browser, 0).await;
        browser.wait(&format!("{bar} && document.querySelectorAll('audio').length === 2")).await;
        browser.click(".player .play").await;
        browser.wait(&format!("!{bar} && document.querySelectorAll('audio').length === 1")).await;
        browser.wait(&format!("!{SOUND}.paused")).await;
        browser.click("#tab-live").await;
        browser.click("#bar-stop").await;
        browser.wait(&format!("!{bar} && {SOUND}.paused")).await;
        browser.assert_clean(&recorder);
        browser.close().await;
    });
}
