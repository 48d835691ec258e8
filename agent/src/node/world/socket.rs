//! Options of the sockets between nodes: a node that lost its power says nothing, and its connections must end all the same.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// How long a connection may be quiet until the other end is asked (`TCP_KEEPIDLE`), and how often it is asked again.
const IDLE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// How long sent bytes may wait for an acknowledgement, in milliseconds (`TCP_USER_TIMEOUT`, tcp(7)).
const UNACKNOWLEDGED: u32 = 20_000;

/// Sets them.
///
/// # Errors
/// What setsockopt(2) says: the connection was lost already.
pub(super) fn tend(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, IDLE)?;
    sockopt::set_tcp_keepintvl(socket, INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, PROBES)?;
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED)?;
    Ok(())
}
