//! Calls between nodes: HTTP/2 over the [`world`](crate::world)'s connections. [`Links`] makes them, [`serve`] answers
//! them; what they say is [`calls`](crate::calls)'.

mod body;
mod held;
mod links;
mod refusal;
mod server;
#[cfg(test)]
mod tests;
mod together;
mod tunnel;

pub use body::{Answer, Body, Messages};
pub use held::Held;
pub use links::{CallError, Destination, Links};
pub use refusal::Refusal;
pub use server::{Bounds, Call, Service, serve};
pub use tunnel::{Flow, splice, tunnel};
