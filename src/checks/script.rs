//! To come.

use std::time::Duration;

use super::probe::{Finding, Tools};

pub(super) async fn probe(args: &[String], _: Duration, _: usize, _: &Tools) -> Finding {
    Finding::critical(format!("script {args:?}: not built yet"))
}
