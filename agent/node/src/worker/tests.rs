//! The worker on tokio's paused clock, with a model of an engine, a disk that forgets what was not synced, and a leader by
//! script that speaks the real calls.

mod cluster;
mod crash;
mod engine;
mod lab;
mod leader;
mod life;
mod logs;
mod networks;
mod sessions;
