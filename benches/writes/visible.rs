//! From a request over HTTP to the DNS answer that shows it, one at a time.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::Program;
use crate::{client, disk};

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
}

/// New services, each until DNS answers with it.
pub(crate) fn registrations(program: &Program, rounds: usize) -> Value {
    let mut stream = client::connect(program.http);
    let (mut visible, mut answered) = (Vec::new(), Vec::new());
    for i in 0..rounds {
        let name = format!("seen-{i}");
        let body = json!({ "Name": name, "Address": "10.9.9.9", "Port": 80, "Tags": ["v1"], "Meta": { "a": "b", "c": "d" },
            "Check": { "TTL": "1h", "Status": "passing" } });
        let request = client::put("/v1/agent/service/register", &body.to_string());
        let mut asker = Asker::new(program.dns, &format!("{name}.service.internal"));
        assert_eq!(asker.answers(), 0);
        let begun = Instant::now();
        stream.write_all(&request).unwrap();
        while asker.answers() == 0 {}
        visible.push(begun.elapsed().as_secs_f64() * 1e6);
        client::answer(&mut stream);
        answered.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    json!({ "dns": disk::summary(&visible), "http": disk::summary(&answered) })
}

/// One check out of its service and in again.
pub(crate) fn flips(program: &Program, rounds: usize) -> Value {
    let mut stream = client::connect(program.http);
    let mut asker = Asker::new(program.dns, "seen-0.service.internal");
    let mut visible = Vec::new();
    for i in 0..rounds {
        let (word, wanted) = if i % 2 == 0 { ("fail", 0) } else { ("pass", 1) };
        let request = client::put(&format!("/v1/agent/check/{word}/service:seen-0"), "");
        let begun = Instant::now();
        stream.write_all(&request).unwrap();
        while asker.answers() != wanted {}
        visible.push(begun.elapsed().as_secs_f64() * 1e6);
        client::answer(&mut stream);
    }
    json!({ "dns": disk::summary(&visible) })
}
