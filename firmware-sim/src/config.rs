//! The configuration block: a small text file on the card, `CONFIG.TXT`, with a setting a line.
//!
//! ```text
//! # callreel
//! name = front-desk
//! address = 192.0.2.7/24
//! secret = 4f1c0a7d9e2b4c55
//! ```
//!
//! A line that cannot be read is reported with its number, and the other lines count. Where such a line may
//! have been meant to guard something, that is closed until the line is mended.

use core::net::Ipv4Addr;

use heapless::{String, Vec};

/// The file's name in the card's root directory, in FAT's form.
pub const FILE: [u8; 11] = *b"CONFIG  TXT";

/// Most bytes of the file.
pub const FILE_BYTES_MAX: u32 = 4096;

/// Most bytes of a line, without its end.
const LINE_BYTES_MAX: usize = 160;

/// Faulty lines that are kept with their errors. The others are counted.
const FAULTS_MAX: usize = 3;

/// Length of a secret and of a token for reading, in characters.
const SECRET_CHARS_MIN: usize = 16;
const SECRET_CHARS_MAX: usize = 64;

/// A setting that guards something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Guard {
    /// Not set: nothing to show.
    #[default]
    Open,
    /// To be shown by the peer.
    Set(String<SECRET_CHARS_MAX>),
    /// The setting could not be read: nobody passes.
    Locked,
}

/// An address of the appliance's own, and the network around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 1 to 30.
    pub prefix_bits: u8,
}

/// A line that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Number of the line, from 1; 0 for the file as a whole.
    pub line: u16,
    /// The reason, and the form that the line should have. Plain ASCII without quotes.
    pub error: &'static str,
}

/// The settings in force. Without a file: the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// A file was found.
    pub is_found: bool,
    /// Name of this recorder; empty if not set.
    pub name: String<32>,
    /// The address; by default DHCP gives one.
    pub address: Option<Fixed>,
    /// The router to other networks; by default that of DHCP.
    pub gateway: Option<Ipv4Addr>,
    /// The name server; by default those of DHCP.
    pub dns: Option<Ipv4Addr>,
    /// Secret behind the paths of calls.
    pub secret: Guard,
    /// Token for the list and the files.
    pub reading_token: Guard,
    /// Twilio's auth token, by which calls are signed.
    pub auth_token: Guard,
    /// The URL at which the provider reaches this recorder, without a `/` at its end; empty if not set.
    pub public_url: String<96>,
    /// Server of the time, `HOST` or `HOST:PORT`; empty if not set.
    pub time_server: String<64>,
    /// The first faulty lines.
    pub faults: Vec<Fault, FAULTS_MAX>,
    /// Number of faulty lines.
    pub faults_count: u16,
}

impl Config {
    fn fault(&mut self, line: u16, error: &'static str) {
        self.faults_count += 1;
        // Further faults are only counted.
        let _ = self.faults.push(Fault { line, error });
    }

    /// Closes all that a line may have been meant to guard.
    fn lock(&mut self, line: u16, error: &'static str) {
        self.fault(line, error);
        self.secret = Guard::Locked;
        self.reading_token = Guard::Locked;
    }

    /// Takes a line, without its end.
    fn take_line(&mut self, line: u16, bytes: &[u8], seen: &mut u16) {
        let Ok(text) = core::str::from_utf8(bytes) else {
            return self.lock(line, "not UTF-8: save the file as UTF-8");
        };
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        let Some((key, value)) = text.split_once('=') else {
            return self.lock(line, "a line is KEY=VALUE, or begins with #");
        };
        let (key, value) = (key.trim_ascii(), value.trim_ascii());
        let Some(index) = KEYS.iter().position(|known| *known == key) else {
            return self.fault(line, "no such key: see the list in the README");
        };
        if *seen & 1 << index != 0 {
            self.lock_guard(key);
            return self.fault(line, "this key stands in an earlier line as well");
        }
        *seen |= 1 << index;
        if let Err(error) = self.set(key, value) {
            self.lock_guard(key);
            self.fault(line, error);
        }
    }

    fn lock_guard(&mut self, key: &str) {
        match key {
            "secret" => self.secret = Guard::Locked,
            "reading_token" => self.reading_token = Guard::Locked,
            "auth_token" => self.auth_token = Guard::Locked,
            _ => {}
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        const SECRET: &str = "16 to 64 of letters, digits and - . _ ~";
        const IPV4: &str = "an IPv4 address, as 192.0.2.1";
        match key {
            "name" => {
                let is_label = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                let name = String::try_from(value).ok();
                self.name = name
                    .filter(|name| is_label && !name.is_empty())
                    .ok_or("1 to 32 letters, digits and hyphens")?;
            }
            "address" if value == "dhcp" => self.address = None,
            "address" => {
                let fixed = fixed(value);
                self.address =
                    Some(fixed.ok_or("dhcp, or an IPv4 address and its prefix, as 192.0.2.7/24")?);
            }
            "gateway" => self.gateway = Some(value.parse().map_err(|_| IPV4)?),
            "dns" => self.dns = Some(value.parse().map_err(|_| IPV4)?),
            "secret" => self.secret = Guard::Set(secret(value).ok_or(SECRET)?),
            "reading_token" => self.reading_token = Guard::Set(secret(value).ok_or(SECRET)?),
            "auth_token" if value.starts_with("AC") => {
                return Err("the SID of an account: copy the token below it");
            }
            "auth_token" => self.auth_token = Guard::Set(secret(value).ok_or(SECRET)?),
            "public_url" => {
                let url = value.trim_end_matches('/');
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                let is_url = rest.is_some_and(|rest| {
                    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b);
                    !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain)
                });
                let url = String::try_from(url).ok().filter(|_| is_url);
                self.public_url =
                    url.ok_or("https://HOST[:PORT][/PATH], 96 characters, no ? and no #")?;
            }
            _ => {
                let is_host = time_server(value).is_some();
                let server = String::try_from(value).ok().filter(|_| is_host);
                self.time_server = server.ok_or("HOST or HOST:PORT, 64 characters")?;
            }
        }
        Ok(())
    }
}

/// The keys. The last has no arm of its own in `Config::set`.
const KEYS: [&str; 9] = [
    "name",
    "address",
    "gateway",
    "dns",
    "secret",
    "reading_token",
    "auth_token",
    "public_url",
    "time_server",
];

fn fixed(value: &str) -> Option<Fixed> {
    let (address, prefix_bits) = value.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix_bits = prefix_bits.parse().ok().filter(|bits| (1..=30).contains(bits))?;
    let is_unicast =
        !(address.is_unspecified() || address.is_multicast() || address.is_broadcast());
    is_unicast.then_some(Fixed { address, prefix_bits })
}

fn secret(value: &str) -> Option<String<SECRET_CHARS_MAX>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let is_secret = value.len() >= SECRET_CHARS_MIN && value.bytes().all(plain);
    String::try_from(value).ok().filter(|_| is_secret)
}

/// Splits the server of the time into its host and port, 123 by default; `None` if it is neither `HOST`
/// nor `HOST:PORT`.
#[must_use]
pub fn time_server(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.split_once(':') {
        None => (text, 123),
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then_some((host, port))
}

/// Reads the file piece by piece.
#[derive(Debug, Default)]
pub struct Parser {
    config: Config,
    line: Vec<u8, LINE_BYTES_MAX>,
    number: u16,
    is_long: bool,
    /// A bit for each of [`KEYS`] that has stood in a line.
    seen: u16,
}

impl Parser {
    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.push(byte).is_err() {
                self.is_long = true;
            }
        }
    }

    fn end_line(&mut self) {
        self.number += 1;
        // The mark that Windows puts before UTF-8.
        let line = self.line.strip_prefix(b"\xEF\xBB\xBF").filter(|_| self.number == 1);
        let line = line.unwrap_or(&self.line);
        if core::mem::take(&mut self.is_long) {
            self.config.lock(self.number, "longer than 160 bytes");
        } else {
            self.config.take_line(self.number, line, &mut self.seen);
        }
        self.line.clear();
    }

    /// The settings, after the last bytes. `is_cut`: the file is longer than [`FILE_BYTES_MAX`], and no
    /// more of it was read.
    #[must_use]
    pub fn finish(mut self, is_cut: bool) -> Config {
        self.end_line();
        self.config.is_found = true;
        if is_cut {
            self.config.lock(0, "longer than 4096 bytes: the rest is not read");
        }
        let is_signed = !matches!(self.config.auth_token, Guard::Open);
        if is_signed && self.config.public_url.is_empty() {
            self.config.auth_token = Guard::Locked;
            self.config.fault(0, "auth_token needs a public_url, for which Twilio signs");
        }
        if self.config.address.is_some() && self.config.gateway.is_none() {
            self.config.fault(0, "an address needs a gateway to answer other networks");
        }
        self.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        let mut parser = Parser::default();
        for piece in text.as_bytes().chunks(7) {
            parser.feed(piece);
        }
        parser.finish(false)
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = read(
            "\u{feff}# callreel\r\nname = front-desk\r\n\r\naddress=192.0.2.7/24\r\ngateway=192.0.2.1\n\
             dns=192.0.2.2\nsecret=0123456789abcdef\nreading_token=fedcba9876543210\n\
             auth_token=0123456789abcdef0123456789abcdef\npublic_url=https://a.example/x/\n\
             time_server=time.example:1123",
        );
        assert_eq!(config.faults, [], "{config:?}");
        assert_eq!(
            (config.name.as_str(), config.public_url.as_str()),
            ("front-desk", "https://a.example/x")
        );
        let fixed = Fixed { address: Ipv4Addr::new(192, 0, 2, 7), prefix_bits: 24 };
        assert_eq!(config.address, Some(fixed));
        assert!(matches!(&config.secret, Guard::Set(text) if text == "0123456789abcdef"));
        assert_eq!(time_server(&config.time_server), Some(("time.example", 1123)));
    }

    #[test]
    fn a_bad_line_is_told_and_the_others_count() {
        let config = read("name=a\nadress=1.2.3.4\naddress=1.2.3.4\nname=b\ndns=x\nsecret=short\n");
        assert_eq!(config.name, "a");
        assert_eq!(config.faults.iter().map(|fault| fault.line).collect::<Vec<_, 3>>(), [2, 3, 4]);
        assert_eq!(config.faults_count, 5);
        assert_eq!((config.secret, config.reading_token), (Guard::Locked, Guard::Open));
    }

    #[test]
    fn a_file_that_cannot_be_read_opens_nothing() {
        for text in ["secret: 0123456789abcdef", &"x".repeat(200)] {
            let config = read(text);
            assert_eq!((config.secret, config.reading_token), (Guard::Locked, Guard::Locked));
        }
        let mut parser = Parser::default();
        parser.feed(b"\xFF\xFEs\0e\0c\0");
        assert_eq!(parser.finish(false).secret, Guard::Locked);
        let twice = read("secret=0123456789abcdef\nsecret=0123456789abcdee");
        assert_eq!(twice.secret, Guard::Locked);
        assert_eq!(read("auth_token=0123456789abcdef").auth_token, Guard::Locked);
        assert_eq!(read("").faults_count, 0);
    }
}
