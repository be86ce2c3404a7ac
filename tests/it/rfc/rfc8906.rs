//! RFC 8906: servers that answer everything, and how that is tested. The names of the tests are its sections.

use hickory_proto::rr::RecordType;

use crate::server::TestServer;
use crate::wire::{self, *};

fn apex(flags: u16, kind: u16) -> Vec<u8> {
    [header(flags, [1, 0, 0, 0]), asked("internal", kind, 1)].concat()
}

/// A query about the SOA with an OPT record, and its answer.
async fn with_edns(server: &TestServer, version: u8, flags: u16, options: &[u8]) -> (Head, Opt, usize) {
    let message = with(apex(0, 6), 3, &opt(4096, version, flags, options));
    let answer = wire::ask(server.dns(), &message).await;
    let [answers, ..] = records(&answer);
    (head(&answer), opt_of(&answer).expect("OPT"), answers.len())
}

#[tokio::test]
async fn s8_1_1_the_servers_own_zone_has_a_soa_and_aa() {
    let server = TestServer::start().await;
    let answer = wire::ask(server.dns(), &apex(0, 6)).await;
    assert_eq!((head(&answer).flags, head(&answer).counts[1]), (QR | AA, 1));
}

#[tokio::test]
async fn s8_1_2_unknown_types() {
    let server = TestServer::start().await;
    for kind in [666, 1000, 65_280, 65_535] {
        let answer = wire::ask(server.dns(), &apex(0, kind)).await;
        assert_eq!(head(&answer).flags, QR | AA, "TYPE{kind}");
        assert_eq!(head(&answer).counts, [1, 0, 1, 0]);
    }
}

#[tokio::test]
async fn s8_1_3_1_to_s8_1_3_4_cd_ad_z_and_rd() {
    let server = TestServer::start().await;
    // RFC 4035 section 3.1.6 copies CD. AD is not ours to set, and Z must be zero.
    for (flags, expected) in [(CD, CD), (AD, 0), (Z, 0), (RD, RD), (CD | AD | Z | RD, CD | RD)] {
        let answer = wire::ask(server.dns(), &apex(flags, 6)).await;
        assert_eq!(head(&answer).flags, QR | AA | expected, "{flags:x}");
        assert_eq!(head(&answer).counts[1], 1);
    }
}

#[tokio::test]
async fn s8_1_4_unknown_opcodes_with_nothing_but_a_header() {
    let server = TestServer::start().await;
    for opcode in [3u16, 7, 15] {
        let answer = wire::ask(server.dns(), &header(opcode << 11, [0; 4])).await;
        assert_eq!(head(&answer).flags, QR | opcode << 11 | NOTIMP);
        assert_eq!(answer.len(), HEADER);
    }
}

#[tokio::test]
async fn s8_1_5_tcp() {
    let server = TestServer::start().await;
    let answer = wire::ask_tcp(server.dns(), &apex(0, 6)).await.unwrap();
    assert_eq!((head(&answer).flags, head(&answer).counts[1]), (QR | AA, 1));
}

#[tokio::test]
async fn s8_2_1_edns_version_0() {
    let server = TestServer::start().await;
    let (head, opt, answers) = with_edns(&server, 0, 0, &[]).await;
    assert_eq!((head.rcode(), opt.rcode_high, opt.version, answers), (0, 0, 0, 1));
}

#[tokio::test]
async fn s8_2_2_edns_version_1_has_no_answer() {
    let server = TestServer::start().await;
    let (head, opt, answers) = with_edns(&server, 1, 0, &[]).await;
    assert_eq!((head.rcode(), opt.rcode_high, opt.version, answers), (0, 1, 0, 0));
}

#[tokio::test]
async fn s8_2_3_an_unknown_option_is_not_echoed() {
    let server = TestServer::start().await;
    let message = with(apex(0, 6), 3, &opt(4096, 0, 0, &[0, 100, 0, 0]));
    let answer = wire::ask(server.dns(), &message).await;
    assert_eq!((head(&answer).rcode(), head(&answer).counts[1]), (0, 1));
    assert_eq!(records(&answer)[2][0].len(), 11);
}

#[tokio::test]
async fn s8_2_4_unknown_flags_are_not_echoed() {
    let server = TestServer::start().await;
    let (head, opt, answers) = with_edns(&server, 0, 0x0040, &[]).await;
    assert_eq!((head.rcode(), opt.flags, answers), (0, 0, 1));
}

#[tokio::test]
async fn s8_2_5_and_s8_2_6_version_1_with_flags_or_options() {
    let server = TestServer::start().await;
    for (flags, options) in [(0x0040, &[][..]), (0, &[0, 100, 0, 0]), (0x8000, &[])] {
        let (head, opt, answers) = with_edns(&server, 1, flags, options).await;
        assert_eq!((head.rcode(), opt.rcode_high, opt.version, answers), (0, 1, 0, 0));
        assert_eq!(opt.flags & 0x7fff, 0);
    }
}

#[tokio::test]
async fn s8_2_7_a_truncated_answer_still_says_edns() {
    let server = crate::dns::crowd_with(60, |config| config.dns.payload = 512).await;
    let message = with(query("web.service.internal", RecordType::A), 3, &opt(512, 0, 0x8000, &[]));
    let answer = wire::ask(server.dns(), &message).await;
    assert!(head(&answer).has(TC) && opt_of(&answer).is_some());
}

#[tokio::test]
async fn s8_2_8_do_is_echoed() {
    let server = TestServer::start().await;
    let (head, opt, answers) = with_edns(&server, 0, 0x8000, &[]).await;
    assert_eq!((head.rcode(), opt.flags, answers), (0, 0x8000, 1));
}

#[tokio::test]
async fn s8_2_10_several_defined_options() {
    let server = TestServer::start().await;
    let cookie = [&[0, 10, 0, 8][..], &[7; 8]].concat();
    // NSID, client subnet, EXPIRE.
    let options = [&[0, 3, 0, 0][..], &[0, 8, 0, 4, 0, 1, 0, 0], &[0, 9, 0, 0], &cookie].concat();
    let (head, opt, answers) = with_edns(&server, 0, 0, &options).await;
    assert_eq!((head.rcode(), opt.version, answers), (0, 0, 1));
}
