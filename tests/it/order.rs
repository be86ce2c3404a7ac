//! Which instances come first, and which come at all where not all do: weights, limits, and answers that do not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use rollcall::config::Data;
use serde_json::json;
use tokio::net::UdpSocket;

use crate::dns::{crowd, healthy};
use crate::server::{PATIENCE, TestServer, ask_tcp, query};
use crate::wire::data;

const WEB: &str = "web.service.internal.";

/// A server with instances of `web` of these weights, at 10.0.0.1, 10.0.0.2, and so on.
async fn weighted(weights: &[u32], a_limit: Option<usize>) -> TestServer {
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        config.dns.a_limit.extend(a_limit.map(|limit| ("w*".to_owned(), limit)));
    })
    .await;
    for (i, weight) in weights.iter().enumerate() {
        let mut definition = healthy(&format!("web-{i}"), "web", &format!("10.0.0.{}", i + 1), 80);
        definition["Weights"] = json!({ "Passing": weight, "Warning": 1 });
        server.register(definition).await;
    }
    server
}

async fn addresses(server: &TestServer) -> Vec<String> {
    let answer = server.ask(WEB, RecordType::A).await;
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

/// How often each address comes first in so many answers.
async fn firsts(server: &TestServer, answers: usize) -> BTreeMap<String, usize> {
    let mut firsts = BTreeMap::new();
    for _ in 0..answers {
        *firsts.entry(addresses(server).await.remove(0)).or_insert(0) += 1;
    }
    firsts
}

#[tokio::test]
async fn an_address_comes_first_as_often_as_its_weight_says() {
    let server = weighted(&[8, 1, 1], None).await;
    let firsts = firsts(&server, 600).await;
    // 480 are expected, with a standard deviation of 10.
    assert!((420..540).contains(&firsts["10.0.0.1"]), "{firsts:?}");
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    assert_eq!(addresses(&server).await.len(), 3, "and all are given");
}

#[tokio::test]
async fn a_limit_gives_so_many_addresses_drawn_by_weight_and_srv_gives_all() {
    let server = weighted(&[8, 1, 1, 1], Some(2)).await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..600 {
        let addresses = addresses(&server).await;
        assert_eq!(addresses.len(), 2);
        addresses.into_iter().for_each(|address| *seen.entry(address).or_insert(0) += 1);
    }
    // Of two drawn, the heavy one is in 94.5 % (567 of 600, with a deviation of 5.6), each other in 35.2 % (211, 11.7): six
    // deviations and more on either side. Were all drawn alike, each would be in 300.
    assert!((530..600).contains(&seen["10.0.0.1"]), "{seen:?}");
    assert!(["10.0.0.2", "10.0.0.3", "10.0.0.4"].iter().all(|a| (135..285).contains(&seen[*a])), "{seen:?}");
    assert_eq!(server.ask(WEB, RecordType::SRV).await.answers.len(), 4);
}

/// One answer over UDP for a client at this address of loopback.
async fn ask_from(server: SocketAddr, client: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind((client, 0)).await.unwrap();
    let asked = query(WEB, kind).to_vec().unwrap();
    socket.send_to(&asked, server).await.unwrap();
    let mut bytes = [0; 4096];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut bytes)).await.unwrap().unwrap();
    Message::from_vec(&bytes[..received]).unwrap()
}

#[tokio::test]
async fn a_client_keeps_its_part_of_what_does_not_fit_and_all_come_over_tcp() {
    let server = crowd(60).await;
    for kind in [RecordType::A, RecordType::SRV] {
        let part = |answer: &Message| -> BTreeSet<String> {
            assert!(answer.truncation && answer.answers.len() >= 8, "{answer}");
            answer.answers.iter().map(|record| record.data.to_string()).collect()
        };
        let mine = part(&ask_from(server.dns(), "127.0.0.2", kind).await);
        for _ in 0..10 {
            assert_eq!(part(&ask_from(server.dns(), "127.0.0.2", kind).await), mine);
        }
        let mut all = mine.clone();
        for client in 3..40 {
            all.extend(part(&ask_from(server.dns(), &format!("127.0.0.{client}"), kind).await));
        }
        assert_eq!(all.len(), 60, "each is in some client's part");
        let whole = ask_tcp(server.dns(), &query(WEB, kind)).await;
        assert!(!whole.truncation && whole.answers.len() == 60);
    }
}

#[tokio::test]
async fn who_leaves_moves_no_other_out_of_a_part() {
    let server = crowd(60).await;
    let before = ask_from(server.dns(), "127.0.0.2", RecordType::A).await;
    let before = data(&before.answers, RecordType::A);
    let gone: u8 = before[3].split('.').nth(2).unwrap().parse().unwrap();
    let left = server.put(&format!("/v1/agent/service/deregister/web-{gone}"), "").await;
    assert_eq!(left.status, 200);
    let after = ask_from(server.dns(), "127.0.0.2", RecordType::A).await;
    let after = data(&after.answers, RecordType::A);
    assert!(before.iter().all(|address| after.contains(address) == (*address != before[3])), "{after:?}");
    assert_eq!(after.len(), before.len(), "one more takes the place");
}
