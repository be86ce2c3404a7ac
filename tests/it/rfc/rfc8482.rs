//! RFC 8482: minimal answers to ANY.

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, RecordType};

use crate::dns::{crowd, healthy};
use crate::server::TestServer;
use crate::wire::{self, *};

#[tokio::test]
async fn s4_2_any_is_one_hinfo_that_says_so_over_both_transports() {
    let server = crowd(100).await;
    for name in ["web.service.internal", "internal", "n1.node.consul", "1.0.0.10.in-addr.arpa"] {
        let message = with(query(name, RecordType::ANY), 3, &opt(4096, 0, 0, &[]));
        for answer in
            [wire::ask(server.dns(), &message).await, wire::ask_tcp(server.dns(), &message).await.unwrap()]
        {
            assert!(answer.len() < message.len() + 32, "{name}: {} octets", answer.len());
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(answer.answers.len(), 1);
            let RData::HINFO(hinfo) = &answer.answers[0].data else { panic!("{answer}") };
            assert_eq!((&*hinfo.cpu, hinfo.os.len()), (&b"RFC8482"[..], 0));
        }
    }
}

/// "If there is no CNAME present at the owner name": a CNAME stands alone, so it is the answer.
#[tokio::test]
async fn s4_2_an_alias_is_answered_with_its_cname() {
    let server = TestServer::start().await;
    server.register(healthy("db-1", "db", "db.example.com", 1)).await;
    let answer = server.ask("db.service.internal.", RecordType::ANY).await;
    assert_eq!(data(&answer.answers, RecordType::CNAME), ["db.example.com."]);
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn s4_2_any_of_nothing_is_negative_as_for_other_types() {
    let server = TestServer::start().await;
    for (name, rcode) in [("none.service.internal.", 3), ("service.internal.", 0)] {
        let answer = server.ask(name, RecordType::ANY).await;
        assert_eq!(u16::from(answer.response_code), rcode);
        soa(&answer);
    }
}
