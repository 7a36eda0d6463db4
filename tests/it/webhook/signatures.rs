//! Signatures, as the official packages of Standard Webhooks verify them, and changes of the secrets.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use super::{collect, put};
use crate::backlog::SECRET;
use crate::harness::process::{PATIENCE, Setup, eventually};
use crate::harness::receiver::{Request, receivers};
use crate::harness::{oracle, packages};

const NEW_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[test]
fn secrets_are_rolled_over_without_a_restart_and_without_an_unverified_message() {
    let dir = tempfile::tempdir().unwrap();
    let (home, secrets) = (dir.path().join("rec"), dir.path().join("secrets"));
    fs::write(&secrets, format!("# of the old receiver\n{SECRET}\n")).unwrap();
    let (url, received) = receivers(|_| Some("204 No Content".to_owned()));
    let file = secrets.to_str().unwrap();
    let options = ["--webhook", &url, "--webhook-secret-file", file];
    let server = Setup::new(&home).args(&options).start();
    let next = |id: &str| {
        put(&home, id);
        collect(&received, 1, |_| true).remove(0).0
    };
    let old = next("msg_old");
    let replace = |text: String, told: &str| {
        let count = || server.log_lines().iter().filter(|line| line.contains(told)).count();
        let before = count();
        fs::write(dir.path().join("next"), text).unwrap();
        fs::rename(dir.path().join("next"), &secrets).unwrap();
        eventually(PATIENCE, told, || (count() > before).then_some(()));
    };
    replace(format!("{NEW_SECRET}\n{SECRET}\n"), "took over the changed secrets");
    let both = next("msg_both");
    assert_eq!(both.0["webhook-signature"].split(' ').count(), 2);
    replace("whsec_unfinished".to_owned(), "goes on with the secrets read before");
    let log = server.wait_for_log("goes on with the secrets read before");
    assert!(
        log.contains("line 1: the webhook secret must be") && !log.contains("unfinished"),
        "{log}"
    );
    let still = next("msg_still");
    replace(format!("{NEW_SECRET}\n"), "took over the changed secrets");
    let new = next("msg_new");
    // Written over, not replaced, and read again at once.
    fs::write(&secrets, format!("{SECRET}\n")).unwrap();
    server.signal(Signal::HUP);
    eventually(PATIENCE, "the file was read", || {
        let lines = server.log_lines();
        let told = lines.iter().filter(|line| line.contains("took over the changed secrets"));
        (told.count() == 3).then_some(())
    });
    let over = next("msg_over");

    let requests = [old, both, still, new, over].map(|(headers, body)| (headers, body));
    let verdicts = |secret: &str| {
        let python = verify(&python(), PYTHON, secret, &requests);
        assert_eq!(python, verify(&node(), NODE, secret, &requests), "Python and Node differ");
        python
    };
    assert_eq!(verdicts(SECRET), [true, true, true, false, true]);
    assert_eq!(verdicts(NEW_SECRET), [false, true, true, true, false]);
}

const PYTHON: &str = "
import json, sys
from standardwebhooks import Webhook, WebhookVerificationError
asked = json.load(sys.stdin)
def verdict(headers, body):
    try:
        Webhook(asked['secret']).verify(body, headers)
        return True
    except WebhookVerificationError:
        return False
print(json.dumps([verdict(*request) for request in asked['requests']]))";

const NODE: &str = "
const { Webhook, WebhookVerificationError } = require('standardwebhooks');
const asked = JSON.parse(require('fs').readFileSync(0));
console.log(JSON.stringify(asked.requests.map(([headers, body]) => {
  try { new Webhook(asked.secret).verify(body, headers); return true; }
  catch (error) { if (!(error instanceof WebhookVerificationError)) throw error; return false; }
})));";

/// Has a program with the package verify each request.
fn verify(program: &[String], script: &str, secret: &str, requests: &[Request]) -> Vec<bool> {
    let input = json!({ "secret": secret, "requests": requests }).to_string();
    let mut arguments: Vec<&str> = program[1..].iter().map(String::as_str).collect();
    arguments.push(script);
    let verdicts = oracle::run(&program[0], &arguments, input.as_bytes());
    serde_json::from_slice(&verdicts).unwrap()
}

/// A Python that has the package.
fn python() -> Vec<String> {
    let python = packages::python("standardwebhooks-python", &["standardwebhooks==1.1.0"]);
    vec![python.display().to_string(), "-c".to_owned()]
}

/// A Node that has the package.
fn node() -> Vec<String> {
    let modules = packages::node("standardwebhooks-node", &["standardwebhooks@1.1.1"]);
    let find = format!("NODE_PATH={}", modules.display());
    vec!["env".to_owned(), find, "node".to_owned(), "-e".to_owned()]
}
