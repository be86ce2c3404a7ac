//! What every request passes before a handler sees it, and every answer after: the connection it comes by, whether it is let in,
//! whose node it acts for, with what token; its id and the log of requests; compression and indentation.

pub(in crate::http) mod admission;
pub(in crate::http) mod caller;
pub(in crate::http) mod connection;
pub(in crate::http) mod guard;
pub(in crate::http) mod listener;
pub(in crate::http) mod origin;
pub(in crate::http) mod parked;
pub(in crate::http) mod rate;
pub(in crate::http) mod request_log;
pub(in crate::http) mod wrap;
