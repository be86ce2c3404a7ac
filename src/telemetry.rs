//! What the server says of itself: metrics and logs.

pub mod logs;
pub mod metrics;

pub use metrics::Metrics;
