//! To come.

use super::probe::{Finding, Tools};
use crate::model::ProbeTls;

pub(super) async fn probe(address: &str, _: &str, _: Option<&ProbeTls>, _: &Tools) -> Finding {
    Finding::critical(format!("grpc {address}: not built yet"))
}
