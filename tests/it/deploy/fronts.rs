//! Deploys behind real proxies: the proxy is reloaded to send new connections to the second instance, then
//! the first one is drained. No call is cut, and no handshake is refused.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::hand_over::{Callers, try_call};
use super::{check_whole, go_on_and_finish_all};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually, free_address};

/// Calls that run when the proxy is reloaded.
const RUNNING: usize = 50;

/// A proxy, ended when dropped: its command, and the signal that makes it read its settings again.
struct Proxy {
    child: Child,
    reload: Signal,
}

impl Proxy {
    fn start(command: &mut Command, reload: Signal, address: SocketAddr) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let proxy = Self { child: command.spawn().expect("the proxy is installed"), reload };
        eventually(PATIENCE, "the proxy listens", || TcpStream::connect(address).ok());
        proxy
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the proxy runs");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Runs calls through a proxy, and deploys a second instance: `configure` writes the proxy's settings for
/// the address of the instance that gets new connections, and that of the other one.
fn deploy(address: SocketAddr, start: impl Fn() -> Proxy, configure: impl Fn(&str, &str)) {
    let dir = tempfile::tempdir().unwrap();
    let instance = || Setup::new(dir.path()).plain().args(&["--admin", "127.0.0.1:0"]).start();
    let count = |server: &Server| server.metric("callreel_calls_begun_total");
    let (mut old, new) = (instance(), instance());
    let (old_address, new_address) = (old.address.to_string(), new.address.to_string());
    configure(&old_address, &new_address);
    let proxy = start();
    let mut running: Vec<Peer> = (0..RUNNING)
        .map(|number| try_call(address, 1000 + 2 * number + 1).unwrap().unwrap())
        .collect();
    running.iter_mut().for_each(Peer::sync);
    assert_eq!((count(&old), count(&new)), (RUNNING as f64, 0.0));
    let callers = Callers::start(address);
    configure(&new_address, &old_address);
    proxy.signal(proxy.reload);
    eventually(PATIENCE, "new calls go to the second one", || (count(&new) > 5.0).then_some(()));
    old.signal(Signal::USR1);
    old.wait_for_log("calls left");
    let seen = count(&new);
    eventually(PATIENCE, "more of them", || (count(&new) > seen + 5.0).then_some(()));
    let running = go_on_and_finish_all(running);
    let (peers, count, errors) = callers.end();
    assert_eq!(old.wait(PATIENCE).code(), Some(0));
    assert!(errors.is_empty(), "of {count}: {errors:?}");
    check_whole(dir.path(), &running);
    check_whole(dir.path(), &peers);
}

/// Writes settings so that a proxy never reads half of them.
fn replace(path: &Path, text: String) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn behind_nginx_a_deploy_cuts_no_call_and_refuses_no_handshake() {
    let home = tempfile::tempdir().unwrap();
    let (address, settings) = (free_address(), home.path().join("nginx.conf"));
    let configure = |first: &str, second: &str| {
        let text = format!(
            r#"daemon off; worker_processes 1; pid {home}/pid; error_log stderr;
events {{ worker_connections 1000; }}
http {{
  access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  upstream callreel {{ server {first}; server {second} backup; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://callreel; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
      proxy_next_upstream error timeout http_503 non_idempotent; proxy_read_timeout 1h;
    }}
  }}
}}
"#,
            home = home.path().display()
        );
        replace(&settings, text);
    };
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(home.path()).arg("-c").arg(&settings);
    let command = std::cell::RefCell::new(command);
    let start = || Proxy::start(&mut command.borrow_mut(), Signal::HUP, address);
    deploy(address, start, configure);
}

#[test]
fn behind_haproxy_a_deploy_cuts_no_call_and_refuses_no_handshake() {
    let home = tempfile::tempdir().unwrap();
    let (address, settings) = (free_address(), home.path().join("haproxy.cfg"));
    let configure = |first: &str, _: &str| {
        let text = format!(
            "global\n  maxconn 1000\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n\
             frontend public\n  bind {address}\n  default_backend callreel\n\
             backend callreel\n  server first {first}\n"
        );
        replace(&settings, text);
    };
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-W", "-db", "-f"]).arg(&settings);
    let command = std::cell::RefCell::new(command);
    let start = || Proxy::start(&mut command.borrow_mut(), Signal::USR2, address);
    deploy(address, start, configure);
}
