//! Whole servers on port 0, real DNS and HTTP. One binary, one file for each subject.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod acl;
mod acl_routes;
mod agent;
mod agent_checks;
mod attacks;
mod bad_input;
mod blocking;
mod catalog;
mod checks;
mod cli;
mod crash;
mod daemon;
mod definitions;
mod disk;
mod dns;
mod faces;
mod filter;
mod forward;
mod guards;
mod http;
mod https;
mod import;
mod journal;
mod limits;
mod near;
mod old_format;
mod openapi;
mod order;
mod own_node;
mod queries;
mod readme;
mod reads;
mod request_log;
mod restart;
mod rfc;
mod server;
mod store;
mod targets;
mod tidy;
mod udp;
mod unix;
mod wire;
mod zones;
