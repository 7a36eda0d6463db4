//! The host's side: builds the image, makes a card, boots both in QEMU and talks to the appliance.
//!
//! Used by `cargo run -p callreel-firmware-sim`, which runs the appliance without the board, and by
//! the tests. It needs `qemu-system-arm`, `mkfs.vfat` (dosfstools) and the target
//! `thumbv7m-none-eabi`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::image;

/// Target of the appliance's processor.
pub const TARGET: &str = "thumbv7m-none-eabi";

/// Functions are inlined up to this size: 3 % less flash than at LLVM's own limits for size and for speed, and no
/// more instructions a frame.
const INLINING: &str = "-Cllvm-args=-inline-threshold=30";

/// Start of the card's only partition, in bytes: `mdir -i card.img@@1M`.
pub const PARTITION_OFFSET: u64 = 1 << 20;

/// Longest time from the start to the appliance's first answer.
const BOOT_MAX: Duration = Duration::from_secs(30);

/// Longest time for an answer to a request.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// A message for the user: the first thing this machine lacks to run the appliance; `None` if
/// nothing is missing.
#[must_use]
pub fn missing() -> Option<String> {
    let runs = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success()).then_some(())
    };
    if runs("qemu-system-arm", &["--version"]).is_none() {
        return Some("qemu-system-arm is not installed (Debian: qemu-system-arm)".into());
    }
    if mkfs().is_none() {
        return Some("mkfs.vfat is not installed (Debian: dosfstools)".into());
    }
    let libdir =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let libdir = libdir.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if !libdir.is_ok_and(|libdir| Path::new(&libdir).exists()) {
        return Some(format!("the target is not installed: rustup target add {TARGET}"));
    }
    None
}

/// Path of a tool of dosfstools. Debian keeps these tools out of a user's `PATH`.
#[must_use]
pub fn dosfstool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|place| place.join(name)).find(|tool| tool.exists())
}

fn mkfs() -> Option<PathBuf> {
    dosfstool("mkfs.vfat")
}

/// A program of this crate to build for a microcontroller.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Name of the binary.
    pub name: &'a str,
    /// The processor, as a target triple.
    pub target: &'a str,
    /// Features of this crate, separated by commas.
    pub features: &'a str,
    /// Additional flags for rustc.
    pub rustflags: &'a str,
}

impl Program<'_> {
    /// The appliance itself.
    pub const APPLIANCE: Self =
        Self { name: "callreel-firmware-sim", target: TARGET, features: "", rustflags: "" };

    /// Builds the program and copies its ELF to `image`. Cargo's own files go beside `image`. The appliance's is
    /// sealed, and its image as it lies in flash goes beside it (`.bin`).
    ///
    /// Panics name places in the sources without the folders of this machine: these would take flash.
    ///
    /// # Errors
    /// The build failed, and cargo has printed the reason on stderr; or the ELF cannot be copied.
    pub fn build(&self, image: &Path) -> io::Result<()> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let beside = image.parent().unwrap_or(Path::new("."));
        // One directory for each kind of flags: with changing flags, cargo would rebuild everything
        // each time.
        let kind = if self.rustflags.is_empty() { "build" } else { "build-flags" };
        let target_dir = beside.join(kind);
        let status = Command::new(cargo)
            .current_dir(&workspace)
            .args(["build", "--quiet", "--package", "callreel-firmware-sim", "--bin", self.name])
            .args(["--target", self.target, "--profile", "firmware", "--features", self.features])
            .arg("--target-dir")
            .arg(&target_dir)
            // Replaces the flags that the environment sets for this process.
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags()?.join("\u{1f}"))
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!("cannot build {self:?}")));
        }
        let built = target_dir.join(self.target).join("firmware").join(self.name);
        if self.name != Self::APPLIANCE.name {
            return fs::copy(built, image).map(drop);
        }
        let mut elf = fs::read(built)?;
        image::seal(&mut elf)?;
        fs::write(image, &elf)?;
        fs::write(image.with_extension("bin"), image::flat(&elf)?)
    }

    /// The flags for rustc: those of the program, the limit of inlining, and the folders that are left out of its text.
    fn flags(&self) -> io::Result<Vec<String>> {
        let mut flags: Vec<String> = self.rustflags.split_whitespace().map(str::to_owned).collect();
        flags.push(INLINING.into());
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        // Without sources of the registry there is nothing to leave out.
        let registries = home.map(|home| fs::read_dir(home.join("registry/src")));
        for registry in registries.into_iter().flatten().flatten() {
            flags.push(format!("--remap-path-prefix={}/=", registry?.path().display()));
        }
        Ok(flags)
    }
}

/// Whether QEMU's boards with a 32-bit RISC-V can be run. The appliance does not need them.
#[must_use]
pub fn has_riscv() -> bool {
    let output = Command::new(RISCV).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

const RISCV: &str = "qemu-system-riscv32";

/// Runs a program that ends by itself, at one instruction a nanosecond of its time. Returns its
/// output over semihosting.
///
/// # Errors
/// QEMU cannot be run, or the program failed.
pub fn run_counted(image: &Path, board: &str) -> io::Result<String> {
    let (qemu, options): (_, &[_]) = match board {
        "virt" => (RISCV, &["-bios", "none"]),
        _ => ("qemu-system-arm", &[]),
    };
    let output = Command::new(qemu)
        .args(options)
        .args(["-machine", board, "-icount", "shift=0", "-display", "none", "-monitor", "none"])
        .args(["-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel"])
        .arg(image)
        .stdin(Stdio::null())
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(io::Error::other(said)) }
}

/// Makes a card of `mebibytes` (a power of two, as QEMU requires) with an empty file system in a
/// partition: FAT16 up to 2 GB, FAT32 above, as cards are sold. The file is sparse.
///
/// # Errors
/// The file cannot be written, or mkfs.vfat failed.
pub fn make_card(path: &Path, mebibytes: u32) -> io::Result<()> {
    make_card_of(path, mebibytes, if mebibytes > 2048 { 32 } else { 16 })
}

/// Makes a card as [`make_card`] does, with a FAT of 16 or 32 bits.
///
/// # Errors
/// As for [`make_card`].
pub fn make_card_of(path: &Path, mebibytes: u32, fat_bits: u32) -> io::Result<()> {
    let blocks = mebibytes * 2048;
    let first_block = (PARTITION_OFFSET / 512) as u32;
    let file = File::create(path)?;
    file.set_len(u64::from(mebibytes) << 20)?;
    let tool = mkfs().ok_or_else(|| io::Error::other("mkfs.vfat is not installed"))?;
    // By default mkfs.vfat makes clusters of 2 KB, which are too few for a FAT16 on such a small
    // card.
    let cluster: &[&str] = if mebibytes < 16 { &["-s", "1"] } else { &[] };
    let output = Command::new(tool)
        .args(cluster)
        .args(["-F", &fat_bits.to_string(), "--offset", &first_block.to_string()])
        .arg(path)
        .arg(((blocks - first_block) / 2).to_string())
        .output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(reason));
    }
    let mut entry = [0; 16];
    // FAT16 or FAT32, addressed by block
    entry[4] = if fat_bits == 16 { 0x0E } else { 0x0C };
    entry[8..12].copy_from_slice(&first_block.to_le_bytes());
    entry[12..].copy_from_slice(&(blocks - first_block).to_le_bytes());
    file.write_all_at(&entry, 446)?;
    file.write_all_at(&[0x55, 0xAA], 510)
}

/// The network around an appliance.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// The appliance's address: connections to its port on the loopback lead there.
    pub address: Ipv4Addr,
    /// The hardware address that the board was made with; by default QEMU's.
    pub hardware: Option<&'a str>,
    /// A UDP socket on the loopback that gets each Ethernet frame as a datagram. Frames that it sends back
    /// are those of one more machine in the network.
    pub wire: Option<SocketAddr>,
}

impl Default for Network<'_> {
    /// The network of QEMU, with the address that its DHCP gives.
    fn default() -> Self {
        Self { address: Ipv4Addr::new(10, 0, 2, 15), hardware: None, wire: None }
    }
}

impl Network<'_> {
    /// QEMU's options. Nothing outside this machine can be reached from the network.
    fn options(&self) -> Vec<String> {
        let Self { address, hardware, wire } = self;
        let lan = format!("user,id=lan,restrict=on,hostfwd=tcp:127.0.0.1:0-{address}:80");
        let mut options = vec!["-netdev".to_owned(), lan];
        let mut device = "nic,netdev=lan".to_owned();
        if let Some(wire) = wire {
            let wire = format!("socket,id=wire,udp={wire},localaddr=127.0.0.1:0");
            let port = |id: &str, behind: &str| format!("hubport,id={id},hubid=0{behind}");
            device = "nic,netdev=port".to_owned();
            for part in [
                wire,
                port("lan-port", ",netdev=lan"),
                port("wire-port", ",netdev=wire"),
                port("port", ""),
            ] {
                options.extend(["-netdev".to_owned(), part]);
            }
        }
        if let Some(hardware) = hardware {
            device = format!("{device},macaddr={hardware}");
        }
        options.extend(["-net".to_owned(), device]);
        options
    }
}

/// A running appliance. Dropping it cuts its power.
pub struct Appliance {
    qemu: Child,
    address: SocketAddr,
    control: PathBuf,
    serial: Option<UnixStream>,
}

impl Appliance {
    /// Boots `image` with `card`, on a free port of the loopback. The log goes to `log`, as defmt
    /// frames. Returns when the appliance answers and has mounted the card.
    ///
    /// # Errors
    /// QEMU cannot be run, or the appliance does not answer in time.
    pub fn boot(image: &Path, card: Option<&Path>, log: &Path) -> io::Result<Self> {
        Self::boot_in(Network::default(), image, card, log)
    }

    /// Boots as [`boot`](Self::boot), in this network.
    ///
    /// # Errors
    /// As for [`boot`](Self::boot).
    pub fn boot_in(
        network: Network<'_>,
        image: &Path,
        card: Option<&Path>,
        log: &Path,
    ) -> io::Result<Self> {
        Self::boot_with(&[], network, image, card, log)
    }

    /// Boots as [`boot`](Self::boot), at 31 instructions a microsecond and never ahead of real time,
    /// for [`instructions`](Self::instructions): about the pace of a Cortex-M3 of 50 MHz. So the
    /// number of its ticks in a call does not depend on the host, as long as the host keeps up.
    ///
    /// # Errors
    /// As for [`boot`](Self::boot).
    pub fn boot_counted(image: &Path, card: Option<&Path>, log: &Path) -> io::Result<Self> {
        Self::boot_with(&["-icount", "shift=5,align=on"], Network::default(), image, card, log)
    }

    fn boot_with(
        options: &[&str],
        network: Network<'_>,
        image: &Path,
        card: Option<&Path>,
        log: &Path,
    ) -> io::Result<Self> {
        let socket = |kind: &str| log.with_extension(kind);
        let (control, serial) = (socket("qmp"), socket("uart"));
        for stale in [&control, &serial, &log.to_path_buf()] {
            if stale.exists() {
                fs::remove_file(stale)?;
            }
        }
        let listening = |path: &Path| format!("{},server=on,wait=off", path.display());
        let mut command = Command::new("qemu-system-arm");
        command
            .args(options)
            .args(["-machine", "lm3s6965evb", "-display", "none", "-monitor", "none", "-kernel"])
            .arg(image)
            .args(["-qmp", &format!("unix:{}", listening(&control))])
            .arg("-chardev")
            .arg(format!("socket,id=log,path={},logfile={}", listening(&serial), log.display()))
            .args(["-serial", "chardev:log"])
            .args(network.options());
        if let Some(card) = card {
            command.arg("-drive").arg(format!("if=sd,format=raw,file={}", card.display()));
        }
        let qemu = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut appliance = Self { qemu, address, control, serial: None };
        let until = Instant::now() + BOOT_MAX;
        let control = appliance.control.clone();
        let port = appliance.patiently(until, || forwarded_port(&control))?;
        appliance.address.set_port(port);
        let serial = UnixStream::connect(&serial)?;
        // QEMU writes the log to its file and to this socket. If the socket were not read, QEMU
        // would stand still.
        let mut unread = serial.try_clone()?;
        std::thread::spawn(move || io::copy(&mut unread, &mut io::sink()));
        appliance.serial = Some(serial);
        let address = appliance.address;
        appliance.patiently(until, || match get(address, "/")? {
            (200, health) if card.is_none() || is_ready(&health) => Ok(()),
            _ => Err(io::Error::other("the appliance has not mounted its card")),
        })?;
        Ok(appliance)
    }

    /// Address of the appliance on this machine.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL to stream a call to.
    #[must_use]
    pub fn stream_url(&self) -> String {
        format!("ws://{}/media-stream", self.address)
    }

    /// Requests a path; returns the status and the body.
    ///
    /// If the appliance restarts in the middle, it is asked again.
    ///
    /// # Errors
    /// No answer, or an incomplete one.
    pub fn get(&self, path: &str) -> io::Result<(u16, Vec<u8>)> {
        let until = Instant::now() + REQUEST_MAX;
        loop {
            match get(self.address, path) {
                Err(error) if is_refusal(&error) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    /// Sends bytes to the appliance's serial line. An image with `fault-injection` takes commands
    /// there.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn send_serial(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.serial.as_mut().ok_or(io::ErrorKind::NotConnected)?.write_all(bytes)
    }

    /// Number of instructions executed since a [`boot_counted`](Self::boot_counted). Waiting for an
    /// interrupt takes none.
    ///
    /// # Errors
    /// QEMU is gone, or does not count.
    pub fn instructions(&self) -> io::Result<u64> {
        let answer = ask(&self.control, r#"{"execute":"query-replay"}"#)?;
        let count = answer.split_once(r#""icount": "#).map(|(_, rest)| rest);
        let count = count.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let count = count.and_then(|digits| digits.parse().ok());
        count.ok_or_else(|| io::Error::other("QEMU counts no instructions: use `boot_counted`"))
    }

    /// Reads a word of the board's memory or registers from outside.
    ///
    /// # Errors
    /// QEMU is gone, or has no such address.
    pub fn word(&self, address: u32) -> io::Result<u32> {
        let command = format!(
            r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"xp /1wx {address:#x}"}}}}"#
        );
        let answer = ask(&self.control, &command)?;
        let digits = answer.split_once(": 0x").and_then(|(_, rest)| rest.get(..8));
        let word = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        word.ok_or_else(|| io::Error::other(format!("QEMU answers {answer}")))
    }

    /// Cuts the power: the card keeps the blocks it was given, and nothing else.
    pub fn cut_power(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        // An error means that QEMU is gone already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    /// Repeats `attempt` until it succeeds, the time is over or QEMU is gone.
    fn patiently<T>(
        &mut self,
        until: Instant,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) if self.qemu.try_wait()?.is_some() => {
                    return Err(io::Error::other("QEMU ended: run it by hand to see its error"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks QEMU for the port it has taken. This is the only way to a port that no other program has.
fn forwarded_port(control: &Path) -> io::Result<u16> {
    let command =
        r#"{"execute":"human-monitor-command","arguments":{"command-line":"info usernet"}}"#;
    let answer = ask(control, command)?;
    let words: Vec<&str> = answer.split_whitespace().collect();
    let port = words.windows(2).find(|pair| pair[0] == "127.0.0.1").map(|pair| pair[1].parse());
    port.and_then(Result::ok).ok_or_else(|| io::Error::other("QEMU reports no forwarded port"))
}

/// Sends QEMU a command over its control socket, and returns the answer, which is one line.
fn ask(control: &Path, command: &str) -> io::Result<String> {
    let stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    answers.read_line(&mut line)?;
    for command in [r#"{"execute":"qmp_capabilities"}"#, command] {
        (&stream).write_all(command.as_bytes())?;
        line.clear();
        answers.read_line(&mut line)?;
    }
    Ok(line)
}

/// Whether the connection was reset, before or after a write to it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn is_ready(health: &[u8]) -> bool {
    String::from_utf8_lossy(health).contains(r#""card_ready":true"#)
}

fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let half = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is incomplete");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(half)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = answer.split_off(end + 4);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(half)?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    if length.is_some_and(|length| length.parse() != Ok(body.len())) {
        return Err(half());
    }
    Ok((status, body))
}
