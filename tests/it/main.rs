//! Whole servers on port 0, real DNS and HTTP. One binary, one file for each subject.

mod agent_checks;
mod catalog;
mod daemon;
mod guards;
mod http;
mod server;
mod tidy;
