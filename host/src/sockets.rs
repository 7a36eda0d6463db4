//! The listening sockets: those that the service manager passes on, and those made here.

use std::io;
use std::net::{self, SocketAddr};

use anyhow::{Context, anyhow, bail};
use callreel::{HandOver, Listener, ports};
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

/// Connections waiting to be accepted, as far as the system allows. One too many is refused for a
/// second, until its peer tries again.
const UNACCEPTED_MAX: u32 = 4096;

/// The names of sockets for providers. systemd takes the name of the socket unit for one that names none.
const PUBLIC_NAMES: [&str; 2] = ["public", "callreel.socket"];

/// The name of the socket for operators.
const ADMIN_NAME: &str = "admin";

/// The sockets that the service manager passed on (`LISTEN_FDS`).
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The socket for providers; it takes the place of `--listen`.
    pub public: Option<net::TcpListener>,
    /// The socket for operators; it takes the place of `--admin`.
    pub admin: Option<net::TcpListener>,
}

impl Inherited {
    /// Takes the sockets. Call it before other threads are started: it changes the environment.
    ///
    /// A single socket is the public one, unless its name is that of the admin socket.
    ///
    /// # Errors
    /// A socket is not a listening TCP socket, or several have names from which their use is not clear.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let names: Vec<&str> = names.split(':').collect();
        let count = sockets.len();
        let mut inherited = Self::default();
        for index in 0..count {
            let name = *names.get(index).unwrap_or(&"");
            let place = match name {
                ADMIN_NAME => &mut inherited.admin,
                name if count == 1 || PUBLIC_NAMES.contains(&name) => &mut inherited.public,
                name => bail!(
                    "the service manager passes on a socket named {name:?}: name it public or admin \
                     (FileDescriptorName=)"
                ),
            };
            let passed_on = || format!("cannot use the socket {name:?} of the service manager");
            let socket = sockets.take_tcp_listener(index).with_context(passed_on)?;
            if !socket.as_ref().is_some_and(is_listening) {
                bail!("{}: it must listen for TCP connections", passed_on());
            }
            if std::mem::replace(place, socket).is_some() {
                bail!("the service manager passes on two sockets named {name:?}: pass on one");
            }
        }
        Ok(inherited)
    }
}

#[cfg(target_os = "linux")]
fn is_listening(socket: &net::TcpListener) -> bool {
    socket2::SockRef::from(socket).is_listener().unwrap_or(false)
}

/// Other systems tell it at the first accept.
#[cfg(not(target_os = "linux"))]
const fn is_listening(_socket: &net::TcpListener) -> bool {
    true
}

/// Listens on a socket that the service manager passed on.
pub(crate) fn adopt(socket: net::TcpListener) -> io::Result<Listener> {
    socket.set_nonblocking(true)?;
    Ok(Listener::new(TcpListener::from_std(socket)?, HandOver::Inherited))
}

/// Listens on an address that `option` names. With `shares_port`, other programs of the same user may
/// listen there at the same time if they say so as well.
pub(crate) fn bind(
    address: SocketAddr,
    option: &str,
    shares_port: bool,
) -> anyhow::Result<Listener> {
    let hand_over = if shares_port { HandOver::SharedPort } else { HandOver::None };
    let socket = listen(address, shares_port)
        .map_err(|error| anyhow!(ports::refusal(address, option, &error)))?;
    Ok(Listener::new(socket, hand_over))
}

fn listen(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The same steps as `TcpListener::bind`, with a longer queue.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shares_port)?;
    socket.bind(address)?;
    socket.listen(UNACCEPTED_MAX)
}
