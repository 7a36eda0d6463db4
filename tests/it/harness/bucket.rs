//! A bucket of S3: moto, a server of PyPI, as a process, with a front before it that brings in faults. Or a bucket of
//! another server, behind the same front.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::packages;
use super::process::{PATIENCE, Server, Setup, eventually, free_address};

/// The server and the parts of it that S3 needs, and Amazon's own client.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// Settings that every client of the server needs.
pub(crate) const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "key"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_REGION", "us-east-1"),
];

/// Headers of a request of the tests. The server reads no signature, but wants one for objects that were put
/// with one.
const HEADERS: &str = "Host: a\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 \
    Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";

/// The server, for all tests that need it at one time.
struct Moto {
    server: Child,
    address: SocketAddr,
    _log: tempfile::TempDir,
}

impl Moto {
    fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Moto>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(moto) = shared.upgrade() {
            return moto;
        }
        let moto = Arc::new(Self::start());
        *shared = Arc::downgrade(&moto);
        moto
    }

    fn start() -> Self {
        let log = tempfile::tempdir().unwrap();
        let address = free_address();
        let file = File::create(log.path().join("moto.log")).unwrap();
        let port = address.port().to_string();
        let server = Command::new(packages::python("moto", &PACKAGES))
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("moto starts");
        let moto = Self { server, address, _log: log };
        eventually(PATIENCE, "moto listens", || TcpStream::connect(address).ok());
        moto
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The way in which the front treats a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Passes it on.
    None,
    /// Answers with this status, and with Retry-After of this many seconds unless they are 0.
    Status(u16, u32),
    /// Resets the connection when this many bytes of the body were read.
    Reset(usize),
    /// Passes it on, and closes the connection in the place of the answer.
    NoAnswer,
    /// Passes it on at this many bytes in a second.
    Slow(usize),
    /// Passes it on with another last byte of its body.
    Damage,
}

/// The first line of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The encryption that it asks for, and the key.
    pub encryption: [Option<String>; 2],
}

type Choose = Box<dyn FnMut(&Asked) -> Fault + Send>;

/// A bucket of its own, behind a front of its own.
pub(crate) struct Bucket {
    /// The server, past the front.
    address: SocketAddr,
    /// The server, if it is moto.
    _moto: Option<Arc<Moto>>,
    name: String,
    front: Arc<Front>,
}

struct Front {
    address: SocketAddr,
    to: SocketAddr,
    is_away: AtomicBool,
    is_over: AtomicBool,
    choose: Mutex<Choose>,
    asked: Mutex<Vec<Asked>>,
    /// The paths of objects that the server said to have after a put, with the time of the first such answer.
    there: Mutex<BTreeMap<String, Instant>>,
}

impl Bucket {
    /// An empty bucket of moto.
    pub(crate) fn new() -> Self {
        let moto = Moto::get();
        let name = format!("calls-{:016x}", fastrand::u64(..));
        let created = request(moto.address, "PUT", &format!("/{name}"));
        assert!(created.starts_with("HTTP/1.1 200"), "{created}");
        Self::of(moto.address, name, Some(moto))
    }

    /// An empty bucket of another server, which starts meanwhile and takes requests without a signature.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let name = format!("calls-{:016x}", fastrand::u64(..));
        eventually(PATIENCE, "the server makes a bucket", || {
            TcpStream::connect(address).ok()?;
            let created = request(address, "PUT", &format!("/{name}"));
            created.starts_with("HTTP/1.1 200").then_some(())
        });
        Self::of(address, name, None)
    }

    fn of(address: SocketAddr, name: String, moto: Option<Arc<Moto>>) -> Self {
        let front = Arc::new(Front {
            address: free_address(),
            to: address,
            is_away: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            choose: Mutex::new(Box::new(|_| Fault::None)),
            asked: Mutex::default(),
            there: Mutex::default(),
        });
        let listens = Arc::clone(&front);
        thread::spawn(move || listens.run());
        Self { address, _moto: moto, name, front }
    }

    /// The address of a home in it.
    pub(crate) fn home(&self) -> String {
        format!("s3://{}/eu", self.name)
    }

    /// The variables of a client that goes through the front.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let endpoint = ("AWS_ENDPOINT_URL", format!("http://{}", self.front.address));
        let keys = KEYS.iter().map(|(name, value)| (*name, (*value).to_owned()));
        keys.chain([endpoint]).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A recorder with a home in it.
    pub(crate) fn recorder(&self, dir: &Path) -> Setup {
        let mut setup = Setup::new(dir).args(&["--home", &self.home()]);
        setup = setup.env("CALLREEL_INSTANCE", "pod-0");
        for (name, value) in self.variables() {
            setup = setup.env(&name, value);
        }
        setup.args(&["--admin", "127.0.0.1:0"])
    }

    /// A console without a recorder over the home in it. It listens.
    pub(crate) fn console(&self) -> Server {
        let mut setup = Setup::console().args(&["--home", &self.home()]);
        for (name, value) in self.variables() {
            setup = setup.env(&name, value);
        }
        let console = setup.spawn();
        console.wait_for_log("console at http://");
        console
    }

    /// Forgets the requests that came.
    pub(crate) fn forget_asked(&self) {
        self.front.asked.lock().unwrap().clear();
    }

    /// Has the front treat each request as `choose` says.
    pub(crate) fn treat(&self, choose: impl FnMut(&Asked) -> Fault + Send + 'static) {
        *self.front.choose.lock().unwrap() = Box::new(choose);
    }

    /// Takes the front away, or brings it back: connections are refused.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.front.is_away.store(is_away, Ordering::SeqCst);
    }

    /// The requests that came, in their order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.front.asked.lock().unwrap().clone()
    }

    /// The time at which the server first said, after a put through the front, that it has the object of this key.
    pub(crate) fn there_since(&self, key: &str) -> Option<Instant> {
        let path = format!("/{}/eu/{key}", self.name);
        self.front.there.lock().unwrap().get(&path).copied()
    }

    /// Whether there is an object, asked past the front.
    pub(crate) fn has(&self, key: &str) -> bool {
        let path = format!("/{}/eu/{key}", self.name);
        request(self.address, "HEAD", &path).starts_with("HTTP/1.1 200")
    }

    /// Puts an object past the front.
    pub(crate) fn put(&self, key: &str, content: impl AsRef<[u8]>) {
        let (content, path) = (content.as_ref(), format!("/{}/eu/{key}", self.name));
        let mut socket = TcpStream::connect(self.address).unwrap();
        let length = content.len();
        write!(socket, "PUT {path} HTTP/1.1\r\n{HEADERS}Content-Length: {length}\r\n\r\n").unwrap();
        socket.write_all(content).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// All objects by their keys behind the prefix, and the number of uploads in parts that were begun and
    /// not ended, by Amazon's own client.
    pub(crate) fn contents(&self) -> (BTreeMap<String, Vec<u8>>, usize) {
        const DUMP: &str = r#"
import boto3, os, sys
endpoint, bucket, to = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                  aws_access_key_id="key", aws_secret_access_key="secret")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
    for number, entry in enumerate(page.get("Contents", [])):
        path = os.path.join(to, entry["Key"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        s3.download_file(bucket, entry["Key"], path)
print(len(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])))
"#;
        let to = tempfile::tempdir().unwrap();
        let output = Command::new(packages::python("moto", &PACKAGES))
            .args(["-c", DUMP, &format!("http://{}", self.address), &self.name])
            .arg(to.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "boto3 reads the bucket");
        let uploads = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let mut contents = BTreeMap::new();
        read_all(&to.path().join("eu"), "", &mut contents);
        (contents, uploads)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.front.is_over.store(true, Ordering::SeqCst);
    }
}

/// Reads all files below a folder, by their paths from there.
pub(crate) fn read_all(dir: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_all(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

/// The answer to a request without a body.
fn request(address: SocketAddr, method: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "{method} {path} HTTP/1.1\r\n{HEADERS}Content-Length: 0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

impl Front {
    fn run(self: Arc<Self>) {
        while !self.is_over.load(Ordering::SeqCst) {
            if self.is_away.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let Ok(listener) = TcpListener::bind(self.address) else { continue };
            listener.set_nonblocking(true).unwrap();
            while !self.is_away.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((socket, _)) => {
                        socket.set_nonblocking(false).unwrap();
                        let front = Arc::clone(&self);
                        thread::spawn(move || front.serve(socket));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        }
    }

    /// Serves one request on a connection, and closes it.
    fn serve(&self, mut from: TcpStream) {
        from.set_read_timeout(Some(PATIENCE)).unwrap();
        let Some((head, mut body)) = read_head(&mut from) else { return };
        let mut words = head.split(' ').map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
        let names = ["x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"];
        let asked = Asked { method, path, encryption: names.map(|name| header(&head, name)) };
        let fault = (self.choose.lock().unwrap())(&asked);
        self.asked.lock().unwrap().push(asked.clone());
        let length = header(&head, "content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        if let Fault::Reset(bytes) = fault {
            while body.len() < bytes.min(length) && read_more(&mut from, &mut body) {}
            // Unread bytes make the kernel reset the connection.
            return;
        }
        let slowness = match fault {
            Fault::Slow(bytes) => Some((bytes, Instant::now())),
            _ => None,
        };
        while body.len() < length && read_more(&mut from, &mut body) {
            if let Some((bytes, began)) = slowness {
                let due = Duration::from_secs_f64(body.len() as f64 / bytes as f64);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
        }
        if body.len() < length {
            return;
        }
        if let Fault::Status(status, wait) = fault {
            let wait = if wait > 0 { format!("Retry-After: {wait}\r\n") } else { String::new() };
            let end = "Connection: close\r\nContent-Length: 0\r\n\r\n";
            let _ = write!(from, "HTTP/1.1 {status} Fault\r\n{wait}{end}");
            return;
        }
        if let (Fault::Damage, Some(last)) = (fault, body.last_mut()) {
            *last ^= 1;
        }
        let Ok(mut to) = TcpStream::connect(self.to) else { return };
        let lines =
            head.split("\r\n").filter(|line| !line.to_lowercase().starts_with("connection:"));
        let head = lines.collect::<Vec<_>>().join("\r\n");
        let head = format!("{}\r\nConnection: close\r\n\r\n", head.trim_end());
        if to.write_all(head.as_bytes()).is_err() || to.write_all(&body).is_err() {
            return;
        }
        let mut answer = Vec::new();
        let _ = to.read_to_end(&mut answer);
        // 412: an earlier put went through, and its answer was lost.
        let is_there =
            [&b"HTTP/1.1 200"[..], b"HTTP/1.1 412"].iter().any(|s| answer.starts_with(s));
        if asked.method == "PUT" && is_there {
            self.there.lock().unwrap().entry(asked.path).or_insert_with(Instant::now);
        }
        if fault != Fault::NoAnswer {
            let _ = from.write_all(&answer);
            let _ = from.shutdown(Shutdown::Write);
        }
    }
}

/// The head of a request, and the beginning of its body.
fn read_head(from: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).ok()?, body));
        }
        if !read_more(from, &mut bytes) {
            return None;
        }
    }
}

fn read_more(from: &mut TcpStream, into: &mut Vec<u8>) -> bool {
    let mut piece = [0; 16 << 10];
    let count = from.read(&mut piece).unwrap_or(0);
    into.extend(&piece[..count]);
    count > 0
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.to_owned()))
}
