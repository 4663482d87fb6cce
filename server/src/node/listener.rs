//! Accepts clients: limits, PROXY header, TLS, then the protocol; one log line at the start and one at the end of each connection.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    time::timeout,
};
use tracing::{Instrument, field::Empty};

use super::{
    Node,
    admission::{Admitted, Stranger},
    proxy::{self, Proxied, ProxyError},
    socket::{Accepted, Socket},
    traffic::Counted,
};
use crate::{
    client::{Client, Protocol, SessionId},
    connection::{Connection, Stream},
    imap,
    lmtp::{self, Profile},
    pop3,
    session::End,
};

/// Connections that wait to be accepted: a burst after a failover.
pub const BACKLOG: i32 = 1024;

/// How long a load balancer may take to send its PROXY header: it has it before it connects.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

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
    bound().map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "; another process listens there: `ss -ltnp` says which",
            io::ErrorKind::AddrNotAvailable => "; this host has no such address: `ip address` shows those that it has",
            io::ErrorKind::PermissionDenied => "; ports below 1024 take CAP_NET_BIND_SERVICE (docs/install.md has a unit with it)",
            _ => "",
        };
        anyhow::anyhow!("can't listen on {address}: {error}{advice}")
    })
}

/// One address that clients connect to.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether TLS comes first.
    pub security: Security,
    /// Whether load balancers connect here (`listen.proxy_on`).
    pub proxied: bool,
    /// What becomes of what is delivered here.
    pub profile: Profile,
}

/// Accepts until the node stops.
pub async fn run(node: Arc<Node>, listener: Socket, door: Door) {
    let protocol = door.protocol;
    loop {
        let accepted = tokio::select! {
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
        let admitted = node.admission.admit(node.config().limits.connections);
        let node = node.clone();
        match (accepted, admitted) {
            (Accepted::Tcp(tcp, address), Ok(admitted)) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                node.tasks.clone().spawn(arrival(node, tcp, address, door, admitted));
            }
            (Accepted::Unix(stream), Ok(admitted)) => {
                node.tasks.clone().spawn(neighbour(node, stream, door, admitted));
            }
            (Accepted::Tcp(tcp, address), Err(reason)) => {
                tracing::warn!(%protocol, client = %address, reason, "connection refused");
                tokio::spawn(refuse(tcp, door));
            }
            (Accepted::Unix(stream), Err(reason)) => {
                tracing::warn!(%protocol, client = "this host", reason, "connection refused");
                tokio::spawn(refuse(stream, door));
            }
        }
    }
}

/// Finds out whose connection it is, and counts it.
async fn arrival(node: Arc<Node>, mut tcp: TcpStream, peer: SocketAddr, door: Door, mut admitted: Admitted) {
    let Ok(mut local) = tcp.local_addr() else { return };
    // Small replies must not wait for more; a failure costs speed only.
    tcp.set_nodelay(true).ok();
    let (protocol, config) = (door.protocol, node.config());
    let mut address = peer;
    let proxied = door.proxied && config.listen.is_proxy(peer.ip());
    if proxied {
        match timeout(HEADER_TIMEOUT, proxy::read(&mut tcp)).await {
            Ok(Ok(Proxied::Client { from, to })) => {
                address = SocketAddr::new(from.ip().to_canonical(), from.port());
                local = to;
            }
            // A health check of the balancer: it is the client.
            Ok(Ok(Proxied::Own)) => {}
            Ok(Err(ProxyError::Io(error))) => {
                // Health checks that only connect end here.
                tracing::debug!(%protocol, proxy = %peer, %error, "a load balancer closed before its PROXY header was whole");
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(%protocol, proxy = %peer, %error, "connection refused");
                return;
            }
            Err(_) => {
                tracing::warn!(%protocol, proxy = %peer, "connection refused: no PROXY header within {}", humantime::format_duration(HEADER_TIMEOUT));
                return;
            }
        }
    }
    if let Err(reason) = admitted.count_for(address.ip(), config.limits.connections_per_address) {
        tracing::warn!(%protocol, client = %address, reason, "connection refused");
        return refuse(tcp, door).await;
    }
    let client = Client { session: SessionId::random(), address, local, ingress: node.keeper.me().node, tls: None };
    let span = tracing::info_span!("session", session = %client.session, node = %client.ingress, %protocol, client = %address, user = Empty, holder = Empty);
    let proxy = proxied.then(|| tracing::field::display(peer));
    let admits = node.config().lmtp.allows(address.ip());
    connection(node, tcp, client, door, admits, proxy).instrument(span).await;
    drop(admitted);
}

/// Somebody on this host who may open the socket file: its permissions are who may deliver.
async fn neighbour(node: Arc<Node>, stream: UnixStream, door: Door, admitted: Admitted) {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Client { session: SessionId::random(), address: here, local: here, ingress: node.keeper.me().node, tls: None };
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let span = tracing::info_span!("session", session = %client.session, node = %client.ingress, protocol = %door.protocol, client = "this host", pid, user = Empty, holder = Empty);
    connection(node, stream, client, door, true, None::<&str>).instrument(span).await;
    drop(admitted);
}

/// One client until it closes. `admits`: who it is suffices to deliver.
async fn connection(
    node: Arc<Node>,
    stream: impl Stream + 'static,
    mut client: Client,
    door: Door,
    admits: bool,
    proxy: Option<impl tracing::Value>,
) {
    let started = tokio::time::Instant::now();
    tracing::info!(local = %client.local, proxy, "connection start");
    let (counted, traffic) = Counted::new(stream);
    let limits = node.config().limits.clone();
    // LMTP has no login: whoever is listed is nobody's stranger.
    let stranger =
        (door.protocol != Protocol::Lmtp || !admits).then(|| node.admission.stranger(client.address.ip(), limits.connections_before_login));
    let room_wanted = stranger.as_ref().map(Stranger::room_wanted).unwrap_or_default();
    let serve = async {
        let mut facts = None;
        let stream: Box<dyn Stream> = match (door.security, &node.tls) {
            (Security::Plain, _) => Box::new(counted),
            (Security::ImplicitTls, Some(tls)) => {
                match timeout(limits.login_timeout, tls.acceptor(door.protocol).accept(Box::new(counted))).await {
                    Ok(Ok((stream, agreed))) => {
                        client.tls = Some(agreed.text.clone());
                        facts = Some(Arc::new(agreed));
                        stream
                    }
                    Ok(Err(error)) => return End::because(format!("TLS handshake failed: {error}")),
                    Err(_) => return End::because("TLS handshake took too long"),
                }
            }
            (Security::ImplicitTls, None) => return End::because("no certificate is configured"),
        };
        let mut connection = Connection::new(stream, client, BytesMut::new(), limits.write_timeout).of_a_stranger(stranger);
        connection.tls = facts;
        match door.protocol {
            Protocol::Imap => imap::accept(node.clone(), connection).await,
            Protocol::Pop3 => pop3::accept(node.clone(), connection).await,
            Protocol::Lmtp => lmtp::accept(node.clone(), connection, door.profile, admits).await,
        }
    };
    let end = tokio::select! {
        end = serve => end,
        () = room_wanted.cancelled() => End::because("made room for others: too many connections that have not logged in (limits.connections_before_login)"),
    };
    tracing::info!(
        bytes_in = traffic.bytes_in(),
        bytes_out = traffic.bytes_out(),
        seconds = started.elapsed().as_secs(),
        reason = end.0,
        "connection end"
    );
}

/// Says why, where the protocol has a word for it, and closes.
async fn refuse(mut stream: impl AsyncWrite + Unpin, door: Door) {
    let text: &[u8] = match (door.security, door.protocol) {
        // A TLS client would not understand plain text.
        (Security::ImplicitTls, _) => b"",
        (Security::Plain, Protocol::Imap) => b"* BYE [LIMIT] too many connections, please try again later\r\n",
        (Security::Plain, Protocol::Pop3) => b"-ERR [SYS/TEMP] too many connections, please try again later\r\n",
        (Security::Plain, Protocol::Lmtp) => b"421 4.3.2 too many connections, please try again later\r\n",
    };
    // The client may be gone; there is nobody else to tell.
    drop(timeout(Duration::from_secs(5), stream.write_all(text)).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_an_error_with_what_to_do() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let taken = bind(address).unwrap_err().to_string();
        assert!(taken.contains(&address.to_string()) && taken.contains("ss -ltnp"), "{taken}");
        let elsewhere = bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
        assert!(elsewhere.contains("this host has no such address"), "{elsewhere}");
    }
}
