//! RFC 2782: SRV.

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;

use crate::dns::healthy;
use crate::server::TestServer;
use crate::wire::{self, *};

/// "Unless and until permitted by future standards action, name compression is not to be used for this field." Go
/// refuses the whole message otherwise.
#[tokio::test]
async fn the_target_is_never_compressed() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    server.register(healthy("web-2", "web", "service.internal", 81)).await;
    server.register(json!({ "ID": "web-3", "Name": "web", "Port": 82 })).await;
    let message = query("web.service.internal", RecordType::SRV);
    for answer in
        [wire::ask(server.dns(), &message).await, wire::ask_tcp(server.dns(), &message).await.unwrap()]
    {
        let [answers, _, additionals] = records(&answer);
        assert_eq!(answers.len(), 3);
        for record in answers {
            // Owner, type, class, TTL, length; priority, weight, port; the target.
            let mut at = past_name(&answer, record.start) + 10 + 6;
            while answer[at] != 0 {
                assert!(answer[at] <= 63, "a pointer in a target");
                at += 1 + usize::from(answer[at]);
            }
            assert_eq!(at + 1, record.end, "the target fills the rest");
        }
        // Owners may be compressed, and are: else answers would be longer than they need be.
        assert!(additionals.iter().all(|record| answer[record.start..record.end].len() < 60));
    }
}

#[tokio::test]
async fn every_instance_has_port_priority_and_weight() {
    let server = TestServer::start().await;
    let mut definition = healthy("web-1", "web", "10.0.0.1", 8080);
    definition["Weights"] = json!({ "Passing": 65535, "Warning": 1 });
    server.register(definition).await;
    for asked in ["_web._tcp.service.internal", "web.service.internal"] {
        let answer = wire::ask(server.dns(), &query(asked, RecordType::SRV)).await;
        let message = Message::from_vec(&answer).unwrap();
        let RData::SRV(srv) = &message.answers[0].data else { panic!("{message}") };
        assert_eq!((srv.priority, srv.weight, srv.port), (1, 65535, 8080));
    }
}
