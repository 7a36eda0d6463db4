//! The network's services: an address from DHCP, the name of the time's server by DNS, the time by SNTP.

use callreel_firmware_sim::clock::{self, PACKET_BYTES};
use callreel_firmware_sim::config;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, dns, udp};
use smoltcp::wire::{DnsQueryType, IpAddress, IpCidr, Ipv4Address};
use static_cell::ConstStaticCell;

use super::{Front, board};

/// Sockets of the services: DHCP, DNS and UDP.
pub(super) const SOCKETS: usize = 3;

/// Time between two questions for the time, and the longest wait for an answer.
const TIME_MS: u64 = 3_600_000;
const ANSWER_MS_MAX: u64 = 5_000;

/// Time from a failed question for the time to the next: it doubles up to a limit.
const RETRY_MS: u64 = 8_000;
const RETRY_MS_MAX: u64 = 1_024_000;

/// The port from which the time is asked.
const TIME_PORT: u16 = 49_123;

/// Where the question for the time stands.
enum Question {
    /// None before this uptime.
    Waiting(u64),
    /// The server's name is being looked up.
    Naming(dns::QueryHandle),
    /// Sent to this server at this uptime.
    Asked(IpAddress, u64),
}

/// The services' sockets and state.
pub(super) struct Services {
    /// The socket of DHCP, while DHCP gives the address.
    dhcp: Option<SocketHandle>,
    dns: SocketHandle,
    udp: SocketHandle,
    question: Question,
    retry_ms: u64,
    /// A random number, another one for each question.
    cookie: u64,
    polled_ms: u64,
    has_name_server: bool,
}

type Packet = ([udp::PacketMetadata; 1], [u8; PACKET_BYTES]);

static PACKETS: ConstStaticCell<[Packet; 2]> =
    ConstStaticCell::new([const { ([udp::PacketMetadata::EMPTY; 1], [0; PACKET_BYTES]) }; 2]);
static NAMES: ConstStaticCell<[Option<dns::DnsQuery>; 1]> = ConstStaticCell::new([None]);

impl Services {
    /// Services that are silent until the settings are known. Must be called once.
    pub(super) fn new(sockets: &mut SocketSet<'static>) -> Self {
        let [received, sent] = PACKETS
            .take()
            .each_mut()
            .map(|(meta, bytes)| udp::PacketBuffer::new(&mut meta[..], &mut bytes[..]));
        let mut udp = udp::Socket::new(received, sent);
        // Cannot fail: the port is not zero.
        let _ = udp.bind(TIME_PORT);
        let dns = dns::Socket::new(&[], &mut NAMES.take()[..]);
        Self {
            dhcp: None,
            dns: sockets.add(dns),
            udp: sockets.add(udp),
            question: Question::Waiting(0),
            retry_ms: RETRY_MS,
            cookie: 0,
            polled_ms: 0,
            has_name_server: false,
        }
    }
}

impl Front {
    /// Starts the services anew, by the settings.
    pub(super) fn start_services(&mut self, random: [u8; 12]) {
        let [a, b, c, d, e, f, g, h, ..] = random;
        self.services.cookie = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        self.ask_time_at(0);
        if let Some(dhcp) = self.services.dhcp.take() {
            self.sockets.remove(dhcp);
        }
        match self.config.address {
            Some(fixed) => {
                let address = IpCidr::new(fixed.address.into(), fixed.prefix_bits);
                self.set_address(Some(address), None, None);
            }
            None => {
                self.set_address(None, None, None);
                self.services.dhcp = Some(self.sockets.add(dhcpv4::Socket::new()));
            }
        }
    }

    /// Moves the services on. At most once a millisecond: nothing here is urgent.
    pub(super) fn poll_services(&mut self) {
        let now_ms = board::uptime_ms();
        if now_ms == self.services.polled_ms {
            return;
        }
        self.services.polled_ms = now_ms;
        if let Some(dhcp) = self.services.dhcp {
            self.follow_lease(dhcp);
        }
        match self.services.question {
            Question::Waiting(at_ms) if now_ms < at_ms => {}
            Question::Waiting(_) => self.ask_time(now_ms),
            Question::Naming(query) => self.follow_name(query, now_ms),
            Question::Asked(server, sent_ms) => self.follow_time(server, sent_ms, now_ms),
        }
    }

    fn follow_lease(&mut self, dhcp: SocketHandle) {
        let (address, router, dns) = match self.sockets.get_mut::<dhcpv4::Socket>(dhcp).poll() {
            None => return,
            Some(dhcpv4::Event::Deconfigured) => (None, None, None),
            Some(dhcpv4::Event::Configured(lease)) => {
                (Some(lease.address), lease.router, lease.dns_servers.first().copied())
            }
        };
        self.set_address(address.map(IpCidr::Ipv4), router, dns);
    }

    /// Takes an address, and a router and a name server where the settings name none.
    fn set_address(
        &mut self,
        address: Option<IpCidr>,
        router: Option<Ipv4Address>,
        dns: Option<Ipv4Address>,
    ) {
        let Some(interface) = &mut self.interface else { return };
        interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // Cannot fail: there is room for two addresses.
            let _ = address.map(|address| addresses.push(address));
        });
        interface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = self.config.gateway.or(router) {
            // Cannot fail: there is room for two routes.
            let _ = interface.routes_mut().add_default_ipv4_route(router);
        }
        let server = self.config.dns.or(dns).map(IpAddress::Ipv4);
        self.sockets.get_mut::<dns::Socket>(self.services.dns).update_servers(server.as_slice());
        self.services.has_name_server = server.is_some();
        defmt::info!("address: {}, DHCP: {=bool}", address.is_some(), self.services.dhcp.is_some());
    }

    fn ask_time_at(&mut self, at_ms: u64) {
        if let Question::Naming(query) = self.services.question {
            self.sockets.get_mut::<dns::Socket>(self.services.dns).cancel_query(query);
        }
        self.services.question = Question::Waiting(at_ms);
    }

    #[inline(never)]
    fn ask_time(&mut self, now_ms: u64) {
        let Some((host, _)) = config::time_server(&self.config.time_server) else {
            // Nobody to ask.
            self.services.question = Question::Waiting(u64::MAX);
            return;
        };
        let Some(interface) = &mut self.interface else { return };
        if interface.ip_addrs().is_empty() {
            return;
        }
        if let Ok(address) = host.parse::<Ipv4Address>() {
            return self.send_question(address.into(), now_ms);
        }
        if !self.services.has_name_server {
            return self.try_later(now_ms);
        }
        let dns = self.sockets.get_mut::<dns::Socket>(self.services.dns);
        match dns.start_query(interface.context(), host, DnsQueryType::A) {
            Ok(query) => {
                self.services.question = Question::Naming(query);
                self.is_moved = true;
            }
            Err(_) => self.try_later(now_ms),
        }
    }

    fn follow_name(&mut self, query: dns::QueryHandle, now_ms: u64) {
        let dns = self.sockets.get_mut::<dns::Socket>(self.services.dns);
        match dns.get_query_result(query) {
            Err(dns::GetQueryResultError::Pending) => {}
            Ok(addresses) => match addresses.first() {
                Some(address) => self.send_question(*address, now_ms),
                None => self.try_later(now_ms),
            },
            Err(dns::GetQueryResultError::Failed) => self.try_later(now_ms),
        }
    }

    fn send_question(&mut self, server: IpAddress, now_ms: u64) {
        let port = config::time_server(&self.config.time_server).map_or(0, |(_, port)| port);
        let udp = self.sockets.get_mut::<udp::Socket>(self.services.udp);
        // An answer to an earlier question is of no use.
        while udp.recv().is_ok() {}
        // Steps of a permutation with a full period: a peer off the path cannot guess the start.
        let next = self.services.cookie.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        self.services.cookie = next ^ u64::from(board::jitter());
        match udp.send_slice(&clock::request(self.services.cookie), (server, port)) {
            Ok(()) => {
                self.services.question = Question::Asked(server, now_ms);
                self.is_moved = true;
            }
            Err(_) => self.try_later(now_ms),
        }
    }

    fn follow_time(&mut self, server: IpAddress, sent_ms: u64, now_ms: u64) {
        let cookie = self.services.cookie;
        let udp = self.sockets.get_mut::<udp::Socket>(self.services.udp);
        let time_ms = udp.recv().ok().and_then(|(packet, from)| {
            let is_its = from.endpoint.addr == server;
            clock::parse_answer(packet, cookie).filter(|_| is_its)
        });
        if let Some(time_ms) = time_ms {
            // The answer was under way for half of the time.
            let at_ms = now_ms - (now_ms - sent_ms) / 2;
            self.clock.boot_unix_ms = Some(time_ms.saturating_sub(at_ms));
            self.services.retry_ms = RETRY_MS;
            self.services.question = Question::Waiting(now_ms + TIME_MS);
            defmt::info!("the time is {=u64} s of Unix", time_ms / 1000);
        } else if now_ms - sent_ms > ANSWER_MS_MAX {
            self.try_later(now_ms);
        }
    }

    fn try_later(&mut self, now_ms: u64) {
        self.services.question = Question::Waiting(now_ms + self.services.retry_ms);
        self.services.retry_ms = (2 * self.services.retry_ms).min(RETRY_MS_MAX);
    }
}
