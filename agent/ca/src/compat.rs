//! Docker's own words: texts that its clients and their users match. Each is written here once, and tested where it is
//! raised.

/// A join whose token is wrong, of another cluster, or was rotated. gRPC adds `InvalidArgument`.
pub const TOKEN_NEEDED: &str = "A valid join token is necessary to join this cluster";

/// A joining node whose token names another root than the manager has; the digest follows.
pub const FINGERPRINT: &str = "remote CA does not match fingerprint. Expected:";

/// `docker swarm unlock` with another key than the one that the node's key is sealed with.
pub const WRONG_UNLOCK_KEY: &str = "swarm could not be unlocked: invalid key provided";

/// Any call of a manager that waits for its unlock key.
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

/// The organisational units of nodes' certificates, and names that their managers answer to.
pub const MANAGER: &str = "swarm-manager";
pub const WORKER: &str = "swarm-worker";

/// The root's common name, and one more name of every manager: whoever asks for a certificate asks it.
pub const AUTHORITY: &str = "swarm-ca";
