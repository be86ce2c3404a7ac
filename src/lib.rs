//! Rollcall: a DNS server that answers for the services that are alive.

pub mod checks;
pub mod config;
pub mod dns;
pub mod http;
pub mod model;
pub mod registry;
pub mod select;
pub mod store;
pub mod telemetry;
pub mod tls;
