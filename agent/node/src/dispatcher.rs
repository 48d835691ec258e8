//! stub
use std::sync::Arc;
use crate::manager::Leader;
use crate::wire::{Answer, Call, Refusal};
#[derive(Debug)]
pub struct Dispatcher;
impl Dispatcher {
    pub fn new(_: Arc<Leader>) -> Arc<Self> { Arc::new(Self) }
    pub async fn answer(&self, _: Call) -> Result<Answer, Refusal> { Err(Refusal::NoSession) }
}
