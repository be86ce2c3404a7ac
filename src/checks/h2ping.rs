//! To come.

use super::probe::{Finding, Tools};
use crate::model::ProbeTls;

pub(super) async fn probe(address: &str, _: Option<&ProbeTls>, _: &Tools) -> Finding {
    Finding::critical(format!("h2ping {address}: not built yet"))
}
