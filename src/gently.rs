//! Loading beside a process that answers: a successor loads while the server before it still answers DNS on the same
//! processors, and must not take them from it.
//!
//! Priority can be given away and not taken back, so heavy work runs on a thread of its own, which ends with it.

use std::sync::atomic::{AtomicBool, Ordering};

static BESIDE: AtomicBool = AtomicBool::new(false);
/// A thread of this priority has a quarter of a processor that another one could use up. With the lowest, loading takes ten
/// times as long beside a thread that looks for queries without a pause; with the usual one, half the peak is lost in part.
const NICE: i32 = 5;

/// Says that another process answers while this one loads.
pub fn beside_another() {
    BESIDE.store(true, Ordering::Relaxed);
}

/// Whether another process answered while this one loaded.
pub fn is_beside_another() -> bool {
    BESIDE.load(Ordering::Relaxed)
}

/// Does heavy work of the start; at a lower priority when it is beside another process.
pub fn gently<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if !is_beside_another() {
        return work();
    }
    let lowered = || {
        // Of this thread alone. Where it is refused, the work is done as fast as it goes.
        let _ = rustix::process::setpriority_process(None, NICE);
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(lowered).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_work_has_the_lower_priority() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        assert_eq!(gently(nice), before);
        beside_another();
        assert_eq!((gently(nice), nice()), (NICE, before));
        BESIDE.store(false, Ordering::Relaxed);
    }
}
