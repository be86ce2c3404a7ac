//! UDP checks: an empty datagram is sent. An answer or silence is passing, word that nobody listens or that nothing is
//! there is critical.
//!
//! Silence is no answer, so a probe has to wait for the news that could still come. Consul waits for the whole timeout
//! (10 s where none is given), and a service that never answers would be in DNS only then. What comes late is the
//! neighbour's: the system asks three times, a second apart, for the link address of a host that is gone, and then says
//! so. After that no more can come but what a network lost, so no probe waits longer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, Unreached};
use super::probe::{Finding, Tools};
use crate::model::Status;

/// How long silence is listened to at most: longer than the system looks for a neighbour.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Sends once and listens; over within `limit`.
pub(super) async fn probe(address: &str, limit: Duration, with: &Tools) -> Finding {
    let deadline = Instant::now() + limit;
    let Ok(found) = timeout_at(deadline, connect::lookup("udp", address, with)).await else {
        return Finding::critical(format!("dial udp: lookup {}: i/o timeout", connect::host(address)));
    };
    let outcome = match found {
        Ok(targets) => exchange(targets[0], deadline, with).await,
        Err(why) => Err(why),
    };
    if outcome.is_err() {
        with.names.forget(connect::host(address));
    }
    match outcome {
        Ok(()) => Finding::new(Status::Passing, format!("UDP connect {address}: Success")),
        Err(why) => why.into(),
    }
}

async fn exchange(target: SocketAddr, deadline: Instant, with: &Tools) -> Result<(), Unreached> {
    let denied = |why| Unreached::denied(&format!("write udp {target}"), why, with);
    with.targets.judge(target.ip()).map_err(denied)?;
    let sent = send(target).await;
    let socket = sent.map_err(|error| Unreached::at(&format!("write udp {target}"), &error))?;
    let patience = deadline.min(Instant::now() + SILENCE_MAX);
    // An answer may say what it likes; what does not fit is cut.
    match timeout_at(patience, socket.recv(&mut [0])).await {
        Ok(Err(error)) => Err(Unreached::at(&format!("read udp {target}"), &error)),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// A socket that has sent an empty datagram, and hears of it only from the target.
async fn send(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Without it a socket hears that nobody listens, but not that the host is gone (udp(7)).
    match target {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
    }
    socket.connect(target).await?;
    socket.send(&[]).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tools_with;
    use super::*;
    use crate::tls::authority::Authority;

    fn tools() -> Tools {
        tools_with(Authority::new().clients())
    }

    #[tokio::test]
    async fn an_answer_is_passing_at_once() {
        for (bound, answer) in [("127.0.0.1:0", &b"a datagram of some length"[..]), ("[::1]:0", b"")] {
            let server = UdpSocket::bind(bound).await.unwrap();
            let address = server.local_addr().unwrap().to_string();
            let serving = async {
                let (octets, client) = server.recv_from(&mut [0; 64]).await.unwrap();
                server.send_to(answer, client).await.unwrap();
                octets
            };
            let tools = tools();
            let begun = Instant::now();
            let (finding, octets) = tokio::join!(probe(&address, Duration::from_secs(60), &tools), serving);
            assert_eq!(finding, Finding::new(Status::Passing, format!("UDP connect {address}: Success")));
            assert_eq!(octets, 0);
            assert!(begun.elapsed() < SILENCE_MAX, "it waited for more than the answer");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_critical() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(bound).await.unwrap();
            let address = server.local_addr().unwrap().to_string();
            drop(server);
            let finding = probe(&address, Duration::from_secs(10), &tools()).await;
            assert!(finding.refused);
            let text = format!("read udp {address}: connection refused");
            assert_eq!((finding.status, finding.output), (Status::Critical, text));
        }
    }

    #[tokio::test]
    async fn silence_is_passing_and_bounded() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        // The shorter of both limits holds: neither of these ends if it does not.
        for (limit, least) in
            [(Duration::from_millis(100), Duration::from_millis(100)), (Duration::MAX / 4, SILENCE_MAX)]
        {
            let begun = Instant::now();
            let finding = probe(&address, limit, &tools()).await;
            assert_eq!(finding.status, Status::Passing, "{}", finding.output);
            assert!(begun.elapsed() >= least);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_critical() {
        for (address, text) in [
            ("255.255.255.255:9", "write udp 255.255.255.255:9: "),
            ("two words:9", "dial udp: lookup two words: no such host"),
        ] {
            let finding = probe(address, Duration::from_secs(10), &tools()).await;
            assert_eq!((finding.status, finding.refused), (Status::Critical, false));
            assert!(finding.output.starts_with(text), "{}", finding.output);
        }
    }
}
