//! Whole servers on port 0, real DNS and HTTP. One binary, one file for each subject.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod agent_checks;
mod bad_input;
mod blocking;
mod catalog;
mod checks;
mod cli;
mod crash;
mod daemon;
mod disk;
mod guards;
mod http;
mod limits;
mod server;
mod store;
mod tidy;
