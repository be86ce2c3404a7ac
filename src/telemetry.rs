//! What the server says of itself: metrics, logs, and traces.

pub mod ecs;
pub mod logs;
pub mod metrics;
pub mod origin;
mod repeats;
mod said;
pub mod tap;
pub mod trace;
pub mod utc;

pub use metrics::Metrics;
