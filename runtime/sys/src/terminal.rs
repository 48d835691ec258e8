//! Pseudo-terminals: ioctl_tty(2), pts(4). Least kernel 4.13 (`TIOCGPTPEER`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::call::check;
use crate::error::{Result, SyscallError};
use crate::path::own;

/// `TIOCSPTLCK` with 0, then `TIOCGPTPEER`: the slave of `master`, without a path, opened read-write, close-on-exec and
/// not as the controlling terminal.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    let raw = master.as_fd().as_raw_fd();
    let unlocked: libc::c_int = 0;
    // SAFETY: master is borrowed; the argument points to a live int, which the ioctl only reads.
    let returned = unsafe { libc::ioctl(raw, libc::TIOCSPTLCK, &raw const unlocked) };
    check("ioctl(TIOCSPTLCK)", "", returned.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: master is borrowed; the argument is the flags themselves.
    check("ioctl(TIOCGPTPEER)", "", unsafe { libc::ioctl(raw, libc::TIOCGPTPEER, flags) }.into()).map(own)
}

/// `TIOCSWINSZ`, in characters.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the terminal is borrowed; the argument points to a live winsize, which the ioctl only reads.
    let returned = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check("ioctl(TIOCSWINSZ)", "", returned.into())?;
    Ok(())
}

/// The request of [`set_controlling`], for whoever asks a seccomp filter of it.
pub const SET_CONTROLLING: u64 = libc::TIOCSCTTY;

/// `TIOCSCTTY`: makes `terminal` the controlling terminal of the calling session leader.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: the terminal is borrowed; the argument is the integer 0.
    let returned = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    check("ioctl(TIOCSCTTY)", "", returned.into())?;
    Ok(())
}

/// `TIOCGWINSZ`: rows and columns in characters.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the terminal is borrowed; the argument points to a live winsize, which the ioctl fills.
    let returned = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    check("ioctl(TIOCGWINSZ)", "", returned.into())?;
    Ok((size.ws_row, size.ws_col))
}

/// The settings of a terminal: termios(3).
#[derive(Debug, Clone)]
pub struct Settings(Termios);

/// The settings of `terminal`; an error when it is none.
pub fn settings(terminal: impl AsFd) -> Result<Settings> {
    tcgetattr(terminal).map(Settings).map_err(|errno| SyscallError::new("ioctl(TCGETS)", "", errno))
}

/// Changes the settings of `terminal` at once.
pub fn apply(terminal: impl AsFd, settings: &Settings) -> Result<()> {
    tcsetattr(terminal, SetArg::TCSANOW, &settings.0)
        .map_err(|errno| SyscallError::new("ioctl(TCSETS)", "", errno))
}

impl Settings {
    /// Every key goes through as it is typed; output is still processed, since the other terminal's is not (see
    /// [`Settings::without_carriage_returns`]).
    #[must_use]
    pub fn raw(mut self) -> Self {
        cfmakeraw(&mut self.0);
        self.0.output_flags |= OutputFlags::OPOST;
        self
    }

    /// A line's end is written as it is, so that what is copied to another terminal gets one carriage return and not two.
    #[must_use]
    pub fn without_carriage_returns(mut self) -> Self {
        self.0.output_flags -= OutputFlags::ONLCR;
        self
    }
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
        master.write_all(b"x\n").unwrap();
        let mut buffer = [0_u8; 8];
        let mut reader = std::fs::File::from(peer);
        use std::io::Read;
        assert_eq!(reader.read(&mut buffer).unwrap(), 2);
    }
}
