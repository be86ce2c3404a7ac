//! What is particular to UDP: several threads on one address, bursts, and nobody else on the port.

use std::net::UdpSocket;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use rollcall::config::Data;

use crate::dns::crowd;
use crate::server::{PATIENCE, TestServer, config, query};

const NS: &str = "ns.internal.";

/// The threads' sockets share a port, but not with anybody else's.
#[tokio::test]
async fn the_port_of_another_is_refused_and_ours_is_nobody_elses() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.data = Data::Ephemeral;
    config.dns.listen = vec![other.local_addr().unwrap()];
    let refused = rollcall::start(config).await.err().unwrap().to_string();
    assert!(refused.contains("on udp") && refused.contains("another server has it"), "{refused}");

    let server = TestServer::with(|config| config.dns.udp_threads = 3).await;
    let taken = UdpSocket::bind(server.dns()).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

/// Clients are spread over the threads by their ports, and a batch may hold several of one client.
#[tokio::test]
async fn every_query_of_bursts_from_many_clients_is_answered_once() {
    let server = TestServer::with(|config| config.dns.udp_threads = 3).await;
    let address = server.dns();
    let asked = query(NS, RecordType::A).to_vec().unwrap();
    let answered = tokio::task::spawn_blocking(move || {
        let clients: Vec<UdpSocket> = (0..40).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for id in 0..40u16 {
            for client in &clients {
                let mut asked = asked.clone();
                asked[..2].copy_from_slice(&id.to_be_bytes());
                client.send_to(&asked, address).unwrap();
            }
        }
        for client in &clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut ids: Vec<u16> = (0..40).map(|_| receive(client)).collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..40).collect::<Vec<_>>());
            client.set_nonblocking(true).unwrap();
            assert!(client.recv(&mut [0; 512]).is_err(), "once");
        }
        40 * clients.len()
    });
    let answered = answered.await.unwrap();
    let series = "rollcall_dns_answers_total{type=\"A\",rcode=\"NOERROR\",transport=\"udp\"}";
    assert_eq!(server.metric(series).await, answered as f64);
}

/// What is asked all day takes the fast path, and what is odd the general one; both are counted.
#[tokio::test]
async fn each_path_answers_its_share() {
    let server = crowd(3).await;
    let path = |kind| format!("rollcall_dns_answers_total{{path=\"{kind}\"}}");
    for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::MX] {
        for name in ["web.service.internal.", "WEB.Service.Consul.", "nobody.service.internal."] {
            server.ask(name, kind).await;
        }
    }
    assert_eq!(server.metric(&path("fast")).await, 12.0);
    let general = server.metric(&path("general")).await;
    for (name, kind) in [("web.service.internal.", RecordType::ANY), ("internal.", RecordType::SOA)] {
        server.ask(name, kind).await;
    }
    assert_eq!(server.metric(&path("fast")).await, 12.0);
    assert!(server.metric(&path("general")).await >= general + 2.0);
    let series = "rollcall_dns_answers_total{type=\"SRV\",rcode=\"NXDOMAIN\",transport=\"udp\"}";
    assert_eq!(server.metric(series).await, 1.0);
}

/// The id of the next answer.
fn receive(client: &UdpSocket) -> u16 {
    let mut bytes = [0; 512];
    let received = client.recv(&mut bytes).unwrap();
    let answer = Message::from_vec(&bytes[..received]).unwrap();
    assert_eq!(answer.answers.len(), 1);
    answer.id
}
