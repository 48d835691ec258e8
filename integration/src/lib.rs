//! Drives built runc-compatible binaries; never links the runtime.
