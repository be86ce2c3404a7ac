//! What the bench is asked for.

use std::path::PathBuf;

pub(crate) struct Options {
    pub(crate) short: bool,
    /// Only the time from a write to DNS.
    pub(crate) only_visible: bool,
    pub(crate) instances: usize,
    /// Instances of a second server.
    pub(crate) beside: Option<usize>,
    pub(crate) registrations: usize,
    /// Of each closed loop that is bounded by time.
    pub(crate) seconds: f64,
    /// Of the one-at-a-time measurements.
    pub(crate) rounds: usize,
    pub(crate) dir: PathBuf,
    pub(crate) program: PathBuf,
}

impl Options {
    pub(crate) fn read() -> Self {
        let mut options = Self {
            short: false,
            only_visible: false,
            instances: 1_000,
            beside: None,
            registrations: 20_000,
            seconds: 3.0,
            rounds: 2_000,
            dir: std::env::temp_dir(),
            program: env!("CARGO_BIN_EXE_rollcall").into(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--short" => {
                    options.short = true;
                    options.seconds = 0.5;
                    options.rounds = 200;
                }
                "--only" => options.only_visible = value() == "visible",
                "--instances" => options.instances = value().parse().unwrap(),
                "--beside" => options.beside = Some(value().parse().unwrap()),
                "--registrations" => options.registrations = value().parse().unwrap(),
                "--seconds" => options.seconds = value().parse().unwrap(),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--dir" => options.dir = value().into(),
                "--program" => options.program = value().into(),
                // What cargo says to every bench.
                "--bench" => {}
                other => panic!("{other} is no option"),
            }
        }
        options
    }
}
