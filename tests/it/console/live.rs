//! Many live calls in the console, many tabs, and days of the browser's zone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use thirtyfour::By;

use super::{Browser, open};
use crate::harness::admin::{Recorder, shelve};

/// Tabs at one time. A browser makes six connections to a server.
const TABS: usize = 10;

/// The calls of the table, from above.
const ROWS: &str = "[...document.querySelectorAll('.wall li')] \
    .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)";

async fn choose(browser: &Browser, name: &str, option: &str) {
    let css = format!("#live-filters select[name={name}] option[value={option}]");
    browser.click(&css).await;
}

#[test]
fn live_calls_are_a_table_that_is_searched_and_ordered_and_opens_cards() {
    let recorder = Recorder::start(open());
    let call = |stream: &str, agent: &str, seconds| {
        let mut plan = recorder.plan();
        plan.stream_sid = Some(stream.to_owned());
        plan.parameters = vec![("agent".into(), agent.into())];
        plan.duration = Some(Duration::from_secs(seconds));
        plan
    };
    let mut troubled = call("MZtroubled", "Zoë Müller", 600);
    troubled.fault("gap=1s@1s").unwrap();
    let calm = call("MZcalm", "Ann", 600);
    let short = call("MZshort", "Bob", 6);
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/").await;
        let calm = recorder.place_meanwhile(calm);
        browser.wait("document.querySelectorAll('.card').length === 1").await;
        let troubled = recorder.place_meanwhile(troubled);
        let short = recorder.place_meanwhile(short);
        browser.wait("document.querySelectorAll('.card').length === 3").await;
        choose(&browser, "look", "table").await;
        browser.wait(&format!("{ROWS}.length === 3 && !document.querySelector('.card')")).await;
        choose(&browser, "order", "trouble").await;
        let ids = format!("return {ROWS}.map((row) => row.querySelector('.tag').textContent)");
        browser.wait(&format!("{ROWS}[0].textContent.includes('gap')")).await;
        assert_eq!(browser.eval(&ids).await[0], "agent Zoë Müller");
        choose(&browser, "order", "oldest").await;
        browser.wait(&format!("{ROWS}[0].textContent.includes('Ann')")).await;

        // The end of a call moves no other one.
        assert!(short.await.unwrap().is_good());
        browser.wait("document.querySelector('.wall .ended')?.textContent.includes('open')").await;
        assert_eq!(browser.eval(&ids).await.as_array().unwrap().len(), 3);

        let search = browser.driver.find(By::Css("#live-filters input")).await.unwrap();
        for (words, count) in
            [("muller zoe", 1), ("agent:ann", 1), ("agent:zoe ann", 0), ("agent", 3)]
        {
            search.clear().await.unwrap();
            search.send_keys(words).await.unwrap();
            browser
                .wait(&format!("document.querySelectorAll('.wall li').length === {count}"))
                .await;
        }
        browser.eval(&format!("{ROWS}[0].querySelector('button').click()")).await;
        browser.wait("document.querySelector('#opened .card')").await;
        assert_eq!(browser.eval("return location.hash").await, "#live/MZcalm");
        browser.eval("document.querySelector('.close').click()").await;
        browser.wait("!document.querySelector('#opened .card')").await;
        browser.assert_fits().await;

        // A link to a live call leads to its card; one to a call that is over, to its recording.
        browser.driver.goto(recorder.url("/#live/MZtroubled")).await.unwrap();
        browser.driver.refresh().await.unwrap();
        browser.wait("document.querySelector('#opened .card')?.textContent.includes('Zoë')").await;
        browser.eval("location.hash = '#live/MZshort'").await;
        browser.wait("document.querySelector('.player')?.dataset.drawn").await;
        browser.eval("location.hash = '#live/MZnobody'").await;
        browser.wait("document.getElementById('live-missing').checkVisibility()").await;
        browser.assert_clean(&recorder);
        browser.close().await;
        for placed in [calm, troubled] {
            placed.abort();
        }
    });
}

#[test]
fn ten_tabs_show_a_call_at_one_time() {
    let recorder = Recorder::start(open());
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_secs(600));
    recorder.block_on(async {
        let placed = recorder.place_meanwhile(plan);
        let browser = Browser::open(&recorder, "/").await;
        let moves = "document.querySelector('.card .clock')?.textContent";
        for tab in 0..TABS {
            if tab > 0 {
                browser.driver.new_tab().await.unwrap();
                let tabs = browser.driver.windows().await.unwrap();
                browser.driver.switch_to_window(tabs.last().unwrap().clone()).await.unwrap();
                browser.driver.goto(recorder.url("/")).await.unwrap();
            }
            browser.wait(moves).await;
        }
        // The first one comes back, and goes on.
        let tabs = browser.driver.windows().await.unwrap();
        assert_eq!(tabs.len(), TABS);
        browser.driver.switch_to_window(tabs[0].clone()).await.unwrap();
        let before = browser.eval(&format!("return {moves}")).await;
        browser.wait(&format!("{moves} !== {before}")).await;
        browser.close().await;
        placed.abort();
    });
}

#[test]
fn days_are_those_of_the_browsers_zone_and_the_search_is_in_the_address() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    // The evening of the 25th in Los Angeles, and of the 24th.
    for (day, id) in [("2026-11-26", "MZevening"), ("2026-11-25", "MZbefore")] {
        shelve(dir.path(), day, id);
        let record = dir.path().join(day).join(format!("{id}.json"));
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(record, text.replace("T12:00:0", "T05:30:0")).unwrap();
    }
    let recorder = Recorder::start_in(dir, open(), None);
    recorder.block_on(async {
        let address = "/#recordings?from=2026-11-25&to=2026-11-25";
        let browser = Browser::open_in("America/Los_Angeles", &recorder.url(address)).await;
        let rows = "return [...document.querySelectorAll('.row .id')].map((id) => id.textContent)";
        browser.wait("document.querySelector('.row')").await;
        assert_eq!(browser.eval(rows).await, json!(["CA-MZevening"]));
        let day = browser.eval("return document.querySelector('.day').dataset.day").await;
        assert_eq!(day, "2026-11-25");
        assert_eq!(
            browser.eval("return document.getElementById('zone').textContent").await,
            "in PST"
        );
        let search = browser.driver.find(By::Css("#filters input")).await.unwrap();
        search.send_keys("nobody").await.unwrap();
        browser.wait("!document.querySelector('.row')").await;
        let hash = browser.eval("return location.hash").await;
        assert_eq!(hash, "#recordings?q=nobody&from=2026-11-25&to=2026-11-25");
        search.clear().await.unwrap();
        search.send_keys("evening number:mz").await.unwrap();
        // The list without a search has the same row: one that is opened before the answer is closed by it.
        let answered = "performance.getEntriesByType('resource').some(({ name }) => \
            name.includes('recordings?') && name.includes('q=evening+number'))";
        browser.wait(&format!("{answered} && document.querySelector('.row')")).await;
        browser.click(".row").await;
        browser.wait("document.querySelector('.player .noaudio')").await;
        browser.driver.refresh().await.unwrap();
        browser.wait("document.querySelector('.player .noaudio')").await;
        assert_eq!(browser.eval(rows).await, json!(["CA-MZevening"]));
        browser.close().await;
    });
}
