//! RFC 9619: a query has exactly one question.

use crate::server::TestServer;
use crate::wire::{self, *};

#[tokio::test]
async fn s4_any_other_number_of_questions_is_a_format_error() {
    let server = TestServer::start().await;
    let one = asked("internal", 6, 1);
    for (count, questions) in [
        (0, vec![]),
        (0, one.clone()),
        (2, one.clone()),
        (2, [one.clone(), one.clone()].concat()),
        (65_535, one.clone()),
        (65_535, one.repeat(300)),
    ] {
        let message = [header(RD, [count, 0, 0, 0]), questions].concat();
        for answer in [
            wire::ask(server.dns(), &message[..message.len().min(4000)]).await,
            wire::ask_tcp(server.dns(), &message).await.unwrap(),
        ] {
            assert_eq!(head(&answer).flags, QR | RD | FORMERR, "{count} questions");
            assert_eq!(answer.len(), HEADER, "no question can be copied");
        }
    }
}
