//! The store of another cloud: Azurite, Microsoft's own emulator, of npm, as a process.
//!
//! For Google there is none in a registry: its clients of XML, `object_store` among them, find neither their uploads
//! nor their lists in fake-gcs-server and gcp-storage-emulator.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::packages;
use super::process::{PATIENCE, eventually, free_address};

/// The emulator, and Microsoft's own client.
const AZURE: [&str; 2] = ["azurite@3.37.0", "@azure/storage-blob@12.34.0"];

/// Account and key that Azurite knows without any setting.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A container of its own, in a server of its own.
pub(crate) struct Cloud {
    server: Child,
    /// The address of a home in it.
    pub home: String,
    /// The variables of its clients.
    pub variables: Vec<(String, String)>,
    _dir: tempfile::TempDir,
}

impl Cloud {
    /// An empty container of Azurite.
    pub(crate) fn azure() -> Self {
        let modules = packages::node("azurite", &AZURE);
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut server = Command::new("node");
        // Its client is newer than itself, and speaks a newer version of the protocol.
        server.arg(modules.join("azurite/dist/src/blob/main.js"));
        server.args(["--silent", "--skipApiVersionCheck"]);
        server.args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()]);
        server.arg("--location").arg(dir.path());
        let endpoint = format!("http://{address}/{ACCOUNT}");
        let variables = [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
        ];
        let log = File::create(dir.path().join("server.log")).unwrap();
        let server = server
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Azurite starts");
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let cloud = Self { server, home: "az://calls/eu".to_owned(), variables, _dir: dir };
        eventually(PATIENCE, "Azurite listens", || TcpStream::connect(address).ok());
        const CREATE: &str = r#"
const { BlobServiceClient, StorageSharedKeyCredential } = require("@azure/storage-blob");
const [endpoint, account, key] = process.argv.slice(1);
const client = new BlobServiceClient(endpoint, new StorageSharedKeyCredential(account, key));
client.createContainer("calls").catch((error) => { console.error(error); process.exit(1); });
"#;
        let mut create = Command::new("node");
        create.args(["-e", CREATE, &endpoint, ACCOUNT, KEY]).env("NODE_PATH", &modules);
        assert!(create.status().unwrap().success(), "Azurite makes a container");
        cloud
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
