//! The command line: the server, its checks and backups, and clients of its HTTP API for people.
//!
//! Each command is a file; this one says what there is and turns errors into an exit status: 0 done, 1 it could not
//! be done, 2 the command line was wrong.

mod acl;
mod api;
mod backup;
mod check_config;
mod drain;
mod explain;
mod export;
mod history;
mod import;
mod log_level;
mod place;
mod register;
mod restart;
mod route;
mod serve;
mod show;
mod store;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A DNS server that answers for the services that are alive.
#[derive(Parser)]
#[command(name = "rollcall", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Arguments),
    /// Put a new process in the place of the running server, without a gap
    Restart(restart::Arguments),
    /// Check a configuration file: every error at once; exit status 1 if there is one
    CheckConfig(check_config::Arguments),
    /// Register a service, or take a new definition for it
    Register(Box<register::Arguments>),
    /// Take a service instance out
    Deregister(register::DeregisterArguments),
    /// List the services and how many of their instances are healthy
    Services(show::ServicesArguments),
    /// List the instances of a service
    Instances(show::InstancesArguments),
    /// Show the instances of a service, and again at every change
    Watch(show::InstancesArguments),
    /// Take an instance out of answers, and say when it is safe to stop it
    Drain(drain::Arguments),
    /// Ask what DNS answers to a name, and why
    Explain(explain::Arguments),
    /// Show what became of a service of late, and how it stood at a moment
    History(history::Arguments),
    /// Say with which instances of a service its name answers, and in what shares
    Route(route::Arguments),
    /// Write all definitions of a running server to a file
    Backup(backup::BackupArguments),
    /// Put a backup in place of the definitions of a stopped server
    Restore(backup::RestoreArguments),
    /// Control access
    Acl(acl::Arguments),
    /// Write the whole registry of a running server as one JSON document
    Export(export::Arguments),
    /// Take in an export, or the catalog of a running Consul
    Import(import::Arguments),
    /// Show what a running server logs, or change it
    LogLevel(log_level::Arguments),
    /// Print the OpenAPI document of all that the server serves over HTTP
    Openapi,
    /// Change how a stopped server's definitions are encrypted
    Store(store::Arguments),
    /// Print the version
    Version,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        // `rollcall services | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell when this fails.
            let _ = writeln!(io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Restart(arguments) => restart::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Register(arguments) => register::register(*arguments),
        Command::Deregister(arguments) => register::deregister(&arguments),
        Command::Services(arguments) => show::services(&arguments),
        Command::Instances(arguments) => show::instances(&arguments),
        Command::Watch(arguments) => show::watch(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Route(arguments) => route::run(&arguments),
        Command::Backup(arguments) => backup::backup(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Acl(arguments) => acl::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::LogLevel(arguments) => log_level::run(&arguments),
        Command::Openapi => say(format_args!("{:#}", crate::openapi())),
        Command::Store(arguments) => store::run(&arguments),
        Command::Version => say(format_args!("rollcall {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// A line on standard output.
fn say(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// A runtime for a command that asks one server.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
