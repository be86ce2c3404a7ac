//! HTTP/1.1 over keep-alive connections, no more of it than the loops need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::Value;

/// A PUT with this body.
pub(crate) fn put(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one answer, which must be 200; its body.
pub(crate) fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    read(stream, &mut bytes);
    let head = head(&bytes).expect("a head");
    bytes.split_off(head)
}

/// Reads one answer, which must be 200, in place of what is in the buffer.
fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) {
    bytes.clear();
    loop {
        let had = bytes.len();
        bytes.resize(had + 2048, 0);
        let count = stream.read(&mut bytes[had..]).unwrap();
        assert!(count > 0, "the server closed the connection");
        bytes.truncate(had + count);
        let Some(head) = head(bytes) else { continue };
        assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(bytes));
        if bytes.len() >= head + length(&bytes[..head]) {
            return;
        }
    }
}

/// Octets up to the empty line and with it.
pub(crate) fn head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What `Content-Length` says.
pub(crate) fn length(head: &[u8]) -> usize {
    let name = b"\ncontent-length: ";
    let at = head.windows(name.len()).position(|part| part.eq_ignore_ascii_case(name)).expect("a length");
    let digits = head[at + name.len()..].iter().take_while(|octet| octet.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Several connections, each with one request under way.
pub(crate) struct Loop {
    connections: Vec<(TcpStream, Instant)>,
    epoll: Epoll,
    /// Of every answer, in microseconds.
    took: Vec<f64>,
    answer: Vec<u8>,
}

impl Loop {
    pub(crate) fn open(server: SocketAddr, count: usize) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let connections: Vec<_> = (0..count).map(|_| (connect(server), Instant::now())).collect();
        for (number, (stream, _)) in connections.iter().enumerate() {
            epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
        }
        Self { connections, epoll, took: Vec::new(), answer: Vec::new() }
    }

    /// Sends all requests, the next on each connection as soon as it has its answer; returns their number.
    pub(crate) fn run<R: AsRef<[u8]>>(&mut self, mut requests: impl Iterator<Item = R>) -> usize {
        let (mut sent, mut done) = (0, 0);
        for connection in &mut self.connections {
            sent += usize::from(send(connection, &mut requests));
        }
        let mut events = vec![EpollEvent::empty(); self.connections.len()];
        while done < sent {
            let count = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
            for event in &events[..count] {
                let connection = &mut self.connections[event.data() as usize];
                read(&mut connection.0, &mut self.answer);
                self.took.push(connection.1.elapsed().as_secs_f64() * 1e6);
                done += 1;
                sent += usize::from(send(connection, &mut requests));
            }
        }
        done
    }

    pub(crate) fn latency(&self) -> Value {
        crate::disk::summary(&self.took)
    }
}

fn send<R: AsRef<[u8]>>(
    connection: &mut (TcpStream, Instant),
    requests: &mut impl Iterator<Item = R>,
) -> bool {
    let Some(request) = requests.next() else { return false };
    connection.1 = Instant::now();
    connection.0.write_all(request.as_ref()).unwrap();
    true
}
