//! What the relay's process gives up before it sees a byte of a client's: its user, every capability, new privileges for ever, and all
//! system calls but those of `calls.json`, which are what it takes to carry connections. It can open no file, execute nothing, see no
//! other process; sockets it makes are of TCP, in the namespace where it is. Another call ends it.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Nobody else's: above what is given to users, their ranges and systemd's.
const USER: u32 = 0xF000_6B74;
const CALLS: &str = include_str!("calls.json");
const FILTER: &str = "relay";

/// Gives it all up, for this thread, which is the process's only one.
///
/// # Errors
/// Something can't be given up: it may not go on.
pub(super) fn enter() -> io::Result<()> {
    drop_bounds()?;
    rustix::thread::set_thread_groups(&[])?;
    let (group, user) = (Gid::from_raw(USER), Uid::from_raw(USER));
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    let nothing = CapabilitySet::empty();
    let nothing = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    rustix::thread::set_capabilities(None, nothing)?;
    // It sets no_new_privs too.
    let filter = filter()?;
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}

/// What no program that it might execute could have.
fn drop_bounds() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // The kernel has no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn filter() -> io::Result<seccompiler::BpfProgram> {
    let machine = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let mut filters = seccompiler::compile_from_json(CALLS.as_bytes(), machine).map_err(io::Error::other)?;
    filters.remove(FILTER).ok_or_else(|| io::Error::other("there is no filter for the relay"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;

    /// Of the test that is run in a process of its own: what it does there.
    const ATTACK: &str = "KETCH_TEST_ATTACK";
    const SIGSYS: i32 = 31;

    fn jailed(attack: &str) -> ExitStatus {
        let mut test = Command::new("/proc/self/exe");
        let name = "network::relay::jail::tests::what_the_attacked_process_does";
        let _test = test.args(["--exact", name, "--ignored", "--test-threads=1", "--nocapture"]);
        test.env(ATTACK, attack).output().unwrap().status
    }

    fn socket(family: AddressFamily, kind: SocketType) -> bool {
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).is_ok()
    }

    #[test]
    #[ignore = "one process of the test below"]
    fn what_the_attacked_process_does() {
        let Ok(attack) = std::env::var(ATTACK) else { return };
        let myself = rustix::process::getpid();
        let own_maps = std::fs::File::open("/proc/self/maps").unwrap();
        enter().unwrap();
        let is_done = match attack.as_str() {
            "carry" => {
                let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
                drop((pipe, vec![7_u8; 1 << 20], std::time::Instant::now()));
                socket(AddressFamily::INET, SocketType::STREAM)
                    && socket(AddressFamily::INET6, SocketType::STREAM)
            }
            "open" => std::fs::read("/etc/hostname").is_ok(),
            "exec" => Command::new("/bin/true").status().is_ok(),
            "kill" => rustix::process::kill_process(myself, rustix::process::Signal::CONT).is_ok(),
            "privileges" => rustix::thread::set_thread_uid(Uid::ROOT).is_ok(),
            "datagrams" => socket(AddressFamily::INET, SocketType::DGRAM),
            "packets" => socket(AddressFamily::INET, SocketType::RAW),
            "local" => socket(AddressFamily::UNIX, SocketType::STREAM),
            "netlink" => socket(AddressFamily::NETLINK, SocketType::RAW),
            "unshare" => rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&own_maps),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .is_ok(),
            "read" => rustix::io::read(&own_maps, &mut [0; 16]).is_ok(),
            "dump" => {
                rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).is_ok()
            }
            "chroot" => rustix::process::chroot("/").is_ok(),
            "mount" => rustix::mount::unmount("/proc", rustix::mount::UnmountFlags::DETACH).is_ok(),
            "thread" => std::thread::Builder::new().spawn(|| {}).is_ok(),
            other => panic!("{other}"),
        };
        std::process::exit(i32::from(!is_done));
    }

    #[test]
    fn all_that_it_can_is_carry_connections() {
        assert!(jailed("carry").success());
        for attack in [
            "open",
            "exec",
            "kill",
            "privileges",
            "datagrams",
            "packets",
            "local",
            "netlink",
            "unshare",
            "read",
            "dump",
            "chroot",
            "mount",
            "thread",
        ] {
            let ended = jailed(attack);
            assert_eq!(ended.signal(), Some(SIGSYS), "{attack}: {ended}");
        }
    }
}
