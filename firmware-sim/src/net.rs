//! smoltcp.
use crate::board;
use crate::enet::Enet;
use cortex_m::singleton;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

const CONNECTIONS: usize = 4;
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

pub struct Front {
    enet: &'static mut Enet,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: [SocketHandle; CONNECTIONS],
}

fn now() -> Instant {
    Instant::from_millis(board::uptime_ms() as i64)
}

impl Front {
    pub fn new() -> Self {
        let enet = singleton!(: Enet = Enet::new()).expect("made once");
        enet.start(MAC);
        let mut interface = Interface::new(Config::new(EthernetAddress(MAC).into()), enet, now());
        interface.update_ip_addrs(|a| {
            let _ = a.push(IpCidr::new(Ipv4Address::new(10, 0, 2, 15).into(), 24));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(10, 0, 2, 2));
        let storage = singleton!(: [SocketStorage<'static>; CONNECTIONS] = [SocketStorage::EMPTY; CONNECTIONS]).expect("once");
        let buffers = singleton!(: [([u8; 2048], [u8; 1024]); CONNECTIONS] = [([0; 2048], [0; 1024]); CONNECTIONS]).expect("once");
        let mut sockets = SocketSet::new(&mut storage[..]);
        let mut handles = [SocketHandle::default(); CONNECTIONS];
        for (h, (rx, tx)) in handles.iter_mut().zip(buffers) {
            let mut s = tcp::Socket::new(tcp::SocketBuffer::new(&mut rx[..]), tcp::SocketBuffer::new(&mut tx[..]));
            s.set_timeout(Some(Duration::from_secs(10)));
            s.set_keep_alive(Some(Duration::from_secs(5)));
            *h = sockets.add(s);
        }
        Self { enet, interface, sockets, handles }
    }
    pub fn poll(&mut self) {
        self.interface.poll(now(), self.enet, &mut self.sockets);
        for h in self.handles {
            let s = self.sockets.get_mut::<tcp::Socket>(h);
            if !s.is_open() { let _ = s.listen(80); }
            if s.can_recv() && s.can_send() {
                let n = s.recv(|d| (d.len(), d.len())).unwrap_or(0);
                defmt::info!("got {} bytes", n);
                let _ = s.send_slice(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"message\":\"hi\"}");
                s.close();
            }
            if s.state() == tcp::State::CloseWait { s.close(); }
        }
    }
}
