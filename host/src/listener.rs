//! The connections of a listener, bounded in number.

mod exchanges;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::task::yield_now;

pub(crate) use self::exchanges::Exchanges;
pub(crate) use self::standing::{Level, Standing};

/// The client of a connection; each of its requests has it as an extension.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    pub(crate) standing: Arc<Standing>,
}

/// Takes the socket of a connection from which bytes have arrived. Other holders of the socket keep it
/// for microseconds only.
pub(crate) async fn own(mut socket: Arc<TcpStream>) -> TcpStream {
    loop {
        match Arc::try_unwrap(socket) {
            Ok(socket) => return socket,
            Err(shared) => socket = shared,
        }
        yield_now().await;
    }
}
