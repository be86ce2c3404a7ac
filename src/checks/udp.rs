//! To come.

use super::probe::{Finding, Tools};

pub(super) async fn probe(address: &str, _: &Tools) -> Finding {
    Finding::critical(format!("udp {address}: not built yet"))
}
