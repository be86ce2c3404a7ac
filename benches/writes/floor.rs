//! The least that a durable registration costs on this machine: HTTP read as far as its length, the body written and synced together with
//! all others that wait, an answer. Nothing is parsed, planned, kept or shown.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::client::{head, length};

const BLOCK: usize = 4096;
/// Octets of the file, written round and round, as the store's journal is.
const FILE: usize = 16 << 20;

/// Starts it for so many connections; it ends when they do.
pub(crate) fn start(dir: &Path, connections: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = tempfile::tempfile_in(dir).unwrap();
    file.write_all_at(&vec![1; FILE], 0).unwrap();
    file.sync_all().unwrap();
    std::thread::spawn(move || {
        let streams: Vec<TcpStream> =
            listener.incoming().take(connections).map(|stream| stream.unwrap()).collect();
        streams.iter().for_each(|stream| stream.set_nodelay(true).unwrap());
        let answers = streams.iter().map(|stream| stream.try_clone().unwrap()).collect();
        let (bodies, waiting) = channel();
        std::thread::spawn(move || keep(&file, answers, &waiting));
        take(streams, &bodies);
    });
    address
}

/// Reads requests and hands their bodies on.
fn take(mut streams: Vec<TcpStream>, bodies: &Sender<(usize, Vec<u8>)>) {
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    for (number, stream) in streams.iter().enumerate() {
        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
    }
    let mut events = vec![EpollEvent::empty(); streams.len()];
    let mut buffer = vec![0; BLOCK];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
        for event in &events[..count] {
            let number = event.data() as usize;
            // A request comes whole: it is one small write of the client.
            let size = streams[number].read(&mut buffer).unwrap_or(0);
            let Some(head) = head(&buffer[..size]) else { return };
            assert_eq!(size, head + length(&buffer[..head]));
            let _ = bodies.send((number, buffer[head..size].to_vec()));
        }
    }
}

/// Makes all that waits durable together, and answers.
fn keep(file: &File, mut answers: Vec<TcpStream>, waiting: &Receiver<(usize, Vec<u8>)>) {
    let (mut at, mut frame) = (0, Vec::new());
    while let Ok(first) = waiting.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        frame.clear();
        batch.iter().for_each(|(_, body)| frame.extend_from_slice(body));
        frame.resize(frame.len().next_multiple_of(BLOCK), 0);
        if at + frame.len() > FILE {
            at = 0;
        }
        file.write_all_at(&frame, at as u64).unwrap();
        file.sync_data().unwrap();
        at += frame.len();
        for (number, _) in batch {
            let _ = answers[number].write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}
