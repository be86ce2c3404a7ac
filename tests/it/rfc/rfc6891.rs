//! RFC 6891: EDNS(0).

use hickory_proto::rr::RecordType;

use crate::dns::{crowd, crowd_with};
use crate::server::TestServer;
use crate::wire::{self, *};

fn plain() -> Vec<u8> {
    query("internal", RecordType::SOA)
}

#[tokio::test]
async fn s6_1_1_opt_is_answered_with_opt_and_only_then() {
    let server = TestServer::start().await;
    assert_eq!(opt_of(&wire::ask(server.dns(), &plain()).await), None);
    for (name, rcode) in [("internal", 0), ("none.internal", NXDOMAIN), ("example.com", REFUSED)] {
        let message = with(query(name, RecordType::SOA), 3, &opt(4096, 0, 0, &[]));
        let answer = wire::ask(server.dns(), &message).await;
        assert_eq!(head(&answer).rcode(), rcode);
        let ours = Opt { payload: 1232, rcode_high: 0, version: 0, flags: 0 };
        assert_eq!(opt_of(&answer), Some(ours), "{name}");
    }
}

#[tokio::test]
async fn s6_1_1_a_second_opt_or_one_elsewhere_or_with_an_owner_is_a_format_error() {
    let server = TestServer::start().await;
    let good = opt(1232, 0, 0, &[]);
    let mut owned = opt(1232, 0, 0, &[]);
    owned.splice(0..1, [1, b'x', 0]);
    for message in [
        with(with(plain(), 3, &good), 3, &good),
        with(plain(), 1, &good),
        with(plain(), 2, &good),
        with(plain(), 3, &owned),
    ] {
        let answer = wire::ask(server.dns(), &message).await;
        assert_eq!(head(&answer).rcode(), FORMERR);
        assert_eq!(head(&answer).counts, [1, 0, 0, 0]);
    }
}

#[tokio::test]
async fn s6_1_2_options_that_are_longer_than_their_record_are_a_format_error() {
    let server = TestServer::start().await;
    for options in
        [&[0, 10][..], &[0, 10, 0], &[0, 10, 0, 1], &[0, 10, 255, 255, 1], &[0, 3, 0, 0, 0, 3, 0, 9]]
    {
        let message = with(plain(), 3, &opt(1232, 0, 0, options));
        assert_eq!(head(&wire::ask(server.dns(), &message).await).rcode(), FORMERR, "{options:?}");
    }
    // The record longer than the message.
    let mut message = with(plain(), 3, &opt(1232, 0, 0, &[]));
    *message.last_mut().unwrap() = 4;
    assert_eq!(head(&wire::ask(server.dns(), &message).await).rcode(), FORMERR);
}

#[tokio::test]
async fn s6_1_2_unknown_options_and_cookies_are_ignored() {
    let server = TestServer::start().await;
    let cookie = [&[0, 10, 0, 8][..], &[7; 8]].concat();
    let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
    let unknown = [255, 240, 0, 3, 1, 2, 3];
    let nsid = [0, 3, 0, 0];
    for options in [&cookie[..], &subnet, &unknown, &nsid, &[&cookie[..], &unknown, &nsid].concat()] {
        let message = with(plain(), 3, &opt(1232, 0, 0, options));
        let answer = wire::ask(server.dns(), &message).await;
        assert_eq!(head(&answer).rcode(), 0);
        assert_eq!(head(&answer).counts, [1, 1, 0, 1]);
        let [_, _, additionals] = records(&answer);
        assert_eq!(additionals[0].len(), 11, "no option comes back");
    }
}

#[tokio::test]
async fn s6_1_3_other_versions_are_badvers_with_ours() {
    let server = TestServer::start().await;
    for version in [1, 2, 255] {
        let message = with(plain(), 3, &opt(1232, version, 0, &[]));
        let answer = wire::ask(server.dns(), &message).await;
        assert_eq!(head(&answer).rcode(), 0, "the low four bits of 16");
        assert_eq!(head(&answer).counts, [1, 0, 0, 1]);
        assert_eq!(opt_of(&answer), Some(Opt { payload: 1232, rcode_high: 1, version: 0, flags: 0 }));
    }
}

#[tokio::test]
async fn s6_1_4_do_comes_back_and_unknown_flags_do_not() {
    let server = TestServer::start().await;
    for (flags, expected) in [(0x8000, 0x8000), (0x7fff, 0), (0xffff, 0x8000)] {
        let message = with(plain(), 3, &opt(1232, 0, flags, &[]));
        assert_eq!(opt_of(&wire::ask(server.dns(), &message).await).unwrap().flags, expected);
    }
}

/// Below 512 counts as 512; above, our own limit holds, whatever a client says it takes.
#[tokio::test]
async fn s6_2_3_answers_keep_to_the_clients_size_and_to_ours() {
    let server = crowd(150).await;
    let asked = query("web.service.internal", RecordType::A);
    let plain = wire::ask(server.dns(), &asked).await;
    assert!(plain.len() <= 512 && plain.len() > 480 && head(&plain).has(TC));
    for (size, limit) in
        [(0, 512), (100, 512), (512, 512), (800, 800), (1232, 1232), (4096, 1232), (65_535, 1232)]
    {
        let answer = wire::ask(server.dns(), &with(asked.clone(), 3, &opt(size, 0, 0, &[]))).await;
        // What is sent fills the limit to within one record.
        assert!(answer.len() <= limit && answer.len() > limit - 32, "{size}: {}", answer.len());
        assert!(head(&answer).has(TC));
        assert!(opt_of(&answer).is_some(), "the OPT record is never what is left out");
    }
    // Over TCP a client's UDP size does not count.
    let answer = wire::ask_tcp(server.dns(), &with(asked, 3, &opt(512, 0, 0, &[]))).await.unwrap();
    assert_eq!((head(&answer).counts[1], head(&answer).has(TC)), (150, false));
}

#[tokio::test]
async fn s6_2_5_the_payload_that_is_configured_is_what_we_say_and_send() {
    let server = crowd_with(60, |config| config.dns.payload = 600).await;
    let asked = with(query("web.service.internal", RecordType::A), 3, &opt(4096, 0, 0, &[]));
    let answer = wire::ask(server.dns(), &asked).await;
    assert_eq!(opt_of(&answer).unwrap().payload, 600);
    assert!(answer.len() <= 600 && answer.len() > 568);
}
