//! Calls to others that fail: who fails again and again is left alone for a while, who asked is told at once, and when others are back
//! all goes on by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use rollcall::config::Data;
use rollcall::dns::forward;
use tokio::net::{TcpListener, UdpSocket};

use crate::server::{PATIENCE, TestServer, query};
use crate::wire::data;

/// A server of names that answers, or hears everything and says nothing.
struct Upstream {
    address: SocketAddr,
    answers: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (answers, heard) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (awake, count) = (answers.clone(), heard.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                if !awake.load(Ordering::SeqCst) {
                    continue;
                }
                let request = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
                let name = request.queries[0].name().clone();
                answer.add_query(request.queries[0].clone());
                answer.add_answer(Record::from_rdata(name, 600, RData::A("192.0.2.1".parse().unwrap())));
                let _ = socket.send_to(&answer.to_vec().unwrap(), client).await;
            }
        });
        Self { address, answers, heard }
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

async fn ask(server: &TestServer, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.dns()).await.unwrap();
    socket.send(&query(name, RecordType::A).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
    Message::from_vec(&buffer[..received.expect("no answer").unwrap()]).unwrap()
}

/// The value of a series.
async fn value(server: &TestServer, series: &str) -> u64 {
    server.metric(series).await as u64
}

const OPEN: &str = "rollcall_outbound_breaker_open{to=\"upstreams\"}";
const WITHHELD: &str = "rollcall_outbound_withheld_total{to=\"upstreams\"}";

#[tokio::test]
async fn upstreams_that_answer_nobody_are_left_alone_what_is_known_is_given_and_they_come_back() {
    let upstream = Upstream::start().await;
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        let (upstreams, timeout) = (vec![upstream.address], Duration::from_millis(200));
        config.forward = Some(forward::Config { upstreams, timeout, ..forward::Config::default() });
    })
    .await;
    let known = |answer: &Message| data(&answer.answers, RecordType::A) == ["192.0.2.1"];
    assert!(known(&ask(&server, "known.example.test.").await));
    assert_eq!((value(&server, OPEN).await, value(&server, WITHHELD).await), (0, 0));

    upstream.answers.store(false, Ordering::SeqCst);
    // What is known resets nothing.
    for number in 0..5 {
        assert_eq!(value(&server, OPEN).await, 0, "after {number}");
        let answer = ask(&server, &format!("n{number}.example.test.")).await;
        assert_eq!(answer.response_code, ResponseCode::ServFail);
        assert!(known(&ask(&server, "known.example.test.").await));
    }
    assert_eq!(value(&server, OPEN).await, 1);
    let mut number = 5;
    // One in a while finds out whether they are back; the others are told at once.
    while value(&server, WITHHELD).await < 3 {
        let (heard, withheld) = (upstream.heard(), value(&server, WITHHELD).await);
        let answer = ask(&server, &format!("n{number}.example.test.")).await;
        assert_eq!(answer.response_code, ResponseCode::ServFail);
        if value(&server, WITHHELD).await > withheld {
            assert_eq!(upstream.heard(), heard, "nobody was asked");
        }
        assert!(known(&ask(&server, "known.example.test.").await), "what is known is given");
        number += 1;
        assert!(number < 1_000, "none is held back");
    }

    upstream.answers.store(true, Ordering::SeqCst);
    let back = async {
        while !known(&ask(&server, "back.example.test.").await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("they are not asked again");
    assert_eq!(value(&server, OPEN).await, 0);
    let withheld = value(&server, WITHHELD).await;
    for number in 0..20 {
        assert!(known(&ask(&server, &format!("after{number}.example.test.")).await));
    }
    assert_eq!(value(&server, WITHHELD).await, withheld);
}

#[tokio::test]
async fn a_collector_that_hangs_up_is_tried_with_pauses_and_then_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        config.otlp.endpoint = Some(endpoint.parse().unwrap());
    })
    .await;
    let until_open = async {
        while value(&server, "rollcall_outbound_breaker_open{to=\"collector\"}").await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_open).await.expect("it is never left alone");
    assert_eq!(calls.load(Ordering::SeqCst), 4, "tries");
    assert_eq!(value(&server, "rollcall_outbound_retries_total{to=\"collector\"}").await, 3);
    let until_withheld = async {
        // Each scrape is a request, which makes a span.
        while value(&server, "rollcall_outbound_withheld_total{to=\"collector\"}").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_withheld).await.expect("spans are sent to it");
    assert_eq!(calls.load(Ordering::SeqCst), 4, "it is left alone");
    server.restart().await;
    assert!(calls.load(Ordering::SeqCst) > 4, "at the end it is asked once more");
}
