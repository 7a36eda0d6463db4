//! The search, the orders, the numbers and the saved views of the console's list of recordings.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use thirtyfour::By;

use super::{Browser, open};
use crate::harness::admin::{Recorder, shelve};

/// The calls of the list, from above.
const SHOWN: &str = "[...document.querySelectorAll('.row .id')].map((id) => id.textContent).join()";

/// Changes the record of a finished recording.
fn change(dir: &Path, day: &str, id: &str, changes: &[(&str, &str)]) {
    let path = dir.join(day).join(format!("{id}.json"));
    let mut record = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(record.contains(from), "{from}");
        record = record.replace(from, to);
    }
    std::fs::write(path, record).unwrap();
}

#[test]
fn recordings_are_searched_sorted_counted_and_the_search_is_saved_shared_and_gone_back_to() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let day = "2026-01-05";
    for number in 0..60 {
        shelve(dir.path(), day, &format!("MZ{number:02}"));
    }
    shelve(dir.path(), "2026-01-04", "MZlong");
    change(
        dir.path(),
        "2026-01-04",
        "MZlong",
        &[(r#""duration_ms":0"#, r#""duration_ms":900000"#)],
    );
    let partial = [(r#""complete""#, r#""partial""#), (r#""lost_ms":0"#, r#""lost_ms":40"#)];
    change(dir.path(), day, "MZ07", &partial);
    let recorder = Recorder::start_in(dir, open(), None);
    recorder.wait_for("/api/v1/recordings/days", |days| (days["complete"] == true).then_some(()));
    recorder.block_on(async {
        let browser = Browser::open(&recorder, "/#recordings").await;
        let shows = async |ids: &str| browser.wait(&format!("{SHOWN} === '{ids}'")).await;
        // The number of a day is that of all its recordings, not of those that are shown.
        browser.wait("document.querySelectorAll('.row').length === 50").await;
        browser
            .wait("document.querySelector('.day h2').textContent.endsWith('60 recordings')")
            .await;
        browser.wait("document.getElementById('total').textContent === '61 recordings'").await;

        let choose = async |order: &str| {
            browser.click(&format!("#filters select[name=sort] option[value='{order}']")).await;
        };
        choose("-duration").await;
        browser.wait(&format!("{SHOWN}.startsWith('CA-MZlong,')")).await;
        choose("-trouble").await;
        browser.wait(&format!("{SHOWN}.startsWith('CA-MZ07,')")).await;
        choose("started").await;
        browser.wait(&format!("{SHOWN}.startsWith('CA-MZlong,')")).await;
        browser.click("#more").await;
        browser.wait("document.querySelectorAll('.row').length === 61").await;

        let search = browser.driver.find(By::Css("#filters input[type=search]")).await.unwrap();
        search.send_keys("has:lost").await.unwrap();
        shows("CA-MZ07").await;
        browser.wait("document.getElementById('total').textContent === '1 recording'").await;
        let hash = "#recordings?q=has%3Alost&sort=started";
        assert_eq!(browser.eval("return location.hash").await, hash);
        let links = browser
            .eval("return [...document.querySelectorAll('#found a')].map((a) => a.href)")
            .await;
        let lines = links[1].as_str().unwrap().strip_prefix(&recorder.url("")).unwrap();
        assert_eq!(recorder.get(lines).json()["id"], "MZ07");

        // Saved under a name, shared by its link, and gone back from.
        browser.click(".about details:nth-of-type(2) summary").await;
        let name = browser.driver.find(By::Css("#save-view input")).await.unwrap();
        name.send_keys("Lost").await.unwrap();
        browser.click("#save-view button").await;
        browser.wait("document.querySelector('#views a')?.textContent === 'Lost'").await;
        browser.eval("history.back()").await;
        browser.wait("document.querySelectorAll('.row').length === 50").await;
        assert_eq!(browser.eval("return location.hash").await, "#recordings?sort=started");
        browser.driver.refresh().await.unwrap();
        browser.wait(&format!("{SHOWN}.startsWith('CA-MZlong,')")).await;
        browser.click(".about details:nth-of-type(2) summary").await;
        browser.click("#views a").await;
        shows("CA-MZ07").await;
        assert_eq!(browser.eval("return location.hash").await, hash);
        browser.assert_fits().await;
        browser.click("#views button").await;
        browser.wait("!document.querySelector('#views a')").await;
        browser.assert_clean(&recorder);

        // A new recording comes by itself if the search finds it.
        let mut plan = recorder.plan();
        plan.flood = true;
        plan.duration = Some(std::time::Duration::from_secs(1));
        plan.call_sid = Some("CAlast".into());
        browser.eval("location.hash = '#recordings?q=calast'").await;
        browser.wait("document.getElementById('recordings-none').checkVisibility()").await;
        assert!(recorder.place_meanwhile(plan).await.unwrap().is_good());
        browser.wait("document.querySelectorAll('li.new').length === 1").await;
        shows("CAlast").await;

        // A value that a term does not take is told beside the search.
        browser.eval("location.hash = '#recordings?q=has:fun'").await;
        let said = "document.getElementById('list-wrong')";
        browser
            .wait(&format!("{said}.textContent.startsWith('`has:fun`: `has:` takes gaps')"))
            .await;
        browser.wait(&format!("{said}.checkVisibility() && !document.querySelector('.row')")).await;
        assert_eq!(
            browser.eval("return document.getElementById('found').hidden").await,
            json!(true)
        );
        browser.close().await;
    });
}
