//! RFC 8020: NXDOMAIN means that there is nothing underneath.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;

use crate::dns::healthy;
use crate::server::TestServer;

/// Every name that answers, and every name above it up to the domain: none may be NXDOMAIN.
#[tokio::test]
async fn s2_no_name_above_one_that_exists_is_nxdomain() {
    let server = TestServer::start().await;
    let mut definition = healthy("web-1", "web", "10.0.0.1", 80);
    definition["Tags"] = json!(["blue.eu.v1", "tcp"]);
    server.register(definition).await;
    for existing in [
        "blue.eu.v1.web.service.dc1.internal.",
        "blue.eu.v1.web.service.internal.",
        "_web._tcp.service.dc1.internal.",
        "n1.node.dc1.internal.",
        "0a000001.addr.dc1.internal.",
        "ns.internal.",
    ] {
        let mut name = Name::from_ascii(existing).unwrap();
        let exists = server.ask(existing, RecordType::A).await;
        assert_eq!(exists.answers.len(), 1, "{existing}: {exists}");
        while name.num_labels() > 0 {
            let answer = server.ask(&name.to_ascii(), RecordType::A).await;
            assert_eq!(answer.response_code, ResponseCode::NoError, "{name} above {existing}");
            name = name.base_name();
            if name.is_root() {
                break;
            }
        }
    }
    for nothing in
        ["green.eu.v1.web.service.internal.", "u.v1.web.service.internal.", "1.web.service.internal."]
    {
        let answer = server.ask(nothing, RecordType::A).await;
        assert_eq!(answer.response_code, ResponseCode::NXDomain, "{nothing}");
    }
}
