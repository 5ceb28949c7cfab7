//! `portolan completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

#[derive(Args, Debug)]
pub struct Completions {
    /// The shell to complete for
    shell: Shell,
}

impl Completions {
    pub fn act(self) -> i32 {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "portolan", &mut script);
        super::output::line(String::from_utf8_lossy(&script).trim_end());
        0
    }
}
