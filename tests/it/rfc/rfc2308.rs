//! RFC 2308: negative answers.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use crate::dns::healthy;
use crate::server::TestServer;
use crate::wire::soa;

/// Section 3: the SOA's own TTL is the smaller of its TTL and its MINIMUM. Section 5: without a SOA nobody
/// may keep the answer, and resolvers ask again and again.
#[tokio::test]
async fn s3_every_negative_answer_has_a_soa_that_lives_as_long_as_its_minimum() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    for (asked, kind, rcode, owner) in [
        ("none.service.internal.", RecordType::A, ResponseCode::NXDomain, "internal."),
        ("none.consul.", RecordType::A, ResponseCode::NXDomain, "consul."),
        ("web.service.internal.", RecordType::AAAA, ResponseCode::NoError, "internal."),
        ("consul.", RecordType::MX, ResponseCode::NoError, "consul."),
        ("1.0.0.10.in-addr.arpa.", RecordType::A, ResponseCode::NoError, "1.0.0.10.in-addr.arpa."),
    ] {
        let answer = server.ask(asked, kind).await;
        assert_eq!(answer.response_code, rcode, "{asked}");
        assert_eq!(soa(&answer), (Name::from_ascii(owner).unwrap(), 1, 1), "{asked}");
    }
}

/// Sections 2.1 and 2.2: no NS records stand beside the SOA, so that nobody takes the answer for a referral.
#[tokio::test]
async fn s2_2_no_data_is_not_a_referral() {
    let server = TestServer::start().await;
    for kind in [RecordType::A, RecordType::NS, RecordType::DS] {
        let answer = server.ask("service.internal.", kind).await;
        assert!(answer.authoritative);
        assert!(answer.authorities.iter().all(|record| record.record_type() == RecordType::SOA));
        assert!(answer.additionals.is_empty());
    }
}
