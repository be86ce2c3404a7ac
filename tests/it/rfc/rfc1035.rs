//! RFC 1035: header, sizes, transport.

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use crate::dns::{crowd, healthy};
use crate::server::{
    TestServer, ask as ask_message, ask_tcp as ask_message_tcp, exchange, query as question,
};
use crate::wire::{self, *};

#[tokio::test]
async fn s4_1_1_an_answer_copies_id_opcode_and_rd_and_sets_qr_and_aa() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    for (flags, expected) in [(0, QR | AA), (RD, QR | AA | RD), (TC | AA | RA | Z, QR | AA)] {
        let message = [header(flags, [1, 0, 0, 0]), asked("web.service.internal", 1, 1)].concat();
        let answer = wire::ask(server.dns(), &message).await;
        assert_eq!(head(&answer).flags, expected, "{flags:x}");
        assert_eq!(head(&answer).counts, [1, 1, 0, 0]);
    }
}

#[tokio::test]
async fn s4_1_1_a_response_is_never_answered() {
    let server = TestServer::start().await;
    let mut malformed = query("web.service.internal", RecordType::A);
    malformed.push(0);
    for message in [query("web.service.internal", RecordType::A), malformed, header(0, [0, 0, 0, 0])] {
        // The same without QR is answered, well or with an error.
        assert!(exchange(server.dns(), &message).await.is_some());
        for opcode in 0..16u16 {
            let mut response = message.clone();
            response[2..4].copy_from_slice(&(QR | opcode << 11).to_be_bytes());
            assert_eq!(exchange(server.dns(), &response).await, None, "opcode {opcode}");
        }
    }
    let mut response = query("web.service.internal", RecordType::A);
    response[2] |= 0x80;
    assert_eq!(wire::ask_tcp(server.dns(), &response).await, None, "TCP: closed");
    let dropped = server.get("/metrics").await.text();
    assert!(dropped.contains("rollcall_dns_dropped_total{reason=\"not a request\"} 49"), "{dropped}");
}

#[tokio::test]
async fn s4_1_1_what_is_shorter_than_a_header_is_not_answered() {
    let server = TestServer::start().await;
    let message = query("web.service.internal", RecordType::A);
    for length in 0..HEADER {
        assert_eq!(exchange(server.dns(), &message[..length]).await, None, "{length} octets");
    }
}

#[tokio::test]
async fn s4_1_1_other_opcodes_are_not_implemented() {
    let server = TestServer::start().await;
    for opcode in 1..16u16 {
        for mut message in [query("internal", RecordType::SOA), header(RD, [0, 0, 0, 0])] {
            message[2] |= (opcode << 3) as u8;
            let head = head(&wire::ask(server.dns(), &message).await);
            assert_eq!((head.rcode(), head.flags >> 11 & 0xf), (NOTIMP, opcode));
            assert_eq!(head.counts, [0; 4]);
        }
    }
}

#[tokio::test]
async fn s3_2_4_classes_other_than_in_are_refused() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    for class in [0, 2, 3, 4, 254, 255, 65_535] {
        for (name, kind) in [("web.service.internal", 1), ("version.bind", 16), ("internal", 6)] {
            let message = [header(RD, [1, 0, 0, 0]), asked(name, kind, class)].concat();
            let answer = wire::ask(server.dns(), &message).await;
            assert_eq!(head(&answer).rcode(), REFUSED, "class {class}");
            assert_eq!(head(&answer).counts, [1, 0, 0, 0]);
            assert_eq!(answer[HEADER..], message[HEADER..], "the question comes back");
        }
    }
}

#[tokio::test]
async fn s2_3_4_labels_of_63_octets_and_names_of_255_are_served() {
    let server = TestServer::start().await;
    let service = "s".repeat(63);
    server.register(healthy("web-1", &service, "10.0.0.1", 80)).await;
    let asked = format!("{service}.service.internal.");
    let answer = server.ask(&asked, RecordType::SRV).await;
    assert_eq!((answer.answers.len(), answer.additionals.len()), (1, 1));
    // 255 octets with all length octets: nobody's tag, but a name.
    let rest = ".service.internal".len() + 64;
    let tag = format!("{0}.{0}.{1}", "t".repeat(63), "t".repeat(253 - rest - 2 * 64));
    let message = query(&format!("{tag}.{asked}"), RecordType::A);
    assert_eq!(message.len(), HEADER + 255 + 4);
    assert_eq!(head(&wire::ask(server.dns(), &message).await).rcode(), NXDOMAIN);
    let mut longer = query(&format!("{tag}t.{asked}"), RecordType::A);
    assert_eq!(head(&wire::ask(server.dns(), &longer).await).rcode(), FORMERR);
    longer[HEADER] = 64;
    assert_eq!(head(&wire::ask(server.dns(), &longer).await).rcode(), FORMERR);
}

#[tokio::test]
async fn s4_2_1_what_does_not_fit_has_tc_and_comes_whole_over_tcp() {
    let server = crowd(200).await;
    for kind in [RecordType::A, RecordType::SRV] {
        let asked = question("web.service.internal.", kind);
        let cut = wire::ask(server.dns(), &asked.to_vec().unwrap()).await;
        assert!(cut.len() <= 512 && head(&cut).has(TC), "{kind}");
        let message = Message::from_vec(&cut).unwrap();
        assert!(!message.answers.is_empty() && message.answers.len() < 200);
        assert!(message.answers.iter().all(|record| record.record_type() == kind), "whole records");
        let whole = ask_message_tcp(server.dns(), &asked).await;
        assert!(!whole.truncation);
        assert_eq!(whole.answers.len(), 200, "{kind}");
        if kind == RecordType::SRV {
            assert_eq!(whole.additionals.len(), 200);
        }
    }
    assert!(!ask_message(server.dns(), &question("internal.", RecordType::SOA)).await.truncation);
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_dns_truncated_total 2"), "{metrics}");
}

/// Two octets say how long a message over TCP is.
#[tokio::test]
async fn s4_2_2_what_does_not_fit_into_64_kib_has_tc_over_tcp_too() {
    let server = TestServer::start().await;
    let value = "v".repeat(200);
    for i in 0..80 {
        let mut definition = healthy(&format!("web-{i}"), "web", "10.0.0.1", 80);
        let meta = (0..5).map(|key| (format!("k{key}"), format!("{i}{value}")));
        definition["Meta"] = serde_json::json!(meta.collect::<std::collections::BTreeMap<_, _>>());
        server.register(definition).await;
    }
    let answer = wire::ask_tcp(server.dns(), &query("web.service.internal", RecordType::TXT)).await.unwrap();
    assert!(head(&answer).has(TC) && answer.len() > 60_000);
    let message = Message::from_vec(&answer).unwrap();
    assert!(message.answers.len() > 50 && message.answers.len() < 80);
}
