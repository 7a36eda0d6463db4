//! The files of `host/deploy` and `host/systemd`: held to schemas, read by systemd, and run as far as that needs no
//! cluster and no registry.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{check_whole, go_on_and_finish, heard_call};
use crate::harness::packages;
use crate::harness::process::{PATIENCE, Setup, eventually};
use crate::harness::shelf;

const TOKEN: &str = "a-token-of-more-than-sixteen-characters";

fn host(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host").join(path)
}

/// Runs a program of Python's kubernetes-validate with an argument; returns its status and its output.
fn kubernetes(program: &str, argument: &Path) -> (bool, String) {
    let python = packages::python("kubernetes", &["kubernetes-validate==1.35.0", "PyYAML==6.0.3"]);
    let output = Command::new(python).args(["-c", program]).arg(argument).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Checks each document of a file against the schema of its kind; unknown fields are errors.
const VALIDATE: &str = r#"
import sys, yaml, kubernetes_validate
for document in yaml.safe_load_all(open(sys.argv[1])):
    kubernetes_validate.validate(document, "1.35", strict=True)
"#;

const TO_JSON: &str = r#"
import sys, yaml, json
print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))
"#;

#[test]
fn the_manifests_fit_the_schemas_of_kubernetes() {
    let manifest = host("deploy/kubernetes.yaml");
    let (is_valid, said) = kubernetes(VALIDATE, &manifest);
    assert!(is_valid, "{said}");
    // The schemas refuse something.
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let misspelt = text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds");
    assert_ne!(text, misspelt);
    let path = dir.path().join("misspelt.yaml");
    fs::write(&path, misspelt).unwrap();
    assert!(!kubernetes(VALIDATE, &path).0, "an unknown field passes");
}

/// Seconds in a duration such as `30m`.
fn seconds(duration: &str) -> u64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    number.parse::<u64>().unwrap() * if unit == "m" { 60 } else { 1 }
}

#[test]
fn the_pod_of_the_manifests_is_a_recorder_that_answers_its_probes_and_has_time_to_drain() {
    let (_, json) = kubernetes(TO_JSON, &host("deploy/kubernetes.yaml"));
    let documents: Vec<Value> = serde_json::from_str(&json).unwrap();
    let of = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let set = of("StatefulSet").next().unwrap();
    let (pod, labels) =
        (&set["spec"]["template"]["spec"], &set["spec"]["template"]["metadata"]["labels"]);
    let container = &pod["containers"][0];
    // What selects pods selects these.
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    for service in of("Service") {
        assert_eq!(&service["spec"]["selector"], labels);
        let port = &service["spec"]["ports"][0]["targetPort"];
        let ports = container["ports"].as_array().unwrap();
        assert!(ports.iter().any(|known| known["name"] == *port), "{port}");
    }
    for budget in of("PodDisruptionBudget") {
        assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    }
    let names: Vec<_> = of("Service").map(|service| &service["metadata"]["name"]).collect();
    assert!(names.contains(&&set["spec"]["serviceName"]));
    let args: Vec<&str> =
        container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let value = |name: &str| {
        let value = args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is there"))
    };
    let needed_s = seconds(value("--drain")) + seconds(value("--drain-delay"));
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= needed_s + 30);
    assert_eq!(container["volumeMounts"][0]["mountPath"], value("--dir"));
    // The readiness probe has failed before calls are refused.
    let ready = &container["readinessProbe"];
    let noticed_s =
        ready["periodSeconds"].as_u64().unwrap() * ready["failureThreshold"].as_u64().unwrap();
    assert!(noticed_s <= seconds(value("--drain-delay")));
    // The program takes the arguments.
    let dir = tempfile::tempdir().unwrap();
    let own = ["--dir=", "--listen=", "--admin=", "--log-format=", "serve"];
    let taken: Vec<&str> =
        args.iter().copied().filter(|arg| !own.iter().any(|own| arg.starts_with(own))).collect();
    let setup = Setup::new(dir.path()).env("CALLREEL_ADMIN_TOKEN", TOKEN).args(&taken).plain();
    let mut server = setup.args(&["--admin", "127.0.0.1:0"]).start();
    let probe = |probe: &str| container[probe]["httpGet"]["path"].as_str().unwrap();
    assert_eq!(server.get(probe("readinessProbe")), 200);
    assert_eq!(server.ask_admin(probe("livenessProbe")).0, 200);
    let annotations = &set["spec"]["template"]["metadata"]["annotations"];
    let metrics = annotations["prometheus.io/path"].as_str().unwrap();
    assert_eq!(server.ask_admin(metrics).0, 401, "it is there, for those with the token");
    server.signal(Signal::TERM);
    eventually(PATIENCE, "it is not ready", || {
        (server.get(probe("readinessProbe")) == 503).then_some(())
    });
    assert_eq!(server.ask_admin(probe("livenessProbe")).0, 200, "no reason to start it again");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

/// The messages of systemd about units, whose program is one that this machine has.
fn verify(units: &[(String, String)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for (name, text) in units {
        let path = dir.path().join(name);
        fs::write(&path, text.replace("/usr/local/bin/callreel", "/bin/true")).unwrap();
        // An instance of a template.
        command.arg(dir.path().join(name.replace('@', "@5051")));
    }
    let output = command.output().expect("Debian's package systemd is there");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    if output.status.success() { said } else { format!("{}: {said}", output.status) }
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    };
    let units: Vec<_> =
        fs::read_dir(host("systemd")).unwrap().map(|entry| read(entry.unwrap())).collect();
    assert!(units.iter().any(|(name, _)| name == "callreel@.service"), "{units:?}");
    assert_eq!(verify(&units), "");
    let misspelt: Vec<_> = units
        .into_iter()
        .map(|(name, text)| (name, text.replace("WatchdogSec", "WatchdogSecs")))
        .collect();
    assert!(verify(&misspelt).contains("WatchdogSecs"), "an unknown key passes");
}

#[test]
fn the_dockerfile_names_files_that_are_there_and_the_user_of_its_script() {
    let script = host("deploy/image.sh");
    let steps = fs::read_to_string(host("deploy/Dockerfile")).unwrap();
    let said = fs::read_to_string(&script).unwrap();
    assert!(steps.contains("RUN host/deploy/image.sh /image"), "{steps}");
    assert_ne!(fs::metadata(&script).unwrap().permissions().mode() & 0o111, 0);
    assert!(steps.contains("\nUSER 10001:10001\n") && said.contains("chown 10001:10001"));
    let compiler = fs::read_to_string(host("../rust-toolchain.toml")).unwrap();
    let version = steps.split_once("rust:").unwrap().1.split_once("-bookworm").unwrap().0;
    assert!(compiler.contains(&format!("channel = \"{version}.")), "{version}");
    let is_read = Command::new("sh").arg("-n").arg(&script).status().unwrap();
    assert!(is_read.success());
}

/// The steps of the Dockerfile without Docker, for the program as `cargo build` makes it. With `CALLREEL_LONG`,
/// since everything is built for another libc.
#[test]
fn the_static_program_records_in_a_root_with_nothing_else_as_another_user() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    // Other users have to get in.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = home.path().join("image");
    let built =
        Command::new(host("deploy/image.sh")).arg(&root).args(["--profile", "dev"]).status();
    assert!(built.unwrap().success(), "see host/deploy/image.sh for the tools that it needs");
    let program = root.join("callreel");
    let headers =
        Command::new("readelf").args(["--program-headers", "--wide"]).arg(&program).output();
    let headers = String::from_utf8(headers.expect("binutils are there").stdout).unwrap();
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "it is not static: {headers}");
    let inside = r#"exec unshare --mount chroot --userspec=10001:10001 "$ROOT" /callreel "$@""#;
    let setup = Setup::through(&["sh", "-c", inside], Path::new("/recordings"));
    let mut server = setup.env("ROOT", &root).plain().start();
    let status =
        fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    assert!(status.contains("\nUid:\t10001\t10001\t"), "{status}");
    let peer = go_on_and_finish(heard_call(&server, "MZ1"));
    assert!(server.stop().0.success());
    check_whole(&root.join("recordings"), &[peer]);
    assert!(shelf::unfinished(&root.join("recordings")).is_empty());
}
