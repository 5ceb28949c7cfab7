//! The daemon itself: `daemon`, `info`, `version`.

use std::path::PathBuf;

use clap::Args;
use portolan::api::client::Failure;
use portolan::api::types::Info;
use portolan::daemon::keeper::{self, DaemonOptions};
use portolan::daemon::uplink::Uplink;
use portolan::paths;
use serde_json::{Value, json};

use super::DaemonChoice;
use super::output::{self, Format};

#[derive(Args, Debug)]
pub struct Daemon {
    /// Where the desired state is kept
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where the sockets are
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// How packets leave for the outside: sockets, or none (published ports lead in all the same); kept with the state, also
    /// for daemons that start by themselves; sockets where none was ever chosen
    #[arg(long, value_name = "HOW")]
    uplink: Option<Uplink>,
    /// Where to log once it serves, instead of stderr
    #[arg(long, value_name = "FILE", hide = true)]
    log: Option<PathBuf>,
}

impl Daemon {
    fn options(self) -> DaemonOptions {
        DaemonOptions {
            state: self.state.map_or_else(paths::state_dir, absolute),
            runtime: self.runtime.map_or_else(paths::runtime_dir, absolute),
            uplink: self.uplink,
            log: self.log.map(absolute),
        }
    }

    /// Runs a daemon under its keeper until it is stopped; the exit code.
    pub fn keep(self) -> i32 {
        keeper::keep(self.options()).into()
    }

    /// What the keeper starts.
    pub fn serve(self) -> i32 {
        portolan::daemon::serve(self.options()).into()
    }
}

/// The daemon's sockets are found by others, whose working directory is another.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[derive(Args, Debug)]
pub struct Formatted {
    /// json, or a template such as '{{.Version}}'
    #[arg(short, long)]
    format: Option<Format>,
}

impl Formatted {
    pub fn info(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let info: Info = daemon.open()?.get("/v1/info")?;
        self.show(&serde_json::to_value(&info).unwrap_or_default())
    }

    pub fn version(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let server: Option<Value> = match daemon.find()? {
            Some(client) => Some(client.get("/v1/version")?),
            None => None,
        };
        self.show(&json!({ "Client": { "Version": env!("CARGO_PKG_VERSION") }, "Server": server }))
    }

    fn show(&self, value: &Value) -> Result<i32, Failure> {
        match &self.format {
            Some(Format::Json) => output::json(value),
            Some(Format::Template(template) | Format::Columns(template)) => {
                output::line(&template.fill(value).map_err(output::refused)?);
            }
            None | Some(Format::Table) => lines(value, 0),
        }
        Ok(0)
    }
}

/// One `Field: value` a line, what is nested below it.
fn lines(value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                output::line(&format!("{indent}{name}:"));
                lines(value, depth + 1);
            }
            Value::Array(all) if !all.is_empty() => {
                output::line(&format!("{indent}{name}:"));
                for one in all.iter().filter_map(Value::as_str) {
                    output::line(&format!("{indent}  {}", output::clean(one)));
                }
            }
            Value::Object(_) | Value::Array(_) | Value::Null => {
                output::line(&format!("{indent}{name}: none"))
            }
            Value::String(text) => {
                output::line(&format!("{indent}{name}: {}", output::clean(text)))
            }
            other => output::line(&format!("{indent}{name}: {other}")),
        }
    }
}
