//! Pseudo-terminals: ioctl_tty(2), pts(4). Least kernel 4.13 (`TIOCGPTPEER`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::call::check;
use crate::error::Result;
use crate::path::own;

/// `TIOCSPTLCK` with 0, then `TIOCGPTPEER`: the slave of `master`, without a path, opened read-write, close-on-exec and
/// not as the controlling terminal.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    let raw = master.as_fd().as_raw_fd();
    let unlocked: libc::c_int = 0;
    // SAFETY: master is borrowed; the argument points to a live int, which the ioctl only reads.
    check(
        "ioctl(TIOCSPTLCK)",
        "",
        unsafe { libc::ioctl(raw, libc::TIOCSPTLCK, &raw const unlocked) }.into(),
    )?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: master is borrowed; the argument is the flags themselves.
    check("ioctl(TIOCGPTPEER)", "", unsafe { libc::ioctl(raw, libc::TIOCGPTPEER, flags) }.into()).map(own)
}

/// `TIOCGPTN`: the number of the slave of `master` below `/dev/pts`.
pub fn peer_number(master: impl AsFd) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: master is borrowed; the argument points to a live unsigned int, which the ioctl fills.
    let returned = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check("ioctl(TIOCGPTN)", "", returned.into())?;
    Ok(number)
}

/// `TIOCSWINSZ`, in characters.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the terminal is borrowed; the argument points to a live winsize, which the ioctl only reads.
    let returned = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check("ioctl(TIOCSWINSZ)", "", returned.into())?;
    Ok(())
}

/// `TIOCSCTTY`: makes `terminal` the controlling terminal of the calling session leader.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: the terminal is borrowed; the argument is the integer 0.
    check(
        "ioctl(TIOCSCTTY)",
        "",
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }.into(),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;

    #[test]
    fn a_pair_is_made_without_a_path() {
        let Ok(mut master) = OpenOptions::new().read(true).write(true).open("/dev/ptmx") else {
            eprintln!("skipped: no /dev/ptmx here");
            return;
        };
        let peer = open_peer(&master).unwrap();
        set_size(&master, 25, 80).unwrap();
        peer_number(&master).unwrap();
        master.write_all(b"x\n").unwrap();
        let mut buffer = [0_u8; 8];
        let mut reader = std::fs::File::from(peer);
        use std::io::Read;
        assert_eq!(reader.read(&mut buffer).unwrap(), 2);
    }
}
