//! The Docker Engine API's objects, version 1.50, as data: what clients send and what they are shown. A file for each kind
//! of object; names are Docker's. No behaviour, no I/O.

pub mod image;
