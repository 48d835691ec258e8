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

/// Of a root that a user brings; gRPC adds `InvalidArgument` to all of these. That of a certificate and that of a key are followed
/// by the numbers of a Go library in Docker's.
pub const NO_CERTIFICATE: &str = "invalid root certificates: no certificate can be read";
pub const NO_KEY: &str = "malformed private key: no key can be read";
pub const SEVERAL_ROOTS: &str = "the desired CA certificate cannot contain multiple certificates";
pub const UNREADABLE_ROOT: &str = "could not parse the desired CA certificate";
pub const ROOT_EXPIRES: &str = "CA certificate expires too soon";
pub const KEY_MISMATCH: &str = "certificate key mismatch";
pub const SAME_KEY: &str = "Cannot update to a cert with an identical key";
/// Not Docker's, which finds out later: why follows.
pub const UNUSABLE_ROOT: &str = "the desired CA certificate can't be used";
