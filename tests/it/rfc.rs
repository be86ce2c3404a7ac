//! What the RFCs demand, one file for each; tests bear the section's number.

mod rfc1035;
mod rfc2308;
mod rfc2782;
mod rfc6891;
mod rfc6895;
mod rfc7766;
mod rfc8020;
mod rfc8482;
mod rfc8906;
mod rfc9619;
