//! The console in Chromium, as a user sees it.

mod find;
mod firefox;
mod live;
mod player;
mod readers;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use callreel::admin::{Config, Token};
use callreel::audio::Audio;
use callreel::caller::{Action, Cue};
use serde_json::{Value, json};
use thirtyfour::{
    By, CapabilitiesHelper as _, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver,
};

use crate::conversation;
use crate::harness::admin::{Recorder, pitch, shelve, tone};
use crate::harness::bucket::Bucket;
use crate::harness::process::{PATIENCE, eventually};

/// A browser for one test; ended when dropped.
struct Browser {
    driver: WebDriver,
    chromedriver: Child,
    port: u16,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn open(recorder: &Recorder, path: &str) -> Self {
        Self::open_in("UTC", &recorder.url(path)).await
    }

    /// Opens a page in a browser of a time zone.
    async fn open_in(zone: &str, page: &str) -> Self {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let chromedriver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("TZ", zone)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the console is tested in Chromium: apt-get install chromium chromium-driver");
        let profile = tempfile::tempdir().unwrap();
        let mut wishes = DesiredCapabilities::chrome();
        for arg in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1200,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ] {
            wishes.add_arg(arg).unwrap();
        }
        let logs = json!({ "browser": "ALL", "performance": "ALL" });
        wishes.set("goog:loggingPrefs", logs).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let began = Instant::now();
        let driver = loop {
            match WebDriver::new(&url, wishes.clone()).await {
                Ok(driver) => break driver,
                Err(error) => {
                    assert!(began.elapsed() < PATIENCE, "no browser: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        driver.goto(page).await.unwrap();
        Self { driver, chromedriver, port, _profile: profile }
    }

    async fn eval(&self, script: &str) -> Value {
        self.driver.execute(script, Vec::new()).await.unwrap().json().clone()
    }

    /// Waits until an expression is true.
    async fn wait(&self, expression: &str) {
        let began = Instant::now();
        while self.eval(&format!("return Boolean({expression})")).await != json!(true) {
            assert!(began.elapsed() < PATIENCE, "never true: {expression}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn click(&self, css: &str) {
        self.driver.find(By::Css(css)).await.unwrap().click().await.unwrap();
    }

    /// Waits until the page fits into a phone, a small and a large window.
    async fn assert_fits(&self) {
        for width in [390, 800, 1440] {
            self.driver.set_window_rect(0, 0, width, 900).await.unwrap();
            self.wait("document.documentElement.scrollWidth <= innerWidth").await;
        }
    }

    /// Entries of the browser's log since the last call.
    fn log(&self, kind: &str) -> Vec<Value> {
        let session = self.driver.session_id();
        let url = format!("http://127.0.0.1:{}/session/{session}/se/log", self.port);
        let body = json!({ "type": kind }).to_string();
        let text = ureq::post(url)
            .header("content-type", "application/json")
            .send(body)
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(answer["value"].take()).unwrap()
    }

    /// Checks that the browser logged no complaint and sent requests to the recorder alone.
    fn assert_clean(&self, recorder: &Recorder) {
        self.assert_clean_of(&recorder.url("/"));
    }

    /// The same of the pages below this URL.
    fn assert_clean_of(&self, server: &str) {
        let mut complaints = self.log("browser");
        // Warnings about slow drawing come from this test, which reads pixels.
        complaints.retain(|entry| entry["source"] != "rendering");
        assert!(complaints.is_empty(), "{complaints:#?}");
        let mut requests = 0;
        for entry in self.log("performance") {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if event["message"]["method"] == "Network.requestWillBeSent" {
                let request = &event["message"]["params"];
                // The browser's own page at its start.
                if request["documentURL"].as_str().unwrap().starts_with("chrome://") {
                    continue;
                }
                let url = request["request"]["url"].as_str().unwrap();
                assert!(url.starts_with(server) || url.starts_with("data:"), "{url}");
                requests += 1;
            }
        }
        assert!(requests > 5);
    }

    async fn close(self) {
        let _ = self.driver.clone().quit().await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.chromedriver.kill();
        let _ = self.chromedriver.wait();
    }
}

fn open() -> Config {
    Config { allows_delete: true, ..Config::default() }
}

#[test]
fn the_first_call_appears_moves_is_heard_and_becomes_a_recording() {
    let recorder = Recorder::start(open());
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/").await;
        browser.wait("document.getElementById('welcome').checkVisibility()").await;
        let command =
            browser.eval("return document.getElementById('try-command').textContent").await;
        assert_eq!(command, format!("callreel call --url ws://{}/media-stream", recorder.public));
        browser.driver.set_window_rect(0, 0, 400, 800).await.unwrap();
        browser.wait("document.documentElement.scrollWidth <= innerWidth").await;
        browser.driver.set_window_rect(0, 0, 1200, 900).await.unwrap();
        let mut plan = recorder.plan();
        // Loud and soft by turns, so that the meter moves.
        let (loud, soft) = (tone(1010.0, Duration::from_millis(900)), vec![0xFF; 4800]);
        plan.audio = Some(Audio::mono([loud, soft].concat()));
        plan.duration = Some(Duration::from_secs(12));
        plan.fault("gap=1s@4s").unwrap();
        plan.cues.push(Cue { at: Some(Duration::from_secs(2)), action: Action::Dtmf('7') });
        let placed = recorder.place_meanwhile(plan);
        browser.wait("document.querySelector('.card')").await;
        browser.wait("!document.getElementById('welcome').checkVisibility()").await;
        let bar = "new DOMMatrix(getComputedStyle(document.querySelector('.meter i')).transform).a";
        browser.wait(&format!("{bar} > 0.7")).await;
        browser.wait(&format!("{bar} < 0.3")).await;
        browser.wait("document.querySelector('.card kbd')?.textContent === '7'").await;
        let paused = "document.querySelector('.facts').textContent.includes('paused')";
        for (word, condition) in [("Resume", paused.to_owned()), ("Pause", format!("!{paused}"))] {
            browser.click(".card .pause").await;
            let button = format!("document.querySelector('.card .pause').textContent === '{word}'");
            browser.wait(&format!("{button} && {condition}")).await;
        }
        browser
            .eval(
                "window.heard = []; window.ahead = [];\
                 const start = AudioBufferSourceNode.prototype.start;\
                 AudioBufferSourceNode.prototype.start = function (when) {\
                   window.ahead.push(when - this.context.currentTime);\
                   window.heard.push(...this.buffer.getChannelData(0));\
                   return start.call(this, when);\
                 };",
            )
            .await;
        browser.click(".card .listen").await;
        browser.wait("window.heard.length > 16000").await;
        let heard = browser.eval("return window.heard.filter((s) => s !== 0)").await;
        let samples: Vec<i16> = heard
            .as_array()
            .unwrap()
            .iter()
            .map(|sample| (sample.as_f64().unwrap() * 32768.0) as i16)
            .collect();
        assert!((pitch(&samples) - 1010.0).abs() < 50.0, "{} Hz", pitch(&samples));
        let ahead = browser.eval("return Math.max(...window.ahead)").await;
        assert!(ahead.as_f64().unwrap() < 0.8, "{ahead} s");
        browser.click(".card .listen").await;
        browser.wait("document.querySelector('.fact.warn')?.textContent.includes('1 gap')").await;
        assert!(placed.await.unwrap().is_good());
        // The card keeps its place, and leads to the recording.
        browser
            .wait("document.querySelector('.card.ended .over')?.textContent === 'Complete: open'")
            .await;
        browser.click(".card .over").await;
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        browser
            .wait("document.querySelector('.verdicts').textContent.includes('Paused once')")
            .await;
        browser.wait("document.querySelectorAll('.row').length === 1").await;
        browser.assert_clean(&recorder);
        browser.close().await;
    });
}

#[test]
fn a_recording_is_found_drawn_played_sought_and_deleted_when_asked_twice() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    (1..=3).for_each(|n| shelve(dir.path(), &format!("2026-01-0{n}"), &format!("MZold{n}")));
    let recorder = Recorder::start_in(dir, open(), None);
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.duration = Some(Duration::from_secs(20));
    plan.parameters = vec![("tenant".into(), "Acme".into())];
    plan.fault("gap=2s@5s").unwrap();
    plan.cues
        .push(Cue { at: Some(Duration::from_secs(12)), action: Action::Mark("greeting".into()) });
    assert!(recorder.place(&plan).is_good());
    recorder.wait_for_recordings(4);
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/#recordings").await;
        browser.wait("document.querySelectorAll('.row').length === 4").await;
        browser.wait("document.querySelectorAll('#days > section').length === 4").await;
        assert_eq!(browser.eval("return document.querySelectorAll('li.new').length").await, 0);
        let search = browser.driver.find(By::Css("#filters input[type=search]")).await.unwrap();
        search.send_keys("nobody").await.unwrap();
        browser.wait("document.getElementById('recordings-none').checkVisibility()").await;
        search.clear().await.unwrap();
        search.send_keys("acme").await.unwrap();
        browser.wait("document.querySelectorAll('.row').length === 1").await;
        browser.click(".row").await;
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        let coloured = "(() => { const c = document.querySelector('.wave'); \
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
            return (x) => { let n = 0; const col = Math.floor(c.width * x); \
              for (let y = 0; y < c.height; y += 1) if (d[4 * (y * c.width + col) + 3]) n += 1; \
              return n / c.height; }; })()";
        // Shaded from top to bottom where media is missing, and nowhere else.
        browser.wait(&format!("{coloured}(0.30) === 1")).await;
        let speech = browser
            .eval(&format!(
                "const at = {coloured}; let n = 0; \
            for (let x = 0.5; x < 0.9; x += 0.005) n += at(x) > 0.2 && at(x) < 1; return n"
            ))
            .await;
        assert!(speech.as_u64().unwrap() > 10, "{speech} columns of speech");
        browser.wait("document.querySelector('.moments .mark').textContent === 'greeting'").await;
        browser.click(".play").await;
        browser.wait("document.querySelector('audio').currentTime > 0.3").await;
        // The click is in the middle of the stage.
        browser.click(".stage").await;
        browser.wait("Math.abs(document.querySelector('audio').currentTime - 10) < 3").await;
        browser.wait("document.querySelector('.play').dataset.state === 'playing'").await;
        browser.click(".play").await;
        let dark = "document.documentElement.dataset.theme === 'dark'";
        let before = browser.eval(&format!("return {dark}")).await;
        browser.click("#theme").await;
        browser.wait(&format!("({dark}) !== {before}")).await;
        let paper = "getComputedStyle(document.body).backgroundColor";
        let changed = browser.eval(&format!("return {paper}")).await;
        browser.click("#theme").await;
        browser.wait(&format!("{paper} !== {changed}")).await;
        browser.driver.set_window_rect(0, 0, 400, 800).await.unwrap();
        browser.wait("document.documentElement.scrollWidth <= innerWidth").await;
        browser.driver.set_window_rect(0, 0, 1200, 900).await.unwrap();
        browser.click(".quietdanger").await;
        browser.click("#confirm-yes").await;
        browser
            .wait("document.getElementById('confirm-title').textContent.startsWith('Really')")
            .await;
        browser.wait("document.getElementById('confirm').open").await;
        browser.click("#confirm-yes").await;
        browser.wait("document.querySelectorAll('.row').length === 0").await;
        browser.assert_clean(&recorder);
        browser.close().await;
    });
    assert_eq!(recorder.wait_for_recordings(3).len(), 3);
}

#[test]
fn an_address_leads_to_its_recording_or_says_that_there_is_none() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    // More than a page of newer recordings.
    (0..55).for_each(|n| shelve(dir.path(), "2099-01-01", &format!("MZnew{n}")));
    let recorder = Recorder::start_in(dir, open(), None);
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.duration = Some(Duration::from_millis(1980));
    assert!(recorder.place(&plan).is_good());
    let recording = recorder.wait_for("/api/v1/recordings?to=2098-01-01", |answer| {
        answer["recordings"].get(0).cloned()
    });
    let word = |name: &str| recording[name].as_str().unwrap();
    let key = format!("{}/{}", word("day"), word("id"));
    recorder.block_on(async {
        let browser = Browser::open(&recorder, &format!("/#recordings/{key}")).await;
        let row = format!("document.querySelector('[data-key=\"{key}\"]')");
        let is_seen = "['.stage', '.transport'].every((part) => { \
            const box = document.querySelector(part)?.getBoundingClientRect(); \
            return box && box.top >= document.querySelector('.top').clientHeight \
              && box.bottom <= innerHeight; })";
        browser.wait(is_seen).await;
        browser.wait(&format!("{row}.querySelector('.length').textContent === '0:02'")).await;
        for (width, height) in [(1200, 900), (400, 800)] {
            browser.driver.set_window_rect(0, 0, width, height).await.unwrap();
            browser.eval(&format!("{row}.firstChild.click()")).await;
            browser.wait("!document.querySelector('.player')").await;
            browser.eval(&format!("{row}.scrollIntoView({{ block: 'end' }})")).await;
            browser.eval(&format!("{row}.firstChild.click()")).await;
            browser.wait(is_seen).await;
            browser
                .wait(
                    "new Set([...document.querySelectorAll('.between label > *')].map((part) => { \
                       const box = part.getBoundingClientRect(); \
                       return Math.round((box.top + box.bottom) / 2); })).size === 1",
                )
                .await;
        }
        browser.assert_clean(&recorder);
        browser.eval("location.hash = '#recordings/2026-01-01/MZnone'").await;
        let said = "document.getElementById('recordings-missing')";
        browser.wait(&format!("{said}.checkVisibility()")).await;
        let text = browser.eval(&format!("return {said}.textContent")).await;
        assert_eq!(text, "2026-01-01/MZnone: there is no such recording");
        browser.wait("!document.querySelector('.player')").await;
        browser.eval(&format!("location.hash = '#recordings/{key}'")).await;
        browser.wait(&format!("!{said}.checkVisibility() && {is_seen}")).await;
        browser.close().await;
    });
}

#[test]
fn a_conversation_is_drawn_and_a_click_on_a_turn_seeks() {
    let recorder = Recorder::start(open());
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.audio = Some(conversation::audio());
    assert!(recorder.place(&plan).is_good());
    recorder.wait_for_recordings(1);
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/#recordings").await;
        browser.wait("document.querySelectorAll('.row').length === 1").await;
        browser.click(".row").await;
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        // The colours of both lanes at a time of the call, in seconds.
        let lanes = "((s) => { const c = document.querySelector('.speech'); \
            const ratio = c.width / c.clientWidth; const x = Math.floor(c.width * s / 20); \
            return [24, 41].map((y) => \
              c.getContext('2d').getImageData(x, Math.floor(y * ratio), 1, 1).data[3] > 0); })";
        for (second, expected) in [
            // The pause of the caller is part of the segment.
            (2.05, [true, false]),
            (3.4, [false, false]),
            (5.0, [false, true]),
            (6.25, [true, true]),
            (16.0, [false, false]),
        ] {
            let drawn = browser.eval(&format!("return {lanes}({second})")).await;
            assert_eq!(drawn, json!(expected), "{second} s");
        }
        let label = "document.querySelector('.speech').getAttribute('aria-label')";
        let label = browser.eval(&format!("return {label}")).await;
        let words = "6 turns; outbound answers after 700 ms, 1.2 s at most; 2 interruptions; ";
        assert!(label.as_str().unwrap().contains(words), "{label}");
        browser.click(".conversation summary").await;
        let entries = "[...document.querySelectorAll('.moment')].map((one) => one.textContent)";
        let entries = browser.eval(&format!("return {entries}")).await;
        let expected = [
            "0:01inbound speaks",
            "0:04outbound speaks after 700 ms",
            "0:06inbound interrupts, heeded after 500 ms",
            "0:08outbound speaks after 1.2 s",
            "0:09inbound speaks in between for 400 ms",
            "0:11inbound speaks after 600 ms",
            "0:13outbound speaks after 0 ms",
            "0:14nobody speaks for 6.0 s",
        ];
        assert_eq!(entries, json!(expected));
        browser.click("li:nth-child(4) > .moment.outbound").await;
        let is_at = |seconds: f64| {
            format!("Math.abs(document.querySelector('audio').currentTime - {seconds}) < 0.05")
        };
        browser.wait(&is_at(8.4)).await;
        for (button, seconds) in [("Next", 11.4), ("Previous", 8.4)] {
            browser.click(&format!(".transport [title^={button}]")).await;
            browser.wait(&is_at(seconds)).await;
        }
        // The link to a second, in the open recording and in a new page.
        browser.eval("location.hash += '?t=3'").await;
        browser.wait(&is_at(3.0)).await;
        browser.driver.refresh().await.unwrap();
        browser.wait(&format!("document.querySelector('audio') && {}", is_at(3.0))).await;
        browser.assert_fits().await;
        browser.assert_clean(&recorder);
        browser.close().await;
    });
}

#[test]
fn a_recording_without_samples_says_so_and_is_not_played() {
    let recorder = Recorder::start(open());
    let mut plan = recorder.plan();
    plan.flood = true;
    plan.audio = Some(Audio::mono(vec![]));
    plan.duration = Some(Duration::ZERO);
    recorder.place(&plan);
    assert_eq!(recorder.wait_for_recordings(1)[0]["duration_ms"], 0);
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/#recordings").await;
        browser.wait("document.querySelectorAll('.row').length === 1").await;
        browser.click(".row").await;
        browser.wait("document.querySelector('.noaudio')?.textContent === 'No audio'").await;
        let players =
            "return document.querySelectorAll('audio, .player .stage, .player .play').length";
        assert_eq!(browser.eval(players).await, 0);
        browser.assert_clean(&recorder);
        browser.close().await;
    });
}

#[test]
fn a_lost_recorder_is_seen() {
    let mut recorder = Recorder::start(open());
    let browser = recorder.block_on(Browser::open(&recorder, "/"));
    recorder.block_on(browser.wait("document.getElementById('try-command').textContent"));
    assert_eq!(
        recorder.block_on(browser.eval("return document.getElementById('lost').hidden")),
        true
    );
    recorder.stop();
    recorder.block_on(browser.wait("document.getElementById('lost').checkVisibility()"));
    recorder.block_on(browser.close());
}

#[test]
fn people_log_in_with_the_token() {
    let token = "0123456789abcdef0123456789abcdef";
    let recorder =
        Recorder::start(Config { token: Some(Token::new(token.into()).unwrap()), ..open() });
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/").await;
        browser.wait("location.pathname === '/login'").await;
        for (shown, then) in [
            ("wrong", "document.querySelector('.error').textContent.includes('not the token')"),
            (token, "location.pathname === '/' && document.getElementById('welcome')?.checkVisibility()"),
        ] {
            let field = browser.driver.find(By::Id("token")).await.unwrap();
            field.send_keys(shown).await.unwrap();
            browser.click("button").await;
            browser.wait(then).await;
        }
        browser.close().await;
    });
}

#[test]
fn the_console_of_a_home_lists_finds_plays_and_draws_what_all_recorders_have_recorded() {
    const WAVE: &str = "(() => { const c = document.querySelector('.wave'); \
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; \
        for (let x = 0; x < c.width; x += 1) for (let y = 0; y < c.height; y += 1) \
          if (d[4 * (y * c.width + x) + 3] && Math.abs(y / c.height - 0.5) > 0.2) { n += 1; break; } \
        return n / c.width; })()";
    let bucket = Bucket::new();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let audio = tempfile::tempdir().unwrap();
    let sound = audio.path().join("tone.ulaw");
    std::fs::write(&sound, tone(440.0, Duration::from_secs(20))).unwrap();
    for (n, dir) in dirs.iter().enumerate() {
        let name = format!("pod-{n}");
        let server = bucket.recorder(dir.path()).plain().env("CALLREEL_INSTANCE", &name).start();
        let mut caller = server.caller();
        caller.arg(&sound).args(["--flood", "--parameter", &format!("tenant=Acme{n}")]);
        assert!(caller.output().unwrap().status.success());
        eventually(PATIENCE, "it is uploaded", || {
            (server.metric("callreel_home_uploaded_total") == 1.0).then_some(())
        });
    }
    // No recorder runs any more.
    let console = bucket.console();
    let base = format!("http://{}/", console.admin_address());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let browser = Browser::open_in("UTC", &base).await;
        browser.wait("document.querySelectorAll('.row').length === 2").await;
        // Nothing of a recorder is offered.
        let recorder = "return ['#welcome', '#tab-live', '.quietdanger', '.listen'].filter((part) => \
            document.querySelector(part)?.checkVisibility())";
        assert_eq!(browser.eval(recorder).await, json!([]));
        let search = browser.driver.find(By::Css("#filters input[type=search]")).await.unwrap();
        search.send_keys("nobody").await.unwrap();
        browser.wait("document.getElementById('recordings-none').checkVisibility()").await;
        search.clear().await.unwrap();
        search.send_keys("acme1").await.unwrap();
        browser.wait("document.querySelectorAll('.row').length === 1").await;
        browser.click(".row").await;
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        let drawn = browser.eval(&format!("return {WAVE}")).await;
        assert!(drawn.as_f64().unwrap() > 0.9, "{drawn} of the columns are drawn");
        browser.click(".play").await;
        browser.wait("document.querySelector('audio').currentTime > 0.3").await;
        browser.wait("Math.abs(document.querySelector('audio').duration - 20) < 0.1").await;
        // A Range request far into the file.
        browser.eval("document.querySelector('audio').currentTime = 15").await;
        browser.wait("document.querySelector('audio').currentTime > 15.2").await;
        browser.click(".play").await;
        browser.assert_clean_of(&base);
        browser.close().await;
    });
}
