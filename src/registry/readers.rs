//! Who may still show a snapshot from before: by this a drain proves that nobody does.
//!
//! Every publish has a number. A thread that answers one batch after the other notes between two of them which was the last that it
//! has seen ([`Reader::pass`]): all that it answers from then on is from that one or a later one, and all that it answered before is
//! sent. That costs a load for each batch, and a store when something was published. An answer that waits somewhere, for its turn on
//! a TCP connection or for others to be asked, has a [`Held`] with it: one of a few counters, by the number of the publish.
//!
//! A [`Proof`] begins behind the publish of a change. It needs each thread to have noted that publish, and then to find each counter at
//! 0 once: whoever counts later loads its snapshot later, too. Since publishes share counters, what came meanwhile may make it
//! wait for longer, and never ends it too early. Locks and waits for the slowest reader in the path of an answer were rejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use parking_lot::Mutex;

/// Counters of answers that wait.
const COUNTERS: usize = 64;

/// All who answer from snapshots.
pub(super) struct Readers {
    /// The number of the last publish.
    published: AtomicU64,
    /// What each thread has noted.
    threads: Mutex<Vec<Arc<AtomicU64>>>,
    /// Answers that wait.
    held: Box<[AtomicUsize]>,
}

/// A thread that answers batches.
pub struct Reader {
    readers: Arc<Readers>,
    noted: Arc<AtomicU64>,
    last: u64,
}

/// With an answer that waits, until it is dropped.
pub struct Held {
    readers: Arc<Readers>,
    at: usize,
}

/// That nobody shows any more what was before.
pub struct Proof {
    readers: Arc<Readers>,
    publish: u64,
    /// Counters that were not seen at 0 yet.
    open: Vec<usize>,
}

/// How far a proof has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub threads: usize,
    /// Those that may still answer as it was before.
    pub behind: usize,
    /// Answers as it was before that may not be sent yet; those that are newer may be among them.
    pub waiting: usize,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            published: AtomicU64::new(0),
            threads: Mutex::default(),
            held: (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect(),
        }
    }
}

fn counter(publish: u64) -> usize {
    (publish % COUNTERS as u64) as usize
}

impl Readers {
    /// A snapshot is published, and with it all by which others know that what they derived is old.
    pub(super) fn publish(&self) {
        fence(Ordering::SeqCst);
        self.published.fetch_add(1, Ordering::Release);
    }

    /// A thread that begins to answer: to be called by it, before it loads anything.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut threads = self.threads.lock();
        let last = self.published.load(Ordering::Acquire);
        let noted = Arc::new(AtomicU64::new(last));
        threads.push(noted.clone());
        Reader { readers: self.clone(), noted, last }
    }

    /// For an answer from a snapshot that is loaded after this call.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        let held = self.hold_of(self.published.load(Ordering::Acquire));
        // Either a proof sees the count, or this sees what was published before the proof began.
        fence(Ordering::SeqCst);
        held
    }

    fn hold_of(self: &Arc<Self>, publish: u64) -> Held {
        let at = counter(publish);
        if let Some(held) = self.held.get(at) {
            held.fetch_add(1, Ordering::SeqCst);
        }
        Held { readers: self.clone(), at }
    }

    /// A proof that nobody answers from snapshots before the newest.
    pub(super) fn proof(self: &Arc<Self>) -> Proof {
        let publish = self.published.load(Ordering::Acquire);
        Proof { readers: self.clone(), publish, open: (0..COUNTERS).collect() }
    }
}

impl Reader {
    /// Between two batches: what was answered is sent, and nothing is loaded for the next.
    #[inline]
    pub fn pass(&mut self) {
        let now = self.readers.published.load(Ordering::Acquire);
        if now != self.last {
            self.noted.store(now, Ordering::Release);
            self.last = now;
        }
    }

    /// For an answer of this batch that will be sent later.
    pub fn hold(&self) -> Held {
        self.readers.hold_of(self.last)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.threads.lock().retain(|noted| !Arc::ptr_eq(noted, &self.noted));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(held) = self.readers.held.get(self.at) {
            held.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Proof {
    /// Looks how far it is.
    pub fn look(&mut self) -> Progress {
        let (threads, behind) = {
            let threads = self.readers.threads.lock();
            let behind = threads.iter().filter(|noted| noted.load(Ordering::Acquire) < self.publish);
            (threads.len(), behind.count())
        };
        fence(Ordering::SeqCst);
        let count = |at: usize| self.readers.held.get(at).map_or(0, |held| held.load(Ordering::SeqCst));
        if behind > 0 {
            return Progress { threads, behind, waiting: (0..COUNTERS).map(count).sum() };
        }
        self.open.retain(|at| count(*at) > 0);
        // Answers that begin now are counted elsewhere, so that this counter comes to 0 as well.
        if self.open.contains(&counter(self.readers.published.load(Ordering::Acquire))) {
            self.readers.publish();
        }
        Progress {
            threads,
            behind,
            waiting: self.open.iter().map(|at| count(*at)).sum::<usize>().max(self.open.len()),
        }
    }
}

impl Progress {
    /// Whether it is proved.
    pub fn is_done(self) -> bool {
        self.behind == 0 && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn each_thread_has_to_pass_and_each_answer_to_go() {
        let readers = Arc::new(Readers::default());
        let (mut one, mut other) = (readers.reader(), readers.reader());
        let waits = readers.hold();
        readers.publish();
        let mut proof = readers.proof();
        assert_eq!(proof.look(), Progress { threads: 2, behind: 2, waiting: 1 });
        one.pass();
        // An answer of the batch that the other thread is in.
        let asks = other.hold();
        other.pass();
        assert_eq!(proof.look(), Progress { threads: 2, behind: 0, waiting: 2 });
        // What begins now is no reason to wait.
        let newer = [readers.hold(), one.hold()];
        drop(waits);
        assert_eq!(proof.look().waiting, 1);
        drop(asks);
        assert!(proof.look().is_done());
        drop(newer);
        drop(one);
        assert_eq!(readers.proof().look().threads, 1, "a thread that has ended is not waited for");
    }

    #[test]
    fn a_stream_of_new_answers_does_not_hold_up_a_proof() {
        let readers = Arc::new(Readers::default());
        // One after the other, and always one.
        let mut now = readers.hold();
        readers.publish();
        let mut proof = readers.proof();
        let looks = (0..10).take_while(|_| {
            let next = readers.hold();
            let done = proof.look().is_done();
            now = next;
            !done
        });
        assert!(looks.count() < 10);
        drop(now);
    }

    /// Threads answer from a value as fast as they can; whenever a proof is done, nobody has the value from before.
    #[test]
    fn what_is_proved_holds_among_threads() {
        const ROUNDS: u64 = 300;
        let readers = Arc::new(Readers::default());
        let value = Arc::new(arc_swap::ArcSwap::from_pointee(0u64));
        let end = AtomicBool::new(false);
        // The value that each has in its hands.
        let hands: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(u64::MAX)).collect();
        thread::scope(|scope| {
            for (at, hand) in hands.iter().enumerate() {
                let (readers, value, end) = (&readers, &value, &end);
                scope.spawn(move || {
                    let mut reader = (at < 2).then(|| readers.reader());
                    while !end.load(Ordering::Relaxed) {
                        let held = match &mut reader {
                            Some(reader) => {
                                reader.pass();
                                None
                            }
                            None => Some(readers.hold()),
                        };
                        hand.store(**value.load(), Ordering::SeqCst);
                        std::hint::black_box(&held);
                        hand.store(u64::MAX, Ordering::SeqCst);
                        drop(held);
                        thread::yield_now();
                    }
                });
            }
            for round in 1..=ROUNDS {
                value.store(Arc::new(round));
                readers.publish();
                let mut proof = readers.proof();
                while !proof.look().is_done() {
                    thread::yield_now();
                }
                for hand in &hands {
                    let has = hand.load(Ordering::SeqCst);
                    assert!(has >= round, "{has} in round {round}");
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    }
}
