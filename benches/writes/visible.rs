//! From a request over HTTP to the DNS answer that shows it, one at a time.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client;
use crate::program::Program;

/// Asks for the A records of one name.
struct Asker {
    socket: UdpSocket,
    query: Vec<u8>,
    asked: u16,
}

impl Asker {
    fn new(server: SocketAddr, name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        Self { socket, query, asked: 0 }
    }

    /// How many records there are.
    fn answers(&mut self) -> u16 {
        self.asked = self.asked.wrapping_add(1);
        self.query[..2].copy_from_slice(&self.asked.to_be_bytes());
        self.socket.send(&self.query).unwrap();
        let mut answer = [0; 1500];
        let length = self.socket.recv(&mut answer).expect("an answer");
        assert!(length >= 12 && answer[..2] == self.query[..2], "the answer to the question");
        u16::from_be_bytes([answer[6], answer[7]])
    }

    fn until(&mut self, begun: Instant, wanted: impl Fn(u16) -> bool) {
        while !wanted(self.answers()) {
            assert!(begun.elapsed() < GIVE_UP, "a change is not seen in DNS");
        }
    }
}

/// A change that is not seen by then was refused.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One server, and the times in microseconds from a write to what shows it.
pub(crate) struct Visible {
    http: TcpStream,
    dns: SocketAddr,
    /// New services so far.
    made: usize,
    asker: Asker,
    there: bool,
    /// From a registration to DNS, and to its answer.
    pub(crate) visible: Vec<f64>,
    pub(crate) answered: Vec<f64>,
    /// From a TTL update that flips to DNS.
    pub(crate) flipped: Vec<f64>,
}

impl Visible {
    pub(crate) fn new(program: &Program) -> Self {
        let (http, dns) = (client::connect(program.http), program.dns);
        let asker = Asker::new(dns, "seen-0.service.internal");
        let [visible, answered, flipped] = [const { Vec::new() }; 3];
        Self { http, dns, made: 0, asker, there: true, visible, answered, flipped }
    }

    /// New services, each until DNS answers with it.
    pub(crate) fn registrations(&mut self, count: usize) {
        for _ in 0..count {
            let name = format!("seen-{}", self.made);
            self.made += 1;
            let body = json!({ "Name": name, "Address": "10.9.9.9", "Port": 80, "Tags": ["v1"],
                "Meta": { "a": "b", "c": "d" }, "Check": { "TTL": "1h", "Status": "passing" } });
            let request = client::put("/v1/agent/service/register", &body.to_string());
            let mut asker = Asker::new(self.dns, &format!("{name}.service.internal"));
            assert_eq!(asker.answers(), 0);
            let begun = Instant::now();
            self.http.write_all(&request).unwrap();
            asker.until(begun, |answers| answers > 0);
            self.visible.push(begun.elapsed().as_secs_f64() * 1e6);
            client::answer(&mut self.http);
            self.answered.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }

    /// The check of the first of them out of its service and in again.
    pub(crate) fn flips(&mut self, count: usize) {
        for _ in 0..count {
            self.there = !self.there;
            let word = if self.there { "pass" } else { "fail" };
            let request = client::put(&format!("/v1/agent/check/{word}/service:seen-0"), "");
            let begun = Instant::now();
            self.http.write_all(&request).unwrap();
            let wanted = u16::from(self.there);
            self.asker.until(begun, |answers| answers == wanted);
            self.flipped.push(begun.elapsed().as_secs_f64() * 1e6);
            client::answer(&mut self.http);
        }
    }
}
