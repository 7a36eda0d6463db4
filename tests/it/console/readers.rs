//! The console for people with little sight, a keyboard or a screen reader, by the rules of axe-core.

use std::fs;
use std::time::Duration;

use callreel::admin::{Config, Token};
use serde_json::json;
use thirtyfour::By;

use super::{Browser, open};
use crate::conversation;
use crate::harness::admin::Recorder;
use crate::harness::packages;

const PACKAGES: [&str; 1] = ["axe-core@4.14.1"];

const RUN: &str = "const done = arguments[0]; \
    axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => done(violations.map( \
        ({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 200))])))";

struct Rules(String);

impl Rules {
    fn new() -> Self {
        let modules = packages::node("axe", &PACKAGES);
        Self(fs::read_to_string(modules.join("axe-core/axe.min.js")).unwrap())
    }

    /// Holds the page at hand to the rules, in light and in dark.
    async fn hold(&self, browser: &Browser, state: &str) {
        browser.eval(&self.0).await;
        for theme in ["light", "dark"] {
            let paint = format!(
                "document.documentElement.dataset.theme = '{theme}'; \
                 dispatchEvent(new Event('themechange'))"
            );
            browser.eval(&paint).await;
            let found = browser.driver.execute_async(RUN, Vec::new()).await.unwrap();
            assert_eq!(*found.json(), json!([]), "{state}, {theme}");
        }
    }
}

#[test]
fn every_page_and_state_keeps_the_rules_of_axe() {
    let rules = Rules::new();
    let recorder = Recorder::start(open());
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/").await;
        browser.wait("document.querySelector('#welcome').checkVisibility()").await;
        rules.hold(&browser, "the first page").await;

        let mut plan = recorder.plan();
        plan.duration = Some(Duration::from_secs(600));
        plan.parameters = vec![("agent".into(), "Ann".into())];
        plan.fault("gap=1s@1s").unwrap();
        let call = recorder.place_meanwhile(plan);
        browser.wait("document.querySelector('.fact.warn')").await;
        rules.hold(&browser, "a live call").await;
        browser.click("#live-filters select[name=look] option[value=table]").await;
        browser.wait("document.querySelector('.wall li')").await;
        rules.hold(&browser, "the table of calls").await;
        call.abort();
        browser.wait("document.querySelector('.wall .ended')").await;
        rules.hold(&browser, "an ended call in the table").await;

        let mut plan = recorder.plan();
        plan.flood = true;
        plan.audio = Some(conversation::audio());
        let _ = recorder.place_meanwhile(plan).await.unwrap();
        browser.click("#tab-recordings").await;
        browser.wait("document.querySelectorAll('.row').length === 2").await;
        rules.hold(&browser, "the list").await;
        browser.click(".row").await;
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        browser.click(".conversation summary").await;
        browser.driver.find(By::Css(".stage")).await.unwrap().send_keys("+++l").await.unwrap();
        browser.click(".play").await;
        rules.hold(&browser, "a recording").await;
        browser.click("#tab-live").await;
        browser.wait("document.querySelector('#bar').checkVisibility()").await;
        rules.hold(&browser, "the bar of what plays").await;
        browser.click("#tab-system").await;
        browser.wait("document.querySelector('#system .panel')").await;
        rules.hold(&browser, "the system").await;
        browser.driver.set_window_rect(0, 0, 390, 800).await.unwrap();
        rules.hold(&browser, "a narrow page").await;
        browser.close().await;
    });
}

#[test]
fn the_login_keeps_the_rules_of_axe() {
    let rules = Rules::new();
    let token = Token::new("0123456789abcdef0123456789abcdef".into()).unwrap();
    let recorder = Recorder::start(Config { token: Some(token), ..open() });
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/").await;
        browser.wait("location.pathname === '/login'").await;
        rules.hold(&browser, "the login").await;
        browser.close().await;
    });
}
