//! RFC 7766: DNS over TCP, and what a client may not do with its connections.

use std::collections::BTreeSet;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::dns::{crowd_with, healthy};
use crate::server::{PATIENCE, TestServer, read_tcp};
use crate::wire::*;

fn soa_query() -> Vec<u8> {
    query("internal", RecordType::SOA)
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.dns()).await.unwrap()
}

/// Within the patience of a test.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never came")
}

/// Whether the other end closes, saying nothing more.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut one = [0];
    !matches!(soon(stream.read(&mut one)).await, Ok(1))
}

#[tokio::test]
async fn s6_2_1_a_connection_takes_one_query_after_another() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    for _ in 0..20 {
        let message = soa_query();
        stream.write_all(&framed(&message)).await.unwrap();
        let answer = soon(read_tcp(&mut stream)).await.unwrap();
        assert_eq!((answer[..2].to_vec(), head(&answer).counts[1]), (message[..2].to_vec(), 1));
    }
}

#[tokio::test]
async fn s6_2_1_1_queries_are_pipelined_and_each_gets_its_answer() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    let mut stream = connect(&server).await;
    let queries: Vec<_> = (0..500u16)
        .map(|id| {
            let mut message = query("web.service.internal", RecordType::SRV);
            message[..2].copy_from_slice(&id.to_be_bytes());
            framed(&message)
        })
        .collect();
    let (mut read, mut write) = stream.split();
    let writing = async { write.write_all(&queries.concat()).await.unwrap() };
    let reading = async {
        let mut ids = BTreeSet::new();
        while ids.len() < 500 {
            let length = read.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(length)];
            read.read_exact(&mut answer).await.unwrap();
            assert_eq!(head(&answer).counts[1], 1);
            // Any order is allowed; none may come twice.
            assert!(ids.insert(head(&answer).id));
        }
    };
    soon(async { tokio::join!(writing, reading) }).await;
}

#[tokio::test]
async fn s6_2_1_a_query_may_arrive_in_pieces() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    stream.set_nodelay(true).unwrap();
    for octet in framed(&soa_query()) {
        stream.write_all(&[octet]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert!(soon(read_tcp(&mut stream)).await.is_some());
}

#[tokio::test]
async fn s6_2_3_an_idle_connection_is_closed() {
    let server = TestServer::with(|config| config.dns.tcp.idle = Duration::from_millis(200)).await;
    let mut silent = connect(&server).await;
    let mut used = connect(&server).await;
    used.write_all(&framed(&soa_query())).await.unwrap();
    assert!(soon(read_tcp(&mut used)).await.is_some());
    assert!(is_closed(&mut silent).await && is_closed(&mut used).await);
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_dns_dropped_total{reason=\"tcp timeout\"} 2"), "{metrics}");
}

/// Every octet comes sooner than any wait for one octet would end; only the time of the whole query stops it.
#[tokio::test]
async fn s10_a_query_that_drips_octet_by_octet_is_cut_off() {
    let server = TestServer::with(|config| config.dns.tcp.transfer = Duration::from_millis(300)).await;
    let stream = connect(&server).await;
    let (mut read, mut write) = stream.into_split();
    let dripping = tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        let mut sent = 0usize;
        // A message of 64 KiB, which would take an hour.
        while write.write_all(&[0xff]).await.is_ok() {
            sent += 1;
            pause.tick().await;
        }
        sent
    });
    let mut one = [0];
    assert!(!matches!(soon(read.read(&mut one)).await, Ok(1)), "closed without an answer");
    let sent = soon(dripping).await.unwrap();
    assert!(sent < 1000, "{sent} octets were taken");
    assert_eq!(wire_answers(&server).await, 1, "others are served");
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_dns_dropped_total{reason=\"tcp timeout\"} 1"), "{metrics}");
}

async fn wire_answers(server: &TestServer) -> u16 {
    head(&ask_tcp(server.dns(), &soa_query()).await.unwrap()).counts[1]
}

#[tokio::test]
async fn s8_a_message_of_no_octets_ends_the_connection() {
    let server = TestServer::start().await;
    for length in [0u16, 1, 11] {
        let mut stream = connect(&server).await;
        stream.write_all(&framed(&vec![0; usize::from(length)])).await.unwrap();
        assert!(is_closed(&mut stream).await, "{length} octets");
    }
    assert_eq!(wire_answers(&server).await, 1);
}

#[tokio::test]
async fn s8_a_message_of_64_kib_is_read_whole_and_refused() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    let mut message = soa_query();
    message.resize(65_535, 0xc0);
    stream.write_all(&framed(&message)).await.unwrap();
    let answer = soon(read_tcp(&mut stream)).await.unwrap();
    assert_eq!(head(&answer).rcode(), FORMERR);
    // The connection goes on: where the message ended was never in doubt.
    stream.write_all(&framed(&soa_query())).await.unwrap();
    assert_eq!(head(&soon(read_tcp(&mut stream)).await.unwrap()).rcode(), 0);
}

#[tokio::test]
async fn s6_2_4_a_client_that_has_finished_sending_still_gets_all_answers() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    let queries: Vec<u8> = (0..100).flat_map(|_| framed(&soa_query())).collect();
    stream.write_all(&queries).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answers = 0;
    while soon(read_tcp(&mut stream)).await.is_some() {
        answers += 1;
    }
    assert_eq!(answers, 100);
}

#[tokio::test]
async fn s10_a_thousand_pipelined_queries_and_a_reset_leave_nothing_behind() {
    let server = TestServer::start().await;
    for _ in 0..10 {
        let mut stream = connect(&server).await;
        let queries: Vec<u8> = (0..1000).flat_map(|_| framed(&soa_query())).collect();
        // The server stops reading when nobody takes its answers; what it takes is enough here.
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.write_all(&queries)).await;
        // Lingering for no time resets.
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    assert_eq!(wire_answers(&server).await, 1);
    none_open(&server).await;
}

/// Waits until no connection is open.
async fn none_open(server: &TestServer) {
    soon(async {
        while !server.get("/metrics").await.text().contains("rollcall_dns_tcp_connections 0") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A client that asks and never reads: its answers fill the sockets' buffers, and then the time for one answer ends it.
#[tokio::test]
async fn s10_a_client_that_takes_no_answers_is_cut_off() {
    let server = crowd_with(200, |config| config.dns.tcp.transfer = Duration::from_millis(300)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.dns()).await.unwrap();
    let one = framed(&query("web.service.internal", RecordType::SRV));
    // Some 14 kB for each query: more than any buffer takes is answered within the test's patience.
    let asking = async { while stream.write_all(&one.repeat(50)).await.is_ok() {} };
    soon(asking).await;
    none_open(&server).await;
}

#[tokio::test]
async fn s6_2_2_connections_are_limited_per_client_and_counted() {
    let server = TestServer::with(|config| config.dns.tcp.connections_per_client_max = 3).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        stream.write_all(&framed(&soa_query())).await.unwrap();
        assert!(soon(read_tcp(&mut stream)).await.is_some());
        kept.push(stream);
    }
    assert!(is_closed(&mut connect(&server).await).await, "the fourth");
    let metrics = server.get("/metrics").await.text();
    assert!(
        metrics.contains("rollcall_limit_hits_total{limit=\"tcp_connections_per_client_max\"} 1"),
        "{metrics}"
    );
    // Another client is another matter.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(server.dns()).await.unwrap();
    other.write_all(&framed(&soa_query())).await.unwrap();
    assert!(soon(read_tcp(&mut other)).await.is_some());
    // A place that was given back can be taken again.
    kept.clear();
    drop(other);
    none_open(&server).await;
    assert_eq!(wire_answers(&server).await, 1);
}

/// In total means over all listeners.
#[tokio::test]
async fn s6_2_2_connections_are_limited_in_total_over_all_listeners() {
    let server = TestServer::with(|config| {
        config.dns.listen.push("127.0.0.1:0".parse().unwrap());
        config.dns.tcp.connections_max = 3;
    })
    .await;
    let mut kept = Vec::new();
    for listener in [0, 1, 0] {
        let mut stream = TcpStream::connect(server.running.dns[listener]).await.unwrap();
        stream.write_all(&framed(&soa_query())).await.unwrap();
        assert!(soon(read_tcp(&mut stream)).await.is_some());
        kept.push(stream);
    }
    for listener in [0, 1] {
        let mut stream = TcpStream::connect(server.running.dns[listener]).await.unwrap();
        assert!(is_closed(&mut stream).await, "listener {listener}");
    }
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_limit_hits_total{limit=\"tcp_connections_max\"} 2"), "{metrics}");
}
