//! Whole servers on port 0, real DNS and HTTP. One binary, one file for each subject.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod attacks;
mod daemon;
mod dns;
mod forward;
mod rfc;
mod server;
mod tidy;
mod wire;
mod zones;
