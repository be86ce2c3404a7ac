//! To come.

use std::time::Duration;

use super::probe::{Finding, Tools};

pub(super) async fn probe(address: &str, _: Duration, _: &Tools) -> Finding {
    Finding::critical(format!("udp {address}: not built yet"))
}
