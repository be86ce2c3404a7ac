//! How often, when again, and when not any more: what calls to others and from others have in common. Pure: the clock and chance come
//! in as arguments, so that each rule is a table in a test.
//!
//! Every call that we make has a time limit where it is made. Which of them are tried again, and which are held back, is in
//! ARCHITECTURE.md. Small and our own: the crates for it bring a clock, tasks or maps without a bound.

mod breaker;
mod client;
mod rate;
mod retries;

pub use breaker::Breaker;
pub use client::household;
pub use rate::Rate;
pub use retries::Retries;
