//! Whole servers on port 0, real DNS and HTTP. One binary, one file for each subject.

mod daemon;
mod readme;
mod server;
mod tidy;
