//! The stream of events: what a client asks for, and what it gets when it comes back.

use std::io::{BufRead as _, BufReader, Lines};
use std::time::Duration;

use serde_json::{Value, json};

use super::{dtmf, locked, open, validate};
use crate::harness::admin::Recorder;
use crate::harness::process::PATIENCE;

/// An event: its id, its name and its data.
type Told = (Option<String>, String, Value);

/// The lines of a stream of events.
struct Stream(Lines<BufReader<ureq::BodyReader<'static>>>);

impl Stream {
    fn open(recorder: &Recorder, query: &str, last: Option<&str>) -> Self {
        let mut request = ureq::get(recorder.url(&format!("/api/v1/events{query}")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let body = request.config().timeout_global(Some(PATIENCE)).build().call().unwrap();
        Self(BufReader::new(body.into_body().into_reader()).lines())
    }

    fn next(&mut self) -> Told {
        let (mut id, mut event) = (None, String::new());
        loop {
            let line = self.0.next().expect("the events go on").expect("an event in time");
            match line.split_once(": ") {
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("event", text)) => text.clone_into(&mut event),
                Some(("data", text)) => return (id, event, serde_json::from_str(text).unwrap()),
                _ => {}
            }
        }
    }

    /// The events up to the first one of this name.
    fn until(&mut self, name: &str) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            told.push(self.next());
            if told.last().unwrap().1 == name {
                return told;
            }
        }
    }
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|(_, name, _)| name.as_str()).collect()
}

/// Places a short call under this id, and waits for its end.
fn place(recorder: &Recorder, call_id: &str) {
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_millis(1500));
    plan.call_sid = Some(call_id.to_owned());
    plan.fault("gap=300ms@700ms").unwrap();
    plan.cues.push(dtmf());
    assert!(recorder.place(&plan).is_good());
}

#[test]
fn a_client_that_comes_back_gets_the_events_that_it_missed() {
    let recorder = Recorder::start(open());
    let mut stream = Stream::open(&recorder, "", None);
    let (first, name, _) = stream.next();
    assert_eq!(name, "hello");
    drop(stream);
    place(&recorder, "CAmissed");
    recorder.wait_for_recordings(1);
    // A look later, the last event is told.
    let mut watching = Stream::open(&recorder, "", first.as_deref());
    let mut told = watching.until("hello");
    told.extend(watching.until("status"));
    let lasting: Vec<&Told> = told.iter().filter(|(id, ..)| id.is_some()).collect();
    let order: Vec<&str> = lasting.iter().map(|(_, name, _)| name.as_str()).collect();
    for name in ["started", "dtmf", "gap", "ended", "published"] {
        assert_eq!(order.iter().filter(|one| **one == name).count(), 1, "{name} in {order:?}");
    }
    assert!(!order.contains(&"lost"));
    // From an event in the middle on.
    let ended = lasting.iter().find(|(_, name, _)| name == "ended").unwrap();
    let again = Stream::open(&recorder, "", ended.0.as_deref()).until("hello");
    assert_eq!(names(&again), ["published", "hello"]);
    let position = again.last().unwrap().0.as_deref();
    assert_eq!(names(&Stream::open(&recorder, "", position).until("hello")), ["hello"]);
    for unknown in ["0-1", "", "-", "99", &format!("{}9", position.unwrap())] {
        let lost = Stream::open(&recorder, "?kind=hello", Some(unknown)).until("hello");
        assert_eq!(names(&lost), ["lost", "hello"], "{unknown}");
    }
}

#[test]
fn a_stream_gets_the_calls_and_kinds_that_it_asks_for() {
    let recorder = Recorder::start(open());
    let mut one = Stream::open(&recorder, "?call=CAone", None);
    let mut published = Stream::open(&recorder, "?kind=published", None);
    let mut both = Stream::open(&recorder, "?call=CAone&kind=ended,published", None);
    place(&recorder, "CAother");
    place(&recorder, "CAone");
    let told = one.until("published");
    assert_eq!(told[0].1, "hello");
    assert_eq!(told[0].2["calls"], json!([]));
    let is_of_one = |(_, name, data): &Told| match name.as_str() {
        "started" | "published" => data["call_id"] == "CAone",
        "level" => data["calls"].as_array().unwrap().len() == 1,
        "hello" | "ended" | "gap" | "dtmf" => true,
        _ => false,
    };
    assert!(told.iter().all(is_of_one), "{told:?}");
    assert_eq!(told.iter().filter(|(_, name, _)| name == "ended").count(), 1);
    let calls =
        [published.next(), published.next()].map(|(_, name, data)| (name, data["call_id"].clone()));
    assert_eq!(calls, ["CAother", "CAone"].map(|id| ("published".to_owned(), json!(id))));
    assert_eq!(names(&both.until("published")), ["ended", "published"]);
    for query in ["?kind=end", "?kind=ended,", "?kind=a&kind=b"] {
        let answer = recorder.get(&format!("/api/v1/events{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let said =
        recorder.get("/api/v1/events?kind=end").json()["detail"].as_str().unwrap().to_owned();
    assert!(said.contains("dtmf, ended, gap"), "{said}");
    assert_eq!(Recorder::start(locked()).get("/api/v1/events").status, 401);
}

#[test]
fn each_event_is_as_described() {
    let recorder = Recorder::start(open());
    let description = recorder.get("/openapi.json").json();
    let mut stream = Stream::open(&recorder, "", Some("0-1"));
    let mut told = stream.until("hello");
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_millis(2500));
    plan.fault("gap=400ms@1s").unwrap();
    plan.cues.push(dtmf());
    let placed = recorder.place_meanwhile(plan);
    told.extend(stream.until("published"));
    told.extend(stream.until("status"));
    assert!(recorder.block_on(placed).unwrap().is_good());
    for name in ["lost", "hello", "started", "level", "dtmf", "gap", "ended", "published", "status"]
    {
        assert!(names(&told).contains(&name), "{name}");
    }
    let schema = &description["components"]["schemas"]["Event"];
    for (_, event, data) in told {
        validate(&description, schema, &json!({ "event": event, "data": data }));
    }
}
