//! What the server says of itself: metrics and logs.

pub mod logs;
pub mod metrics;
pub mod tap;
pub mod utc;

pub use metrics::Metrics;
