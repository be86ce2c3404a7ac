//! The way to a target: names looked up, each address tried, TLS where it is wanted, and errors in the words that
//! Consul's users know.
//!
//! The addresses of a name (from [`names`](super::names)) are tried as RFC 8305 says, each a moment after the one before: a
//! target whose first address leads nowhere would otherwise use up the probe's time on it. A name that led to no connection
//! is looked up anew next time, and a connection that was kept is used only while the name still leads where it does: what
//! is remembered may save a lookup, but never decides how a check stands.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::kept::Wire;
use super::names::{Failed, Names};
use super::probe::{Finding, Tools};
use crate::model::ProbeTls;
use crate::model::targets::Denied;

/// RFC 8305 section 5: the connection attempt delay.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Why a target was not reached.
#[derive(Debug)]
pub(super) struct Unreached {
    pub(super) text: String,
    /// Somebody is there and said that nobody listens.
    pub(super) refused: bool,
    /// There was no way to it, or to those who know its name.
    pub(super) lost: bool,
    /// This machine was short of something: it says nothing about the target.
    pub(super) shortage: bool,
}

impl Unreached {
    pub(super) fn new(text: String) -> Self {
        Self { text, refused: false, lost: false, shortage: false }
    }

    /// What may not be reached is not tried.
    pub(super) fn denied(doing: &str, Denied(why): Denied, with: &Tools) -> Self {
        with.metrics.checks.unmade("denied target");
        Self::new(format!("{doing}: checks may not connect there: {why}"))
    }

    /// An error of the network; `doing` is what was done, as in `dial tcp 192.0.2.1:80: connect`.
    pub(super) fn at(doing: &str, error: &io::Error) -> Self {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        let lost = error.raw_os_error().is_some_and(is_lost);
        let shortage = error.raw_os_error().is_some_and(is_shortage);
        Self { text: format!("{doing}: {}", words(error)), refused, lost, shortage }
    }
}

/// Open files, memory, ports: what a probe needs of this machine, whatever the target.
fn is_shortage(number: i32) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    [EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN, EADDRNOTAVAIL].contains(&number)
}

/// Nothing came back, or word that there is no way.
fn is_lost(number: i32) -> bool {
    use nix::libc::{EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT};
    [EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ETIMEDOUT].contains(&number)
}

impl From<Unreached> for Finding {
    fn from(Unreached { text, refused, lost, shortage }: Unreached) -> Self {
        Self { refused, lost, shortage, ..Self::critical(text) }
    }
}

/// A connection with or without TLS.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Connects, and makes the handshake if there are settings for one; `alpn` are the protocols that it offers. No time
/// limit of its own.
pub(super) async fn open(
    address: &str,
    tls: Option<&ProbeTls>,
    alpn: &'static [&'static [u8]],
    with: &Tools,
) -> Result<Stream, Unreached> {
    let mut trial = Trial { names: &with.names, host: host(address), reached: false };
    let stream = tcp(address, with).await?;
    let stream = match tls {
        None => Either::Left(stream),
        Some(tls) => {
            let stream = with.tls.stream(stream, host(address), tls, alpn).await;
            Either::Right(stream.map_err(Unreached::new)?)
        }
    };
    trial.reached = true;
    Ok(stream)
}

impl Wire for Stream {
    fn peer(&self) -> Option<IpAddr> {
        let tcp = match self {
            Either::Left(tcp) => tcp,
            Either::Right(tls) => tls.get_ref().0,
        };
        tcp.peer_addr().ok().map(|peer| peer.ip())
    }
}

/// An attempt to reach a name. When it ends without, also because the probe's time is over, the addresses are forgotten.
struct Trial<'a> {
    names: &'a Names,
    host: &'a str,
    reached: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.reached {
            self.names.forget(self.host);
        }
    }
}

/// The connection, if `host:port` still leads where it does.
pub(super) async fn still(
    address: &str,
    kept: Box<dyn Wire>,
    with: &Tools,
) -> Result<Option<Box<dyn Wire>>, Unreached> {
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(Some(kept));
    }
    let found = lookup("tcp", address, with).await?;
    let leads_there = found.iter().any(|found| Some(found.ip()) == kept.peer());
    Ok(leads_there.then_some(kept))
}

/// Connects to `host:port` (a name, an IPv4 address, or an IPv6 address in brackets); the first address that
/// answers.
async fn tcp(address: &str, with: &Tools) -> Result<TcpStream, Unreached> {
    match address.parse() {
        Ok(literal) => connect(literal, with).await,
        Err(_) => first(lookup("tcp", address, with).await?, with).await,
    }
}

/// The first of these addresses that answers.
async fn first(targets: Vec<SocketAddr>, with: &Tools) -> Result<TcpStream, Unreached> {
    let mut waiting = targets.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failed = Unreached::new("dial tcp: no address".to_owned());
    let mut any = false;
    loop {
        trying.extend(waiting.next().map(|target| connect(target, with)));
        tokio::select! {
            Some(outcome) = trying.next() => match outcome {
                Ok(stream) => return Ok(stream),
                // That nobody listens says more than that another address leads nowhere.
                Err(why) if why.refused || !any => (failed, any) = (why, true),
                Err(_) => {}
            },
            () = sleep(NEXT_ADDRESS), if waiting.len() > 0 => {}
            else => return Err(failed),
        }
    }
}

/// The one place where a connection is made: what is judged here is what is connected to.
async fn connect(target: SocketAddr, with: &Tools) -> Result<TcpStream, Unreached> {
    let denied = |why| Unreached::denied(&format!("dial tcp {target}"), why, with);
    with.targets.judge(target.ip()).map_err(denied)?;
    let stream = TcpStream::connect(target).await;
    let stream = stream.map_err(|error| Unreached::at(&format!("dial tcp {target}: connect"), &error))?;
    // Requests of probes are small and their answers wanted at once.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The addresses of `host:port`, at least one; `network` (`tcp` or `udp`) is for the error.
pub(super) async fn lookup(network: &str, address: &str, with: &Tools) -> Result<Vec<SocketAddr>, Unreached> {
    if let Ok(literal) = address.parse() {
        return Ok(vec![literal]);
    }
    let failed = |why: &str| Unreached::new(format!("dial {network}: lookup {}: {why}", host(address)));
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port: u16 = port.ok_or_else(|| failed("the address is not host:port"))?;
    match with.names.find(host(address)).await {
        Ok(found) => Ok(found.iter().map(|found| at_port(*found, port)).collect()),
        Err(Failed::NoSuchHost) => Err(failed("no such host")),
        Err(Failed::Because(why)) => Err(Unreached { lost: true, ..failed(&why) }),
    }
}

fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// The host of `host:port`, without brackets.
pub(super) fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// The system's words as Go shows them: lower case, without the number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error().and_then(|number| text.strip_suffix(&format!(" (os error {number})"))) {
        Some(bare) => bare.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::tests::tools;
    use super::*;

    #[tokio::test]
    async fn every_form_of_an_address_leads_there() {
        for (bound, hosts) in [("127.0.0.1:0", &["127.0.0.1", "localhost"][..]), ("[::1]:0", &["[::1]"])] {
            let listener = TcpListener::bind(bound).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for host in hosts {
                let stream = tcp(&format!("{host}:{port}"), tools()).await.unwrap();
                assert_eq!(stream.peer_addr().unwrap().port(), port, "{host}");
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_does_not_hold_up_the_next() {
        // Nobody accepts and the queue is full: the kernel answers nothing.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let nowhere = silent.local_addr().unwrap().as_socket().unwrap();
        let _queued = TcpStream::connect(nowhere).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (refused, _held) = refused_port();
        let refused = SocketAddr::from(([127, 0, 0, 1], refused));
        for targets in [vec![nowhere, good], vec![refused, nowhere, good], vec![good, nowhere]] {
            // The kernel gives the silent one up after two minutes.
            let stream = tokio::time::timeout(Duration::from_secs(30), first(targets.clone(), tools())).await;
            let stream =
                stream.unwrap_or_else(|_| panic!("{targets:?} took as long as the silent one")).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good);
        }
    }

    #[tokio::test]
    async fn of_a_names_addresses_those_that_are_denied_are_left_out() {
        let mut tools = super::super::tests::tools_with(crate::tls::Clients::new().unwrap());
        tools.targets.deny = vec!["127.0.0.2/32".parse().unwrap()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let denied = SocketAddr::from(([127, 0, 0, 2], good.port()));
        let stream = first(vec![denied, good], &tools).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let why = first(vec![denied], &tools).await.unwrap_err();
        assert!(!why.refused && why.text.contains("deny_targets"), "{}", why.text);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses() {
        let (port, _held) = refused_port();
        let why = tcp(&format!("127.0.0.1:{port}"), tools()).await.unwrap_err();
        assert!(why.refused);
        assert_eq!(why.text, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
        assert!(tcp(&format!("localhost:{port}"), tools()).await.unwrap_err().refused);
    }

    /// A port that is taken by a socket that does not listen, so that nobody else gets it meanwhile.
    fn refused_port() -> (u16, socket2::Socket) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        (socket.local_addr().unwrap().as_socket().unwrap().port(), socket)
    }

    #[tokio::test]
    async fn what_leads_nowhere_says_why() {
        for (address, text) in [
            // Not routed: a broadcast address takes no connections.
            ("255.255.255.255:80", "dial tcp 255.255.255.255:80: connect: network is unreachable"),
            ("localhost", "dial tcp: lookup localhost: the address is not host:port"),
            ("localhost:x", "dial tcp: lookup localhost: the address is not host:port"),
            ("two words:80", "dial tcp: lookup two words: no such host"),
        ] {
            let why = tcp(address, tools()).await.unwrap_err();
            assert!(!why.refused, "{address}");
            assert_eq!(why.text, text);
        }
    }

    #[tokio::test]
    async fn a_zone_says_which_link() {
        let found = lookup("tcp", "[fe80::1%lo]:80", tools()).await.unwrap();
        assert!(
            matches!(found[..], [SocketAddr::V6(target)] if target.scope_id() != 0 && target.port() == 80)
        );
    }

    #[test]
    fn hosts_stand_before_the_port() {
        for (address, wanted) in
            [("web.example:80", "web.example"), ("[::1]:80", "::1"), ("[fe80::1%eth0]:80", "fe80::1%eth0")]
        {
            assert_eq!(host(address), wanted);
        }
    }
}
