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
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16_384]);
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            assert!(text.starts_with("http/1.1 200 "), "{}", String::from_utf8_lossy(&bytes));
            let length = text.split_once("content-length: ").expect("a length").1;
            let end = head + length.split("\r\n").next().unwrap().parse::<usize>().unwrap();
            if bytes.len() >= end {
                return bytes[head..end].to_vec();
            }
        }
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the server closed the connection");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// Several connections, each with one request under way.
pub(crate) struct Loop {
    connections: Vec<(TcpStream, Instant)>,
    epoll: Epoll,
    /// Of every answer, in microseconds.
    took: Vec<f64>,
}

impl Loop {
    pub(crate) fn open(server: SocketAddr, count: usize) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let connections: Vec<_> = (0..count).map(|_| (connect(server), Instant::now())).collect();
        for (number, (stream, _)) in connections.iter().enumerate() {
            epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
        }
        Self { connections, epoll, took: Vec::new() }
    }

    /// Sends all requests, the next on each connection as soon as it has its answer; returns their number.
    pub(crate) fn run(&mut self, mut requests: impl Iterator<Item = Vec<u8>>) -> usize {
        let (mut sent, mut done) = (0, 0);
        for connection in &mut self.connections {
            sent += usize::from(send(connection, &mut requests));
        }
        let mut events = vec![EpollEvent::empty(); self.connections.len()];
        while done < sent {
            let count = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
            for event in &events[..count] {
                let connection = &mut self.connections[event.data() as usize];
                answer(&mut connection.0);
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

fn send(connection: &mut (TcpStream, Instant), requests: &mut impl Iterator<Item = Vec<u8>>) -> bool {
    let Some(request) = requests.next() else { return false };
    connection.1 = Instant::now();
    connection.0.write_all(&request).unwrap();
    true
}
