//! Restarts while others ask and register.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::{Later, addresses, get, register, restart};
use crate::daemon::Daemon;
use crate::server::{ask_tcp, query, try_request};

const SERVICES: usize = 300;
const RESTARTS: usize = 5;
/// Far above any pause, so that what is late is told from what is lost.
const LOST: Duration = Duration::from_secs(10);

fn address(service: usize) -> IpAddr {
    IpAddr::from([10, 1, (service >> 8) as u8, service as u8])
}

fn found(answer: &Message) -> Vec<IpAddr> {
    let addresses = answer.answers.iter().map(|record| match &record.data {
        RData::A(a) => IpAddr::V4(a.0),
        other => panic!("{other}"),
    });
    addresses.collect()
}

/// Asks for one service after the other on one socket until told to end; how many answers came, every one right.
async fn asker(dns: SocketAddr, first: usize, end: CancellationToken) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns).await.unwrap();
    let mut answered = 0;
    while !end.is_cancelled() {
        let service = (first + answered * 7) % SERVICES;
        let mut asked = query(&format!("s{service}.service.internal."), RecordType::A);
        asked.metadata.id = answered as u16;
        socket.send(&asked.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 1500];
        let received = tokio::time::timeout(LOST, socket.recv(&mut buffer)).await;
        let length = received.unwrap_or_else(|_| panic!("query {answered} was lost")).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.id, answered as u16);
        assert_eq!(found(&answer), [address(service)], "s{service}");
        answered += 1;
    }
    answered
}

/// The same over TCP, each query on a connection of its own.
async fn asker_tcp(dns: SocketAddr, end: CancellationToken) -> usize {
    let mut answered = 0;
    while !end.is_cancelled() {
        let service = (answered * 11) % SERVICES;
        let asked = query(&format!("s{service}.service.internal."), RecordType::A);
        assert_eq!(found(&ask_tcp(dns, &asked).await), [address(service)], "s{service}");
        answered += 1;
    }
    answered
}

/// Registers instances until told to end; those that were acknowledged. Each is in DNS when it is.
async fn registrar(
    http: SocketAddr,
    dns: SocketAddr,
    name: usize,
    refused: Arc<AtomicUsize>,
    end: CancellationToken,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if end.is_cancelled() {
            break;
        }
        let service = format!("r{name}-{number}");
        let body = json!({ "Name": service, "Address": "10.2.0.1", "Port": 1 }).to_string();
        match try_request(http, "PUT", "/v1/agent/service/register", &[], &body).await {
            Ok(answer) if answer.status == 200 => {
                let count = addresses(dns, &service).await;
                assert_eq!(count, 1, "{service} was acknowledged and is not in DNS");
                acknowledged.push(service);
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_a_row_lose_no_query_and_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Daemon::start(dir.path(), &[]);
    let (http, dns) = (server.http[0], server.dns[0]);
    for service in 0..SERVICES {
        let address = address(service).to_string();
        let check = json!({ "TTL": "1h", "Status": "passing" });
        register(
            http,
            json!({ "Name": format!("s{service}"), "Address": address, "Port": 1, "Check": check }),
        )
        .await;
    }
    let (end, refused) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let askers: Vec<_> = (0..8).map(|first| tokio::spawn(asker(dns, first * 31, end.clone()))).collect();
    let over_tcp = tokio::spawn(asker_tcp(dns, end.clone()));
    let registrars: Vec<_> =
        (0..4).map(|name| tokio::spawn(registrar(http, dns, name, refused.clone(), end.clone()))).collect();
    let data = dir.path().to_str().unwrap().to_owned();
    let mut later: Option<Later> = None;
    for _ in 0..RESTARTS {
        let data = data.clone();
        let next = tokio::task::spawn_blocking(move || restart(&["--data-dir", &data])).await.unwrap();
        // The one before it has ended; its number may be somebody else's by now.
        if let Some(before) = later.replace(next) {
            std::mem::forget(before);
        }
        // Others take up their work with it.
        register(http, json!({ "Name": "between", "Port": 1 })).await;
    }
    end.cancel();
    assert!(server.child.wait().unwrap().success(), "the first process");
    let mut answered = over_tcp.await.unwrap();
    assert!(answered > RESTARTS, "only {answered} over TCP");
    for asker in askers {
        answered += asker.await.unwrap();
    }
    assert!(answered > 1000, "only {answered} queries were asked");
    let mut acknowledged = Vec::new();
    for registrar in registrars {
        acknowledged.extend(registrar.await.unwrap());
    }
    let services = get(http, "/v1/catalog/services").await.json();
    let kept: BTreeSet<&str> = services.as_object().unwrap().keys().map(String::as_str).collect();
    let count = acknowledged.len();
    let lost: Vec<_> = acknowledged.iter().filter(|service| !kept.contains(service.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost, of {count}: {lost:?}");
    assert!(count > 4 * RESTARTS, "only {count} were acknowledged");
    let refused = refused.load(Ordering::Relaxed);
    assert!(refused <= 4 * RESTARTS, "{refused} were refused: more than were under way");
}
