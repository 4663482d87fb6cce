//! Accepts clients: limits, TLS, then the protocol; one log line at the start and one at the end of each connection.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tracing::{Instrument, field::Empty};

use super::{Node, traffic::Counted};
use crate::{
    client::{Client, Protocol, SessionId},
    connection::{Connection, Stream},
    imap, lmtp, pop3,
    session::End,
};

/// Connections that wait to be accepted: a burst after a failover.
pub const BACKLOG: i32 = 1024;

/// Whether TLS comes before the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS, STLS, or none.
    Plain,
    /// 993, 995.
    ImplicitTls,
}

/// Binds `address`, with a clear error.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        if address.is_ipv6() {
            // `[::]` takes IPv4 as well, whatever the system's default is.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bound().map_err(|error| anyhow::anyhow!("can't listen on {address}: {error}"))
}

/// Accepts until the node stops.
pub async fn run(node: Arc<Node>, listener: TcpListener, protocol: Protocol, security: Security) {
    loop {
        let (tcp, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: those that close make room.
                    tracing::warn!(%protocol, %error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = node.stop_listening.cancelled() => return,
        };
        let limits = node.config().limits.clone();
        match node.admission.admit(address.ip(), limits.connections, limits.connections_per_address) {
            Ok(admitted) => {
                let node = node.clone();
                node.tasks.clone().spawn(async move {
                    connection(node, tcp, address, protocol, security).await;
                    drop(admitted);
                });
            }
            Err(reason) => {
                tracing::warn!(%protocol, client = %address, reason, "connection refused");
                tokio::spawn(refuse(tcp, protocol, security));
            }
        }
    }
}

/// One client from accept to close.
async fn connection(node: Arc<Node>, tcp: TcpStream, address: SocketAddr, protocol: Protocol, security: Security) {
    let Ok(local) = tcp.local_addr() else { return };
    // Small replies must not wait for more; a failure costs speed only.
    tcp.set_nodelay(true).ok();
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let mut client = Client { session: SessionId::random(), address, local, ingress: node.keeper.me().node, tls: None };
    let span = tracing::info_span!("session", session = %client.session, node = %client.ingress, %protocol, client = %address, user = Empty, holder = Empty);
    async {
        let started = tokio::time::Instant::now();
        tracing::info!(%local, "connection start");
        let (counted, traffic) = Counted::new(tcp);
        let limits = node.config().limits.clone();
        let stream: Result<Box<dyn Stream>, End> = match (security, &node.tls) {
            (Security::Plain, _) => Ok(Box::new(counted)),
            (Security::ImplicitTls, Some(tls)) => match timeout(limits.login_timeout, tls.accept(Box::new(counted))).await {
                Ok(Ok((stream, facts))) => {
                    client.tls = Some(facts);
                    Ok(stream)
                }
                Ok(Err(error)) => Err(End::because(format!("TLS handshake failed: {error}"))),
                Err(_) => Err(End::because("TLS handshake took too long")),
            },
            (Security::ImplicitTls, None) => Err(End::because("no certificate is configured")),
        };
        let end = match stream {
            Ok(stream) => {
                let connection = Connection::new(stream, client, BytesMut::new(), limits.write_timeout);
                match protocol {
                    Protocol::Imap => imap::accept(node.clone(), connection).await,
                    Protocol::Pop3 => pop3::accept(node.clone(), connection).await,
                    Protocol::Lmtp => lmtp::accept(node.clone(), connection).await,
                }
            }
            Err(end) => end,
        };
        tracing::info!(
            bytes_in = traffic.bytes_in(),
            bytes_out = traffic.bytes_out(),
            seconds = started.elapsed().as_secs(),
            reason = end.0,
            "connection end"
        );
    }
    .instrument(span)
    .await;
}

/// Says why, where the protocol has a word for it, and closes.
async fn refuse(mut tcp: TcpStream, protocol: Protocol, security: Security) {
    let text: &[u8] = match (security, protocol) {
        // A TLS client would not understand plain text.
        (Security::ImplicitTls, _) => b"",
        (Security::Plain, Protocol::Imap) => b"* BYE [LIMIT] too many connections, please try again later\r\n",
        (Security::Plain, Protocol::Pop3) => b"-ERR [SYS/TEMP] too many connections, please try again later\r\n",
        (Security::Plain, Protocol::Lmtp) => b"421 4.3.2 too many connections, please try again later\r\n",
    };
    // The client may be gone; there is nobody else to tell.
    drop(timeout(Duration::from_secs(5), tcp.write_all(text)).await);
}

/// Counts connections: in all, and of each address.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    by_address: Arc<Mutex<(usize, HashMap<IpAddr, usize>)>>,
}

/// A counted connection, until dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    address: IpAddr,
}

impl Admission {
    /// Counts a connection in, unless a limit is reached. An IPv6 address counts with its /64: one host has all of that.
    pub fn admit(&self, address: IpAddr, max: usize, max_per_address: usize) -> Result<Admitted, &'static str> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        };
        let mut counts = self.by_address.lock();
        if counts.0 >= max {
            return Err("this node has as many connections as allowed (limits.connections)");
        }
        let own = counts.1.entry(address).or_default();
        if *own >= max_per_address {
            return Err("this address has as many connections as allowed (limits.connections_per_address)");
        }
        *own += 1;
        counts.0 += 1;
        Ok(Admitted { admission: self.clone(), address })
    }

    /// Connections at present.
    pub fn count(&self) -> usize {
        self.by_address.lock().0
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.by_address.lock();
        counts.0 = counts.0.saturating_sub(1);
        if let Some(own) = counts.1.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                counts.1.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_all_and_by_address() {
        let admission = Admission::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admission.admit(ip, 3, 2).unwrap();
        let _second = admission.admit("::ffff:192.0.2.1".parse().unwrap(), 3, 2).unwrap();
        assert!(admission.admit(ip, 3, 2).is_err(), "the mapped form is the same address");
        let a = admission.admit("2001:db8::1".parse().unwrap(), 3, 2).unwrap();
        assert!(admission.admit("192.0.2.2".parse().unwrap(), 3, 2).is_err(), "the node is full");
        drop(first);
        assert!(admission.admit(ip, 3, 2).is_ok());
        drop(a);
        assert_eq!(admission.count(), 1);
        let _b = admission.admit("2001:db8::2".parse().unwrap(), 9, 1).unwrap();
        assert!(admission.admit("2001:db8::ffff".parse().unwrap(), 9, 1).is_err(), "one /64 is one address");
    }
}
