//! A certificate of the demo's own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::{ToSpan as _, Zoned};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use crate::disk;
use crate::tls::{self, Certificate};

/// Folder of the files in the directory of the recordings. It has no day's name, so it counts as none.
const DIR: &str = "tls";

/// Days for which the certificate is valid. Clients of some systems take no longer ones.
const DAYS: i64 = 365;

/// A self-signed certificate for this machine, and its key.
pub(super) struct CertificateFiles {
    /// The certificate, in PEM. It is its own authority.
    pub cert: PathBuf,
    /// The key, in PEM, for its owner alone.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Makes a new certificate, in the place of one that an earlier demo made in this directory.
    ///
    /// # Errors
    /// The directory cannot be written, or the system gives no random numbers.
    pub(super) fn make(recordings: &Path) -> io::Result<Self> {
        let dir = recordings.join(DIR);
        disk::create_dir(&dir)?;
        let files = Self { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "callreel demo");
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let today = Zoned::now().date();
        let midnight = |date: Date| {
            date_time_ymd(
                date.year().into(),
                date.month().unsigned_abs(),
                date.day().unsigned_abs(),
            )
        };
        // A clock may differ from that of a client, and so may the zone.
        params.not_before = midnight(today.saturating_sub(1.day()));
        params.not_after = midnight(today.saturating_add(DAYS.days()));
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = params.self_signed(&key).map_err(io::Error::other)?;
        write(&files.key, 0o600, &key.serialize_pem())?;
        write(&files.cert, 0o644, &cert.pem())?;
        Ok(files)
    }

    /// The certificate, for a listener.
    ///
    /// # Errors
    /// The files were changed meanwhile.
    pub(super) fn open(&self) -> Result<Certificate, tls::Error> {
        let (cert, key) = (self.cert.clone(), self.key.clone());
        Certificate::open(tls::Config { cert, key, client_ca: None, challenges: None })
    }
}

/// Writes a file anew: one that others could read stays readable to them if it is only filled again.
fn write(path: &Path, mode: u32, content: &str) -> io::Result<()> {
    disk::found(fs::remove_file(path))?;
    let mut options = OpenOptions::new();
    let mut file = disk::open(options.write(true).create_new(true).mode(mode), path)?;
    file.write_all(content.as_bytes())
}
