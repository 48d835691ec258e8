//! Several managers in one process.
