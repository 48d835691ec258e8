//! The relay's own process: it gives up all that it could do, and serves until the daemon has gone and its last connection has ended.
//! The daemon starts it, by another name of this very program, in the network namespace of the routing mesh; its standard input is
//! the daemon's end of [`super::channel`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use rustix::net::{SendFlags, sockopt};
use rustix::process::{Resource, getrlimit};

use super::jail;
use super::server::Server;

/// The name under which this program is the relay.
pub const NAME: &str = "ketchd-relay";

/// Each connection has two sockets, and two pipes while both directions are busy.
const DESCRIPTORS: u64 = 6;
/// Its own, and listening sockets: of a thousand ports, by both families.
const KEPT_BACK: u64 = 2048;
const MOST_CONNECTIONS: u64 = 32_768;
const LEAST_CONNECTIONS: u64 = 64;

/// Who has not been heard of for so long is asked, so often, and then given up.
const SILENCE: Duration = Duration::from_secs(60);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED: u32 = 6;

/// Runs it to its end.
#[must_use]
pub fn run() -> ExitCode {
    let channel = io::stdin();
    match serve(channel.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = format!("the relay ends: {error}\n");
            let _gone =
                rustix::net::send(&channel, why.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            ExitCode::FAILURE
        }
    }
}

fn serve(channel: BorrowedFd<'_>) -> io::Result<()> {
    let server = Server::new(channel, most_connections())?;
    jail::enter()?;
    server.run()
}

fn most_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = descriptors.saturating_sub(KEPT_BACK) / DESCRIPTORS;
    usize::try_from(most.clamp(LEAST_CONNECTIONS, MOST_CONNECTIONS)).unwrap_or(64)
}

/// Bytes go on as they come, however few: the header is one packet more before the first of them. Whoever has gone without a word is
/// given up. Connections have this of the socket that takes them.
pub(super) fn keep_alive(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, SILENCE)?;
    sockopt::set_tcp_keepintvl(&socket, ASKED_EVERY)?;
    Ok(sockopt::set_tcp_keepcnt(&socket, ASKED)?)
}
