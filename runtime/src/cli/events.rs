//! `ketch events`: a container's use, and its running out of memory, one JSON object a line.

use clap::Args;

use super::{CliError, Global, Operands, Subcommand, load, print, size};
use crate::container::Status;
use crate::events;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// time between two samples
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    /// print one sample and exit
    #[arg(long)]
    stats: bool,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Events {
    const NAME: &'static str = "events";
    const ABOUT: &'static str =
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics";
    const OPERANDS: Operands = Operands::ID;
    const DESCRIPTION: &'static str = "One JSON object a line: a sample of what the container uses at each interval \
(\"stats\"), that the kernel killed in it for want of\nmemory (\"oom\"), and that a pressure threshold of its limits was \
exceeded (\"pressure\", cgroup v2). Ends with the container.";

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let container = load(global, &self.id)?;
        let interval = size::duration(&self.interval)
            .filter(|interval| !interval.is_zero())
            .ok_or_else(|| CliError::text("duration interval must be greater than 0"))?;
        if container.status()? == Status::Stopped {
            return Err(CliError::text(format!("container with id {} is not running", container.id())));
        }
        if self.stats {
            return print(&line(&events::sample(&container)?)?);
        }
        events::follow(&container, interval, |event| {
            let line = line(event).map_err(std::io::Error::from)?;
            print(&line).map(|_| ()).map_err(|error| std::io::Error::other(error.to_string()))
        })?;
        Ok(0)
    }
}

fn line(event: &events::Event<'_>) -> serde_json::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(event)?))
}
