//! RFC 6895: types that are no data.

use crate::dns::healthy;
use crate::server::TestServer;
use crate::wire::{self, *};

/// Section 3.1: OPT and TSIG are records of a message, never of a name; transfers are not served here.
#[tokio::test]
async fn s3_1_meta_types_are_never_answered_with_data() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    const OPT: u16 = 41;
    const TSIG: u16 = 250;
    const IXFR: u16 = 251;
    const AXFR: u16 = 252;
    for name in ["internal", "web.service.internal", "none.internal"] {
        for (kind, rcode) in [(OPT, FORMERR), (TSIG, FORMERR), (IXFR, NOTIMP), (AXFR, NOTIMP)] {
            let message = [header(RD, [1, 0, 0, 0]), asked(name, kind, 1)].concat();
            for answer in [
                wire::ask(server.dns(), &message).await,
                wire::ask_tcp(server.dns(), &message).await.unwrap(),
            ] {
                assert_eq!(head(&answer).rcode(), rcode, "{name} {kind}");
                assert_eq!(head(&answer).counts, [1, 0, 0, 0]);
            }
        }
    }
    // 0 is reserved; 128 to 255 are for questions and meta types, those that nobody knows are just absent.
    for kind in [0, 128, 200, 249, 253, 254] {
        let message = [header(RD, [1, 0, 0, 0]), asked("web.service.internal", kind, 1)].concat();
        let answer = wire::ask(server.dns(), &message).await;
        assert_eq!((head(&answer).rcode(), head(&answer).counts[1]), (0, 0), "{kind}");
    }
}
