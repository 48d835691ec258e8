//! The Docker Engine API: HTTP in, calls of the daemon's modules, JSON and streams out.
//!
//! [`server`] takes connections, [`router`] finds the route, [`request`] and [`response`] are what a route gets and gives,
//! [`json`] reads bodies,
//! [`hijack`] hands a connection over to a stream; `elsewhere` asks other nodes of the cluster for their containers; `routes/` has a file for each kind of object. Routes translate and call:
//! what an operation does is its module's. Never names `network::` internals or a shim.

pub mod body;
pub(crate) mod elsewhere;
pub mod filters;
pub mod hijack;
pub mod json;
pub mod lenient;
pub mod request;
pub mod response;
pub mod router;
pub mod routes;
pub mod server;
pub mod stdcopy;
mod told_end;
pub mod version;
pub mod websocket;
pub mod wire;
